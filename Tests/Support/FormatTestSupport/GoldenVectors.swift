/// Tests/Fixtures/golden/vectors.json: what Verneuil 0.6.4's functions answer.
public struct GoldenVectors: Decodable, Sendable {
    public struct Umash: Decodable, Sendable {
        public var params: String
        public var input: String
        public var len: Int
        public var hash: String
        public var secondary: String
    }
    public struct ChunkName: Decodable, Sendable {
        public var chunkName: String
        public var input: String
        public var len: Int
    }
    public struct Lists: Decodable, Sendable { public var lists: [List] }
    public struct List: Decodable, Sendable {
        public var firstWords: [String]
        public var nWords: Int
        public var hash: String
        public var secondary: String
    }
    public struct Hostname: Decodable, Sendable {
        public var hostname: String
        public var hash: String
    }
    public struct ManifestName: Decodable, Sendable {
        public var hostname: String
        public var path: String
        public var manifestName: String
    }
    public struct MangledPath: Decodable, Sendable {
        public var path: String
        public var mangled: String
    }

    public var umash: [Umash]
    public var chunkNames: [ChunkName]
    public var chunkLists: Lists
    public var hostnameHashes: [Hostname]
    public var manifestNames: [ManifestName]
    public var mangledPaths: [MangledPath]
    public var zero64KFingerprint: [String]

    public static func load() throws -> GoldenVectors { try GoldenData.json(GoldenVectors.self, "vectors.json") }

    /// The input that a vector names: "zero", or "lcg" for a generator seeded with the length.
    public static func input(_ name: String, _ count: Int) -> [UInt8] {
        guard name == "lcg" else { return [UInt8](repeating: 0, count: count) }
        var x = UInt64(count)
        return (0..<count).map { _ in
            x = x &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(x >> 56)
        }
    }
}
