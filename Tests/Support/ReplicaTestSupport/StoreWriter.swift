import VerneuilFormat
import VerneuilStore

/// Stores a database file as a replicating machine would, without one.
public final class StoreWriter {
    public let host: String
    /// The database's path, as its name has it.
    public let path: String
    public let stores: [any ObjectStore]
    /// Whether chunk 0 travels in the manifest, as usual.
    public var bundlesFirstChunk = true
    private var base: [Fingerprint]?

    public init(host: String = "db.example.com", path: String, stores: [any ObjectStore]) {
        self.host = host
        self.path = path
        self.stores = stores
    }

    public var manifestName: String { ManifestName.make(host: host, path: path) }
    public var uri: String { "verneuil://\(host)\(path)" }

    /// Cuts `database` into chunks, stores those that the last call hasn't, and the manifest.
    /// - Parameters:
    ///   - ctime: seconds and nanoseconds.
    ///   - level: zstd's for chunks; nil stores them raw.
    @discardableResult
    public func store(_ database: [UInt8], ctime: (Int64, Int32) = (1_700_000_000, 123), level: Int32? = 1) throws -> Manifest {
        let length = UInt64(database.count)
        var chunks: [Fingerprint] = []
        var bundled: [BundledChunk] = []
        try database.withUnsafeBytes { bytes in
            for i in 0..<Chunk.count(forLength: length) {
                let count = Chunk.length(ofChunk: i, databaseLength: length)
                let chunk = UnsafeRawBufferPointer(rebasing: bytes[i * Chunk.size..<i * Chunk.size + count])
                let fingerprint = Chunk.fingerprint(chunk)
                chunks.append(fingerprint)
                if i == 0, bundlesFirstChunk {
                    bundled.append(BundledChunk(index: 0, offset: 0, fingerprint: fingerprint, data: Array(chunk)))
                } else if fingerprint != Chunk.zeroFingerprint, stored.insert(fingerprint).inserted {
                    try put(fingerprint, level.map { Body.compress(chunk, level: $0) } ?? Array(chunk))
                }
            }
        }
        if 2 * chunks.count >= BaseChunk.minimumWords, base == nil {
            let bytes = BaseChunk.encode(chunks)
            base = chunks
            try put(FingerprintKey.chunk.fingerprint(bytes), bytes.withUnsafeBytes { Body.compress($0) })
        }
        let words = base?.flatMap { [$0.primary, $0.secondary] }
        let manifest = Manifest(
            headerFingerprint: FingerprintKey.header.fingerprint(Array(database.prefix(100))), versionID: [1, 2, 3],
            length: length, ctime: ctime.0, ctimeNanoseconds: ctime.1, generatedBy: Array("StoreWriter".utf8),
            chunks: chunks, bundled: bundled)
        let body = Body.compressManifest(manifest.encoded(base: words))
        for store in stores { try store.put(PutRequest(.manifests, manifestName, body)) }
        return manifest
    }
    private var stored: Set<Fingerprint> = []

    private func put(_ fingerprint: Fingerprint, _ body: [UInt8]) throws {
        for store in stores { try store.put(PutRequest(.chunks, fingerprint.chunkName, body)) }
    }
}
