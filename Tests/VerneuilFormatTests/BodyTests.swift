import CZstd
import FormatTestSupport
import Testing
import VerneuilFormat

/// Bodies of objects (FORMAT 1).
@Suite struct BodyTests {
    static let magic: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD]

    func compress(_ bytes: [UInt8], level: Int32? = nil) -> [UInt8] {
        bytes.withUnsafeBytes { Body.compress($0, level: level) }
    }

    func print(_ bytes: [UInt8]) -> Fingerprint { FingerprintKey.chunk.fingerprint(bytes) }

    /// Compressed piece by piece, so that the frame doesn't say how long its content is.
    func compressStreaming(_ bytes: [UInt8], level: Int32 = 3) throws -> [UInt8] {
        let stream = try #require(ZSTD_createCStream())
        defer { ZSTD_freeCStream(stream) }
        ZSTD_initCStream(stream, level)
        var frame = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count) + 64)
        let count = frame.withUnsafeMutableBytes { frame in
            bytes.withUnsafeBytes { bytes in
                var output = ZSTD_outBuffer(dst: frame.baseAddress, size: frame.count, pos: 0)
                var input = ZSTD_inBuffer(src: bytes.baseAddress, size: bytes.count, pos: 0)
                ZSTD_compressStream(stream, &output, &input)
                ZSTD_endStream(stream, &output)
                return output.pos
            }
        }
        return Array(frame.prefix(count))
    }

    @Test(arguments: [1, 100, 4096, 65_535, 65_536])
    func chunksComeBack(length: Int) throws {
        var random = SeededGenerator(for: "chunksComeBack")
        for chunk in [random.bytes(length), [UInt8](repeating: 3, count: length)] {
            let body = compress(chunk)
            #expect(body.starts(with: Self.magic))
            #expect(try Body.decodeChunk(body, expecting: print(chunk), length: length) == chunk)
            #expect(try Body.decodeChunk(compressStreaming(chunk), expecting: print(chunk), length: length) == chunk)
            #expect(try Body.decodeChunk(chunk, expecting: print(chunk), length: length) == chunk)
        }
    }

    @Test func levelsAreTheFormats() {
        var random = SeededGenerator(for: "levelsAreTheFormats")
        // Text-like, so that the levels differ.
        let long = (0..<200_000).map { _ in UInt8(ascii: "a") + UInt8(random.next() % 5 * (random.next() % 3)) }
        let chunk = Array(long.prefix(Chunk.size))
        #expect(compress(chunk) == compress(chunk, level: 3))
        #expect(compress(chunk) != compress(chunk, level: 1))
        #expect(compress(long) == compress(long, level: 1))
        #expect(Body.compressManifest(chunk) == compress(chunk, level: 1))
    }

    @Test func framesInARowAreOneBody() throws {
        let chunk = [UInt8](repeating: 1, count: 30_000) + [UInt8](repeating: 2, count: 35_536)
        let body = compress(Array(chunk.prefix(30_000))) + compress([]) + compress(Array(chunk.dropFirst(30_000)))
        #expect(try Body.decodeChunk(body, expecting: print(chunk), length: chunk.count) == chunk)
        // A skippable frame between them is skipped.
        let skippable: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 9, 9, 9]
        let padded = compress(Array(chunk.prefix(30_000))) + skippable + compress(Array(chunk.dropFirst(30_000)))
        #expect(try Body.decodeChunk(padded, expecting: print(chunk), length: chunk.count) == chunk)
    }

    @Test func rawDataThatBeginsLikeAFrameIsFound() throws {
        var random = SeededGenerator(for: "rawDataThatBeginsLikeAFrameIsFound")
        let noise = Self.magic + random.bytes(5000)
        #expect(try Body.decodeChunk(noise, expecting: print(noise), length: noise.count) == noise)
        // Even where it is a whole, correct frame.
        let frame = compress([UInt8](repeating: 5, count: 10_000))
        #expect(try Body.decodeChunk(frame, expecting: print(frame), length: frame.count) == frame)
        // Or one with something behind it.
        let trailing = frame + [1, 2, 3]
        #expect(try Body.decodeChunk(trailing, expecting: print(trailing), length: trailing.count) == trailing)
        // Or nothing but the four bytes.
        #expect(try Body.decodeChunk(Self.magic, expecting: print(Self.magic), length: 4) == Self.magic)
    }

    @Test func aFrameWithSomethingBehindItIsNotItsContent() throws {
        let chunk = [UInt8](repeating: 5, count: 10_000)
        #expect(throws: FormatError.self) {
            try Body.decodeChunk(compress(chunk) + [0], expecting: print(chunk), length: chunk.count)
        }
    }

    @Test func aCutFrameIsNotItsContent() throws {
        let chunk = [UInt8](repeating: 5, count: 65_536)
        let frame = compress(chunk)
        for cut in 0..<frame.count {
            #expect(throws: FormatError.self) {
                try Body.decodeChunk(Array(frame.prefix(cut)), expecting: print(chunk), length: chunk.count)
            }
        }
    }

    @Test func all128BitsOfAFingerprintAreChecked() throws {
        let chunk = [UInt8](repeating: 5, count: 1000)
        let body = compress(chunk)
        for bit in 0..<64 {
            var wrong = print(chunk)
            wrong.primary ^= 1 << UInt64(bit)
            #expect(throws: FormatError.self) { try Body.decodeChunk(body, expecting: wrong, length: 1000) }
            wrong = print(chunk)
            wrong.secondary ^= 1 << UInt64(bit)
            #expect(throws: FormatError.self) { try Body.decodeChunk(body, expecting: wrong, length: 1000) }
        }
    }

    @Test func aChunkOfAnotherLengthIsRefusedWithItsName() throws {
        let chunk = [UInt8](repeating: 5, count: 1000)
        for length in [0, 999, 1001, 65_536] {
            let error = #expect(throws: FormatError.self) {
                try Body.decodeChunk(compress(chunk), expecting: print(chunk), length: length)
            }
            #expect(error?.description.contains(print(chunk).chunkName) == true)
            #expect(error?.description.contains("\(length) bytes expected") == true)
        }
    }

    @Test func theLimitHoldsToTheByte() throws {
        for length in [1, 1000, 65_536, 65_537, 300_000, 5_000_000] {
            let content = [UInt8](repeating: 1, count: length)
            for body in [compress(content), try compressStreaming(content)] {
                #expect(try Body.decode(body, limit: length) { _ in true } == content)
                let error = #expect(throws: FormatError.self) {
                    try Body.decode(body, limit: length - 1) { $0.count == length }
                }
                #expect(error?.reason.contains("more than \(length - 1) bytes") == true)
            }
        }
    }

    @Test func aBombStopsAtTheLimit() throws {
        // 2 GiB of zeros in 64 KiB: sixteen frames of 128 MiB, without their lengths.
        let frame = try compressStreaming([UInt8](repeating: 0, count: 1 << 27))
        let bomb = [[UInt8]](repeating: frame, count: 16).flatMap { $0 }
        var seen: [Int] = []
        #expect(throws: FormatError.self) {
            try Body.decode(bomb, limit: 1 << 20) {
                seen.append($0.count)
                return false
            }
        }
        // Only the raw body was offered.
        #expect(seen == [bomb.count])
    }

    @Test func whatNobodyAcceptsIsRefused() {
        #expect(throws: FormatError.self) { try Body.decode([1, 2, 3], limit: 100) { _ in false } }
        #expect(throws: FormatError.self) { try Body.decode([], limit: 100) { $0.count == 1 } }
        #expect(throws: FormatError.self) { try Body.decode([1, 2, 3], limit: 2) { _ in true } }
    }
}
