/// Chunks that several processes put into one cache.
public enum CacheHammer {
    public static let distinct = 400

    public static func chunk(_ i: Int) -> [UInt8] {
        [UInt8](repeating: UInt8(truncatingIfNeeded: i), count: 2000) + [UInt8("\(i)".utf8.count)] + Array("\(i)".utf8)
    }
}
