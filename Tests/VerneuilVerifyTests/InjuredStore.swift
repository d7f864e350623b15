import CZstd
import FormatTestSupport
import ManifestProto
import ReplicaTestSupport
import VerneuilFormat
import VerneuilStore

/// A store with one database of interest, others beside it, and a way to do harm to it.
final class InjuredStore {
    /// How the database is stored.
    struct Layout {
        var bundles: Bool
        var hasBase: Bool
    }
    enum Injury: Int, CaseIterable {
        case bitFlip, truncation, missing, swapped, staleObject, appended, torn, emptied
        case staleManifest, foreignManifest
        case unreferenced, otherEncoding, none
    }
    typealias Object = (space: ObjectSpace, key: String)

    static let name = ManifestName.make(host: "h", path: "/srv/app.db")
    static let otherName = ManifestName.make(host: "h", path: "/srv/other.db")

    let store = MemoryStore("injured")
    let database: [UInt8]
    /// The stored manifest, and that of the snapshot before.
    let manifest: [UInt8]
    let older: [UInt8]
    private let manifestValue: Manifest
    private let otherManifest: [UInt8]
    private var original: [String: [UInt8]] = [:]
    /// What the database needs.
    private(set) var referenced: [Object] = []
    private(set) var unreferenced: [Object] = []

    init(_ layout: Layout, seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        func chunk(_ length: Int) -> [UInt8] {
            // Half noise, half text, so that flips hit literals and tables of zstd alike.
            (0..<length).map { i in i % 512 < 256 ? UInt8.random(in: 0...255, using: &random) : UInt8(ascii: "a") + UInt8(i % 7) }
        }
        var before = chunk(Chunk.size) + chunk(Chunk.size) + [UInt8](repeating: 0, count: Chunk.size) + chunk(Chunk.size)
        before += chunk(10_000)
        var now = before
        now.replaceSubrange(Chunk.size..<Chunk.size + 2000, with: chunk(2000))
        now[3] ^= 1
        database = now

        let (oldManifest, oldChunks) = Self.cut(before, ctime: 1_700_000_000, layout)
        let (newManifest, newChunks) = Self.cut(now, ctime: 1_700_000_100, layout)
        let (other, otherChunks) = Self.cut(chunk(Chunk.size) + chunk(5000), ctime: 1_700_000_050, Layout(bundles: true, hasBase: false))
        let base = layout.hasBase ? BaseChunk.encode(oldManifest.chunks) : nil
        let words = layout.hasBase ? oldManifest.chunks.flatMap { [$0.primary, $0.secondary] } : nil
        manifestValue = newManifest
        manifest = Body.compressManifest(newManifest.encoded(base: words))
        older = Body.compressManifest(oldManifest.encoded(base: nil))
        otherManifest = Body.compressManifest(other.encoded(base: nil))

        var referencedKeys = Set<String>()
        for (fingerprint, bytes) in newChunks + oldChunks + otherChunks {
            let key = fingerprint.chunkName
            let body = UInt8.random(in: 0..<4, using: &random) == 0 ? bytes : bytes.withUnsafeBytes { Body.compress($0) }
            if original["chunks/\(key)"] != nil { continue }
            try put((.chunks, key), body)
            if newManifest.chunks.contains(fingerprint) {
                referencedKeys.insert(key)
            } else {
                unreferenced.append((.chunks, key))
            }
        }
        if let base {
            let key = FingerprintKey.chunk.fingerprint(base).chunkName
            try put((.chunks, key), base.withUnsafeBytes { Body.compress($0) })
            referencedKeys.insert(key)
        }
        try put((.manifests, Self.name), manifest)
        try put((.manifests, Self.otherName), otherManifest)
        unreferenced.append((.manifests, Self.otherName))
        referenced = referencedKeys.sorted().map { (.chunks, $0) } + [(.manifests, Self.name)]
    }

    private static func cut(_ database: [UInt8], ctime: Int64, _ layout: Layout) -> (Manifest, [(Fingerprint, [UInt8])]) {
        var chunks: [Fingerprint] = []
        var stored: [(Fingerprint, [UInt8])] = []
        var bundled: [BundledChunk] = []
        for start in stride(from: 0, to: database.count, by: Chunk.size) {
            let bytes = Array(database[start..<min(start + Chunk.size, database.count)])
            let fingerprint = FingerprintKey.chunk.fingerprint(bytes)
            chunks.append(fingerprint)
            if start == 0, layout.bundles {
                bundled.append(BundledChunk(index: 0, offset: 0, fingerprint: fingerprint, data: bytes))
            } else if fingerprint != Chunk.zeroFingerprint {
                stored.append((fingerprint, bytes))
            }
        }
        let manifest = Manifest(
            headerFingerprint: FingerprintKey.header.fingerprint(Array(database.prefix(100))),
            versionID: Array("0d9f3c7e-1111-4222-8333-444455556666".utf8), length: UInt64(database.count), ctime: ctime,
            ctimeNanoseconds: 5, generatedBy: Array("test".utf8), chunks: chunks, bundled: bundled)
        return (manifest, stored)
    }

    private func put(_ object: Object, _ body: [UInt8]) throws {
        original["\(object.space.rawValue)/\(object.key)"] = body
        try store.put(PutRequest(object.space, object.key, body))
    }
    private func body(_ object: Object) -> [UInt8] { original["\(object.space.rawValue)/\(object.key)"] ?? [] }

    // MARK: Harm

