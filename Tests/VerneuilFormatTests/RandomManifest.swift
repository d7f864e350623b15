import FormatTestSupport
import Foundation
import ManifestProto
import VerneuilFormat

/// Manifests of databases that nobody has, correct in themselves.
enum RandomManifest {
    static func fingerprint(_ random: inout SeededGenerator) -> Fingerprint {
        // Now and then a half is zero: proto3 leaves such a field away.
        Fingerprint(
            primary: Int.random(in: 0..<8, using: &random) == 0 ? 0 : random.next(),
            secondary: Int.random(in: 0..<8, using: &random) == 0 ? 0 : random.next())
    }

    /// - Parameter bundled: chunks of 64 KiB to carry inside.
    static func make(chunks count: Int, bundled: Int, _ random: inout SeededGenerator) -> Manifest {
        let shortLast = count > 0 && Bool.random(using: &random)
        let length =
            UInt64(count * Chunk.size) - (shortLast ? UInt64.random(in: 1..<UInt64(Chunk.size), using: &random) : 0)
        var manifest = Manifest(
            headerFingerprint: fingerprint(&random), versionID: random.bytes(Int.random(in: 0...60, using: &random)),
            length: length, ctime: [0, -1, 1_795_369_906, .min, .max].randomElement(using: &random) ?? 0,
            ctimeNanoseconds: [0, 1, 999_999_999, -1].randomElement(using: &random) ?? 0,
            generatedBy: Bool.random(using: &random) ? Array("random".utf8) : [],
            chunks: (0..<count).map { _ in
                Int.random(in: 0..<4, using: &random) == 0 ? Chunk.zeroFingerprint : fingerprint(&random)
            })
        for index in (0..<count).shuffled(using: &random).prefix(bundled) {
            let data = random.bytes(Chunk.length(ofChunk: index, databaseLength: length))
            manifest.chunks[index] = FingerprintKey.chunk.fingerprint(data)
            manifest.bundled.append(
                BundledChunk(
                    index: index, offset: UInt64(index * Chunk.size), fingerprint: manifest.chunks[index], data: data))
        }
        return manifest
    }

    /// An earlier list with this one's beginning in it, of another length, as the bytes of an object.
    static func base(for chunks: [Fingerprint], count: Int, _ random: inout SeededGenerator) -> [UInt8] {
        BaseChunk.encode(
            (0..<count).map { i in
                i < chunks.count && Int.random(in: 0..<3, using: &random) > 0 ? chunks[i] : fingerprint(&random)
            })
    }
}

extension ProtoFprint {
    init(_ fingerprint: Fingerprint) {
        self.init()
        major = fingerprint.primary
        minor = fingerprint.secondary
    }
    var fingerprint: Fingerprint { .init(primary: major, secondary: minor) }
}

extension ProtoManifest {
    /// The message that a manifest should become.
    /// - Parameter base: words to xor the list with; done here once more, differently.
    init(_ manifest: Manifest, base: [UInt64]?) {
        self.init()
        v1.headerFprint = ProtoFprint(manifest.headerFingerprint)
        v1.versionID = Data(manifest.versionID)
        v1.contentsFprint = ProtoFprint(manifest.contentsFingerprint)
        v1.len = manifest.length
        v1.ctime = manifest.ctime
        v1.ctimeNs = manifest.ctimeNanoseconds
        v1.generatedBy = Data(manifest.generatedBy)
        let words = manifest.chunks.flatMap { [$0.primary, $0.secondary] }
        if let base, let name = manifest.baseChunk {
            v1.baseChunksFprint = ProtoFprint(name)
            v1.chunks = words.enumerated().map { i, word in i < base.count ? word ^ base[i] : word }
        } else {
            v1.chunks = words
        }
        v1.bundledChunks = manifest.bundled.map { chunk in
            var message = ProtoBundledChunk()
            message.chunkIndex = UInt64(chunk.index)
            message.chunkOffset = chunk.offset
            message.chunkFprint = ProtoFprint(chunk.fingerprint)
            message.chunkData = Data(chunk.data)
            return message
        }
    }

    func bytes() throws -> [UInt8] { [UInt8](try serializedData()) }
}
