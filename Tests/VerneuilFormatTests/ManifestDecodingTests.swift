import FormatTestSupport
import Foundation
import ManifestProto
import Testing
import VerneuilFormat

/// What a reader of manifests must accept, and what it must refuse (FORMAT 6).
@Suite struct ManifestDecodingTests {
    /// Two chunks, the first bundled, the second of 1,000 bytes.
    func sample() -> Manifest {
        let first = [UInt8](repeating: 7, count: Chunk.size)
        let chunks = [FingerprintKey.chunk.fingerprint(first), Fingerprint(primary: 3, secondary: 4)]
        return Manifest(
            headerFingerprint: Fingerprint(primary: 1, secondary: 2), versionID: [9], length: 66_536, ctime: 5,
            ctimeNanoseconds: 6, generatedBy: Array("test".utf8), chunks: chunks,
            bundled: [BundledChunk(index: 0, offset: 0, fingerprint: chunks[0], data: first)])
    }

    /// Fields by hand, as no encoder would write them.
    enum Wire {
        static func varint(_ value: UInt64) -> [UInt8] {
            value < 0x80 ? [UInt8(value)] : [UInt8(value & 0x7F) | 0x80] + varint(value >> 7)
        }
        static func tag(_ number: UInt64, _ type: UInt64) -> [UInt8] { varint(number << 3 | type) }
        static func varint(_ number: UInt64, _ value: UInt64) -> [UInt8] { tag(number, 0) + varint(value) }
        static func fixed64(_ value: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
        static func fixed64(_ number: UInt64, _ value: UInt64) -> [UInt8] { tag(number, 1) + fixed64(value) }
        static func bytes(_ number: UInt64, _ value: [UInt8]) -> [UInt8] {
            tag(number, 2) + varint(UInt64(value.count)) + value
        }
        static func fixed32(_ number: UInt64, _ value: UInt8) -> [UInt8] { tag(number, 5) + [value, 0, 0, 0] }
        static func fingerprint(_ number: UInt64, _ value: Fingerprint) -> [UInt8] {
            bytes(number, fixed64(1, value.primary) + fixed64(2, value.secondary))
        }
        /// A field of each wire type, and a group within a group.
        static func unknown(_ number: UInt64) -> [UInt8] {
            varint(number, .max) + fixed64(number, .max) + bytes(number, [1, 2, 3]) + fixed32(number, 255)
                + tag(number, 3) + varint(1, 300) + tag(number + 1, 3) + bytes(2, [0xFF]) + tag(number + 1, 4)
                + tag(number, 4)
        }
    }

    func decode(_ v1: [UInt8]) throws -> Manifest {
        try StoredManifest(decoding: Wire.bytes(1, v1)).resolved(base: nil)
    }

    /// The sample's fields but `chunks`, in descending order.
    func fields(_ m: Manifest, but left: Set<Int> = []) -> [UInt8] {
        let all: [(Int, [UInt8])] = [
            (
                16,
                Wire.bytes(
                    16,
                    Wire.bytes(15, m.bundled[0].data) + Wire.fingerprint(3, m.chunks[0]) + Wire.varint(2, 0)
                        + Wire.varint(1, 0))
            ),
            (9, Wire.bytes(9, m.generatedBy)), (7, Wire.fixed32(7, 6)), (6, Wire.varint(6, 5)),
            (5, Wire.varint(5, m.length)), (3, Wire.fingerprint(3, m.contentsFingerprint)),
            (2, Wire.bytes(2, m.versionID)), (1, Wire.fingerprint(1, m.headerFingerprint)),
        ]
        return all.filter { !left.contains($0.0) }.flatMap(\.1)
    }
    func words(_ m: Manifest) -> [UInt64] { m.chunks.flatMap { [$0.primary, $0.secondary] } }

    // MARK: Accepted

    @Test func chunksMayBePackedOrNotAndInPieces() throws {
        let m = sample()
        let w = words(m)
        let rest = fields(m)
        let unpacked = w.flatMap { Wire.fixed64(15, $0) }
        #expect(try decode(unpacked + rest) == m)
        #expect(try decode(Wire.fixed64(15, w[0]) + Wire.bytes(15, w[1...].flatMap { Wire.fixed64($0) }) + rest) == m)
        let pieces = Wire.bytes(15, Wire.fixed64(w[0])) + rest + Wire.bytes(15, []) + Wire.fixed64(15, w[1])
        #expect(try decode(pieces + Wire.bytes(15, Wire.fixed64(w[2]) + Wire.fixed64(w[3]))) == m)
    }

    @Test func unknownFieldsOfEveryWireTypeAreIgnored() throws {
        let m = sample()
        let packed = Wire.bytes(15, words(m).flatMap { Wire.fixed64($0) })
        let header = Wire.bytes(
            1, Wire.unknown(3) + Wire.fixed64(1, 1) + Wire.unknown(536_870_910) + Wire.fixed64(2, 2) + Wire.unknown(77))
        let bundled = Wire.bytes(
            16,
            Wire.unknown(4) + Wire.bytes(15, m.bundled[0].data) + Wire.fingerprint(3, m.chunks[0]) + Wire.unknown(16))
        let v1 =
            Wire.unknown(4) + header + fields(m, but: [1, 16]) + Wire.unknown(1000) + packed + bundled
            + Wire.unknown(17)
        let whole = Wire.unknown(2) + Wire.bytes(1, v1) + Wire.unknown(3)
        #expect(try StoredManifest(decoding: whole).resolved(base: nil) == m)
    }