    struct Done {
        var objects: [Object] = []
        /// Whether the database can't be had as it was.
        var isHarm: Bool
        /// Seen only by who knows the newest snapshot.
        var needsReference = false
    }

    func injure(_ injury: Injury, _ random: inout SeededGenerator) throws -> Done {
        guard let object = referenced.randomElement(using: &random) else { return Done(isHarm: false) }
        let body = body(object)
        func changed(_ new: [UInt8]) throws -> Done {
            try store.put(PutRequest(object.space, object.key, new))
            return Done(objects: [object], isHarm: !isAsGood(new, object))
        }
        switch injury {
        case .bitFlip:
            var new = body
            // One in four near the front, where the frame's and the message's structure is.
            let end = Bool.random(using: &random) && Bool.random(using: &random) ? min(64, new.count) : new.count
            new[Int.random(in: 0..<end, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            return try changed(new)
        case .truncation: return try changed(Array(body.prefix(Int.random(in: 1..<body.count, using: &random))))
        case .emptied: return try changed([])
        case .appended:
            return try changed(body + (0..<Int.random(in: 1...100, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
        case .torn:
            var new = body
            let start = Int.random(in: 0..<new.count, using: &random)
            for i in start..<min(start + Int.random(in: 1...4096, using: &random), new.count) { new[i] = 0 }
            return try changed(new)
        case .missing:
            store.remove(object.space, object.key)
            return Done(objects: [object], isHarm: true)
        case .swapped:
            guard let other = (referenced + unreferenced).filter({ $0 != object }).randomElement(using: &random) else {
                return Done(isHarm: false)
            }
            let otherBody = self.body(other)
            try store.put(PutRequest(other.space, other.key, body))
            try store.put(PutRequest(object.space, object.key, otherBody))
            let isOtherHarmed = referenced.contains { $0 == other } && !isAsGood(body, other)
            // Another database's manifest is good in itself.
            let isManifest = object.space == .manifests && other.space == .manifests
            return Done(
                objects: [object, other], isHarm: isManifest || isOtherHarmed || !isAsGood(otherBody, object),
                needsReference: isManifest)
        case .staleObject:
            guard object.space == .chunks, let stale = unreferenced.filter({ $0.space == .chunks }).randomElement(using: &random) else {
                store.remove(object.space, object.key)
                return Done(objects: [object], isHarm: true)
            }
            return try changed(self.body(stale))
        case .staleManifest:
            try store.put(PutRequest(.manifests, Self.name, older))
            return Done(objects: [(.manifests, Self.name)], isHarm: true, needsReference: true)
        case .foreignManifest:
            try store.put(PutRequest(.manifests, Self.name, otherManifest))
            return Done(objects: [(.manifests, Self.name)], isHarm: true, needsReference: true)
        case .unreferenced:
            guard let other = unreferenced.randomElement(using: &random) else { return Done(isHarm: false) }
            if Bool.random(using: &random) {
                store.remove(other.space, other.key)
            } else {
                try store.put(PutRequest(other.space, other.key, Array(self.body(other).dropFirst())))
            }
            return Done(objects: [other], isHarm: false)
        case .otherEncoding:
            let content = Self.decompressed(body) ?? body
            let level = Int32.random(in: 0...12, using: &random)
            let new = level == 0 ? content : content.withUnsafeBytes { Body.compress($0, level: level) }
            try store.put(PutRequest(object.space, object.key, new))
            return Done(objects: [object], isHarm: false)
        case .none: return Done(isHarm: false)
        }
    }

    func heal(_ done: Done) throws {
        for object in done.objects { try store.put(PutRequest(object.space, object.key, body(object))) }
    }

    // MARK: The oracle, without the code under test

    /// Whether an injured object still means the same.
    private func isAsGood(_ body: [UInt8], _ object: Object) -> Bool {
        let before = self.body(object)
        guard object.space == .manifests else {
            let content = Self.decompressed(before) ?? before
            return body == content || Self.decompressed(body) == content
        }
        let expected = try? ProtoManifest(serializedBytes: Self.decompressed(before) ?? before)
        for candidate in [Self.decompressed(body), body] {
            guard let candidate, let found = try? ProtoManifest(serializedBytes: candidate), found.hasV1, let expected else { continue }
            return Self.isSame(found.v1, expected.v1)
        }
        return false
    }

    private static func isSame(_ a: ProtoManifestV1, _ b: ProtoManifestV1) -> Bool {
        a.hasHeaderFprint && a.headerFprint == b.headerFprint && a.hasContentsFprint && a.contentsFprint == b.contentsFprint
            && a.len == b.len && a.hasBaseChunksFprint == b.hasBaseChunksFprint && a.baseChunksFprint == b.baseChunksFprint
            && a.chunks == b.chunks && a.bundledChunks.count == b.bundledChunks.count
            && zip(a.bundledChunks, b.bundledChunks).allSatisfy {
                $0.chunkIndex == $1.chunkIndex && $0.chunkOffset == $1.chunkOffset && $0.chunkData == $1.chunkData
                    && (!$0.hasChunkFprint || $0.chunkFprint == $1.chunkFprint)
            }
    }

    private static func decompressed(_ body: [UInt8]) -> [UInt8]? {
        guard body.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) else { return nil }
        var out = [UInt8](repeating: 0, count: 1 << 20)
        let n = out.withUnsafeMutableBytes { to in
            body.withUnsafeBytes { ZSTD_decompress(to.baseAddress, to.count, $0.baseAddress, $0.count) }
        }
        return ZSTD_isError(n) == 0 ? Array(out.prefix(n)) : nil
    }
}
