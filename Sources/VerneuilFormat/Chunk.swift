/// How a database file is cut (FORMAT 2).
public enum Chunk {
    /// Bytes of every chunk but the last, which may be shorter but never empty.
    public static let size = 65_536

    /// Of `size` zero bytes: a chunk so common that it is never stored nor fetched.
    public static let zeroFingerprint = Fingerprint(
        primary: 8_155_395_758_008_617_606, secondary: 2_728_302_605_148_947_890)

    /// How many chunks a file of `length` bytes has.
    public static func count(forLength length: UInt64) -> Int {
        Int(length / 65_536) + (length % 65_536 == 0 ? 0 : 1)
    }

    /// Bytes of chunk `i` of a file of `databaseLength` bytes; 0 where it has no such chunk.
    public static func length(ofChunk i: Int, databaseLength: UInt64) -> Int {
        guard i >= 0, i < count(forLength: databaseLength) else { return 0 }
        return Int(min(UInt64(size), databaseLength - UInt64(i) * UInt64(size)))
    }

    public static func fingerprint(_ bytes: UnsafeRawBufferPointer) -> Fingerprint {
        FingerprintKey.chunk.fingerprint(bytes)
    }
}