    @Test func aV1InPiecesIsMerged() throws {
        let m = sample()
        let w = words(m)
        let first =
            Wire.bytes(1, Wire.fixed64(1, 1) + Wire.fixed64(2, 99)) + Wire.varint(5, 12) + Wire.fixed64(15, w[0])
        let second = Wire.bytes(1, Wire.fixed64(2, 2)) + fields(m, but: [1]) + w[1...].flatMap { Wire.fixed64(15, $0) }
        #expect(try StoredManifest(decoding: Wire.bytes(1, first) + Wire.bytes(1, second)).resolved(base: nil) == m)
        // The generated decoder agrees.
        let generated = try ProtoManifest(serializedBytes: Data(Wire.bytes(1, first) + Wire.bytes(1, second)))
        #expect(generated.v1.headerFprint.fingerprint == m.headerFingerprint)
        #expect(generated.v1.chunks == w)
    }

    @Test func varintsMayBeLongerThanNeeded() throws {
        let m = sample()
        let long = Wire.tag(5, 0) + [0xE8, 0x87, 0x84, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]
        let packed = Wire.bytes(15, words(m).flatMap { Wire.fixed64($0) })
        #expect(try decode(fields(m, but: [5]) + long + packed) == m)
    }

    @Test func aBundledChunkNeedNotRepeatItsFingerprint() throws {
        let m = sample()
        let packed = Wire.bytes(15, words(m).flatMap { Wire.fixed64($0) })
        #expect(try decode(fields(m, but: [16]) + packed + Wire.bytes(16, Wire.bytes(15, m.bundled[0].data))) == m)
    }

    @Test func anEmptyDatabaseHasAManifest() throws {
        let empty = Manifest(
            headerFingerprint: FingerprintKey.header.fingerprint([]), versionID: [], length: 0, generatedBy: [],
            chunks: [])
        #expect(try StoredManifest(decoding: empty.encoded(base: nil)).resolved(base: nil) == empty)
    }

    // MARK: Refused

