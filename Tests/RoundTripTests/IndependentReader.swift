import CVerneuil
import CZstd
import ManifestProto
import Testing
import VerneuilFormat
import VerneuilSystem

/// Reads what was written to a store without the code that wrote it: protobuf
/// by SwiftProtobuf's generated code, zstd by its own simple interface,
/// fingerprints by the portable implementation, files by name.
struct IndependentReader {
    let store: String

    struct Restored {
        var bytes: [UInt8]
        var manifest: ProtoManifestV1
        var chunks: [Fingerprint]
    }

    func object(_ path: String) throws -> [UInt8] {
        let body = try #require(try Files.read("\(store)/\(path)"), "no object \(path)")
        guard body.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) else { return body }
        let size = body.withUnsafeBytes { ZSTD_getFrameContentSize($0.baseAddress, $0.count) }
        try #require(size < 1 << 28)
        var out = [UInt8](repeating: 0, count: Int(size))
        let n = out.withUnsafeMutableBytes { to in
            body.withUnsafeBytes { ZSTD_decompress(to.baseAddress, to.count, $0.baseAddress, $0.count) }
        }
        try #require(ZSTD_isError(n) == 0 && n == out.count)
        return out
    }

    func words(_ bytes: [UInt8]) -> [UInt64] {
        stride(from: 0, to: bytes.count - bytes.count % 8, by: 8).map { at in
            (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[at + $1]) << UInt64(8 * $1) }
        }
    }

    func fingerprint(_ key: FingerprintKey, _ bytes: [UInt8]) -> Fingerprint {
        bytes.withUnsafeBytes { key.portableFingerprint($0) }
    }

    func restore(host: String, path: String) throws -> Restored {
        let message = try ProtoManifest(
            serializedBytes: try object("manifests/\(ManifestName.make(host: host, path: path))"))
        try #require(message.hasV1)
        let v1 = message.v1
        var list = v1.chunks
        try #require(list.count % 2 == 0)
        if v1.hasBaseChunksFprint {
            let name = Fingerprint(primary: v1.baseChunksFprint.major, secondary: v1.baseChunksFprint.minor)
            let base = try object("chunks/\(name.chunkName)")
            #expect(fingerprint(.chunk, base) == name)
            for (i, word) in words(base).prefix(list.count).enumerated() { list[i] ^= word }
        }
        let raw = list.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(8 * $0)) } }
        let contents = fingerprint(.directory, raw)
        #expect(v1.contentsFprint.major == contents.primary && v1.contentsFprint.minor == contents.secondary)

        var bytes: [UInt8] = []
        var chunks: [Fingerprint] = []
        for i in 0..<list.count / 2 {
            let chunk = Fingerprint(primary: list[2 * i], secondary: list[2 * i + 1])
            chunks.append(chunk)
            let length = min(65536, Int(v1.len) - bytes.count)
            let data: [UInt8]
            if let bundled = v1.bundledChunks.first(where: { Int($0.chunkIndex) == i }) {
                #expect(bundled.chunkOffset == UInt64(i) * 65536)
                data = Array(bundled.chunkData)
            } else if chunk == Chunk.zeroFingerprint {
                data = [UInt8](repeating: 0, count: 65536)
            } else {
                data = try object("chunks/\(chunk.chunkName)")
            }
            #expect(data.count == length)
            #expect(fingerprint(.chunk, data) == chunk)
            bytes += data
        }
        #expect(bytes.count == Int(v1.len))
        let header = fingerprint(.header, Array(bytes.prefix(100)))
        #expect(v1.headerFprint.major == header.primary && v1.headerFprint.minor == header.secondary)
        return Restored(bytes: bytes, manifest: v1, chunks: chunks)
    }
}
