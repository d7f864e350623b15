import CVerneuil
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// What a store holds of a database, put together by the format's rules alone: none of the code that serves replicas.
struct StoredImage {
    let manifest: Manifest
    let bytes: [UInt8]

    /// nil: there is no manifest. Throws where one is there that can't be restored: a broken promise (S5).
    static func read(_ store: any ObjectStore, _ name: String) throws -> StoredImage? {
        let get = GetRequest(.manifests, name, limit: Body.maximumLength)
        let result: GetResult
        do throws(StoreError) {
            result = try store.get(get)
        } catch {
            if error.kind == .noSuchSpace { return nil }
            throw error
        }
        guard case .found(let body, _) = result else { return nil }
        return try StoredImage(store, manifest: body, name)
    }

    init(_ store: any ObjectStore, manifest body: [UInt8], _ name: String) throws {
        func object(_ fingerprint: Fingerprint, for what: String) throws -> [UInt8] {
            let get = GetRequest(.chunks, fingerprint.chunkName, limit: Body.maximumLength)
            guard case .found(let body, _) = try store.get(get) else {
                throw Finding("S5: \(what) of \(name) is missing in \(store.name): \(fingerprint.chunkName)")
            }
            return body
        }
        let stored = try StoredManifest(decoding: body)
        let base = try stored.baseChunk.map { name in
            try Body.decode(object(name, for: "base chunk"), limit: stored.maximumBaseLength) { bytes in
                FingerprintKey.chunk.fingerprint(bytes) == name
            }
        }
        let manifest = try stored.resolved(base: base)
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Int(manifest.length))
        let bundled = Dictionary(manifest.bundled.map { ($0.index, $0.data) }) { first, _ in first }
        for (index, fingerprint) in manifest.chunks.enumerated() {
            let length = Chunk.length(ofChunk: index, databaseLength: manifest.length)
            if let data = bundled[index] {
                bytes += data
            } else if fingerprint == Chunk.zeroFingerprint {
                bytes += [UInt8](repeating: 0, count: length)
            } else {
                bytes += try Body.decodeChunk(
                    object(fingerprint, for: "chunk \(index)"), expecting: fingerprint, length: length)
            }
        }
        self.manifest = manifest
        self.bytes = bytes
    }
}

/// nil where they are equal; else where they begin to differ.
func difference(_ a: [UInt8], _ b: [UInt8]) -> String? {
    let common = min(a.count, b.count)
    if a.count == b.count && memcmp(a, b, common) == 0 { return nil }
    guard let at = (0..<common).first(where: { a[$0] != b[$0] }) else {
        return "\(a.count) bytes against \(b.count)"
    }
    return "byte \(at) (chunk \(at / Chunk.size)) is the first to differ; \(a.count) bytes against \(b.count)"
}