    func expectRefusal(_ body: [UInt8], base: [UInt8]? = nil, because reason: String, line: Int = #line) {
        let location = SourceLocation(fileID: #fileID, filePath: #filePath, line: line, column: 1)
        do {
            _ = try StoredManifest(decoding: body).resolved(base: base)
            Issue.record("accepted, although \(reason)", sourceLocation: location)
        } catch {
            #expect("\(error)".contains(reason), sourceLocation: location)
        }
    }

    /// The sample's message, changed.
    func changed(_ change: (inout ProtoManifestV1) -> Void) throws -> [UInt8] {
        var message = ProtoManifest(sample(), base: nil)
        change(&message.v1)
        return try message.bytes()
    }

    @Test func whatLacksARequiredFieldIsRefused() throws {
        expectRefusal([], because: "has no v1")
        expectRefusal(Body.compressManifest([]), because: "has no v1")
        expectRefusal(Wire.unknown(2), because: "has no v1")
        expectRefusal(Wire.bytes(1, []), because: "no header_fprint")
        expectRefusal(try changed { $0.clearHeaderFprint() }, because: "no header_fprint")
        expectRefusal(try changed { $0.clearContentsFprint() }, because: "no contents_fprint")
    }

    @Test func aListThatContradictsTheRestIsRefused() throws {
        expectRefusal(try changed { $0.chunks.append(5) }, because: "odd number of words, 5")
        expectRefusal(try changed { $0.chunks[3] ^= 1 }, because: "contents_fprint is")
        expectRefusal(try changed { $0.contentsFprint.minor ^= 1 << 63 }, because: "contents_fprint is")
        expectRefusal(try changed { $0.chunks = [] }, because: "which is 2 chunks, but 0 are listed")
        expectRefusal(try changed { $0.chunks += [1, 2] }, because: "which is 2 chunks, but 3 are listed")
        expectRefusal(try changed { $0.len = 131_073 }, because: "len is 131073 bytes, which is 3 chunks")
        expectRefusal(try changed { $0.len = .max }, because: "but 2 are listed")
        expectRefusal(try changed { $0.len = 0 }, because: "len is 0 bytes")
    }

    @Test func aBundledChunkThatContradictsTheRestIsRefused() throws {
        expectRefusal(try changed { $0.bundledChunks[0].chunkIndex = 2 }, because: "bundled chunk 2 is out of range")
        expectRefusal(try changed { $0.bundledChunks[0].chunkIndex = .max }, because: "is out of range")
        expectRefusal(try changed { $0.bundledChunks[0].chunkOffset = 512 }, because: "claims to begin at byte 512")
        expectRefusal(
            try changed { $0.bundledChunks[0].chunkIndex = 1 }, because: "bundled chunk 1 claims to begin at byte 0")
        expectRefusal(
            try changed { $0.bundledChunks[0].chunkData[5] = 0 }, because: "bundled chunk 0 has the fingerprint")
        expectRefusal(
            try changed { $0.bundledChunks[0].chunkData.removeLast() }, because: "65535 bytes of data, not 65536")
        expectRefusal(
            try changed { $0.bundledChunks[0].chunkData.append(0) }, because: "65537 bytes of data, not 65536")
        expectRefusal(
            try changed { $0.bundledChunks[0].chunkFprint.major = 0 }, because: "its own field says 0000000000000000%2F"
        )
        expectRefusal(
            try changed { $0.bundledChunks = .init(repeating: .init(), count: 2) },
            because: "more than one bundled chunk is shorter")
    }

    @Test func aBaseChunkThatIsMissingOrWrongIsRefused() throws {
        var m = sample()
        let base = BaseChunk.encode([m.chunks[0]])
        m.baseChunk = FingerprintKey.chunk.fingerprint(base)
        let body = m.encoded(base: try BaseChunk.decode(base))
        #expect(try StoredManifest(decoding: body).resolved(base: base) == m)
        expectRefusal(body, because: "can't be read without its base chunk \(m.baseChunk?.chunkName ?? "")")
        expectRefusal(body, base: base + [0], because: "has 17 bytes, which is not a multiple of 16")
        expectRefusal(body, base: [UInt8](repeating: 0, count: 16), because: "these 16 bytes have the fingerprint")
        expectRefusal(body, base: base + base, because: "these 32 bytes have the fingerprint")
        // The right object, but not the one that the list was xored with.
        let other = BaseChunk.encode([m.chunks[1]])
        var message = try ProtoManifest(serializedBytes: Data(body))
        message.v1.baseChunksFprint = ProtoFprint(FingerprintKey.chunk.fingerprint(other))
        expectRefusal(try message.bytes(), base: other, because: "bundled chunk 0 has the fingerprint")
        message.v1.bundledChunks = []
        expectRefusal(try message.bytes(), base: other, because: "contents_fprint is")
    }

    @Test func brokenEncodingIsRefusedWithItsPlace() throws {
        let good = sample().encoded(base: nil)
        expectRefusal(Array(good.dropLast()), because: "at byte 1")
        expectRefusal(good + [0x00], because: "0 is not the tag of a protobuf field, at byte \(good.count)")
        expectRefusal(good + [0x0E], because: "14 is not the tag")
        expectRefusal(good + [0x10], because: "a varint is cut off")
        expectRefusal(good + Wire.tag(2, 0) + [UInt8](repeating: 0x80, count: 10) + [0], because: "more than ten bytes")
        expectRefusal(good + Wire.tag(2, 1) + [1, 2, 3], because: "a field of 8 bytes where 3 are left")
        expectRefusal(good + Wire.tag(2, 5) + [1, 2, 3], because: "a field of 4 bytes where 3 are left")
        expectRefusal(good + Wire.tag(2, 2) + Wire.varint(.max), because: "a field of \(UInt64.max) bytes")
        expectRefusal(good + Wire.tag(2, 3), because: "a group is cut off")
        expectRefusal(good + Wire.tag(2, 4), because: "a group ends that did not begin")
        expectRefusal(good + Wire.tag(2, 3) + Wire.tag(3, 4), because: "a group ends that did not begin")
        expectRefusal(good + [UInt8](repeating: 0x13, count: 100_000), because: "groups are nested too deep")
        expectRefusal(good + Wire.varint(1, 5), because: "field v1 (1) has wire type 0, not 2")
        expectRefusal(good + Wire.bytes(1, Wire.bytes(5, [1])), because: "field len (5) has wire type 2, not 0")
        expectRefusal(good + Wire.bytes(1, Wire.varint(15, 1)), because: "field chunks (15) has wire type 0")
        expectRefusal(
            good + Wire.bytes(1, Wire.bytes(15, [1, 2, 3])), because: "chunks has 3 bytes, which is not a multiple of 8"
        )
        expectRefusal(
            good + Wire.bytes(1, Wire.bytes(1, Wire.varint(1, 5))),
            because: "field header_fprint.major (1) has wire type 0")
    }

    @Test func aBrokenFrameIsExplained() throws {
        let body = Body.compressManifest(sample().encoded(base: nil))
        expectRefusal(Array(body.dropLast(3)), because: "manifest: ")
        expectRefusal(Array(body.prefix(4)), because: "manifest: ")
        expectRefusal(body + [1], because: "manifest: ")
    }

    @Test func otherFilesAreNotManifests() throws {
        expectRefusal(Array("SQLite format 3\0".utf8) + [UInt8](repeating: 0, count: 84), because: "manifest: ")
        expectRefusal(Array("<?xml version=\"1.0\"?><Error/>".utf8), because: "manifest: ")
        expectRefusal([UInt8](repeating: 0, count: 4096), because: "0 is not the tag")
    }
}
