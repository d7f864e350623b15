import FormatTestSupport
import Testing
import VerneuilFormat

/// Fingerprints of FORMAT 3 and chunk names of FORMAT 4.
@Suite struct FingerprintTests {
    static let keys: [String: FingerprintKey] = [
        "verneuil db chunk params": .chunk,
        "verneuil sqlite header params": .header,
        "verneuil db directory params": .directory,
        "verneuil path params": .path,
        "verneuil hostname params": .hostname,
        "verneuil path mangling params": .mangling,
    ]

    func portable(_ key: FingerprintKey, _ bytes: [UInt8]) -> Fingerprint {
        bytes.withUnsafeBytes { key.portableFingerprint($0) }
    }

    @Test func everyVectorOfEveryPurposeMatchesOnBothPaths() throws {
        let vectors = try GoldenVectors.load().umash
        #expect(vectors.count == 588)
        #expect(Set(vectors.map(\.params)) == Set(Self.keys.keys))
        for vector in vectors {
            let key = try #require(Self.keys[vector.params])
            let input = GoldenVectors.input(vector.input, vector.len)
            let expected = try #require(Fingerprint(hex: [vector.hash, vector.secondary]))
            #expect(key.fingerprint(input) == expected, "\(vector)")
            #expect(portable(key, input) == expected, "portable: \(vector)")
            #expect(key.primary(input) == expected.primary)
        }
    }

    @Test func bothPathsAgreeOnEveryLengthUpTo2000() {
        var random = SeededGenerator(for: "bothPathsAgreeOnEveryLengthUpTo2000")
        for length in 0...2000 {
            let input = random.bytes(length)
            #expect(FingerprintKey.chunk.fingerprint(input) == portable(.chunk, input), "\(length) bytes")
        }
    }

    @Test(arguments: [65_519, 65_520, 65_521, 65_535, 65_536, 65_537, 300_001])
    func bothPathsAgreeOnLongInputs(length: Int) {
        var random = SeededGenerator(for: "bothPathsAgreeOnLongInputs")
        let input = random.bytes(length)
        #expect(FingerprintKey.directory.fingerprint(input) == portable(.directory, input))
    }

    /// All bits set is where carries between the portable product's digits would show.
    @Test func bothPathsAgreeOnExtremeBits() {
        for length in [9, 15, 16, 31, 32, 255, 256, 257, 271, 272, 512, 4096] {
            for byte in [0x00, 0xFF, 0x11, 0x88, 0xF0, 0x80, 0x01] as [UInt8] {
                let input = [UInt8](repeating: byte, count: length)
                #expect(FingerprintKey.header.fingerprint(input) == portable(.header, input), "\(length) of \(byte)")
            }
        }
        // Pieces that cancel a key's words leave factors of zero and of all ones.
        var random = SeededGenerator(for: "bothPathsAgreeOnExtremeBits")
        for _ in 0..<50 {
            var words: [UInt64] = (0..<64).map { _ in random.next() }
            for _ in 0..<32 {
                words[Int.random(in: 0..<64, using: &random)] = [0, ~0, 1, 1 << 63].randomElement(using: &random)!
            }
            let input = words.withUnsafeBytes { [UInt8]($0) }
            #expect(FingerprintKey.chunk.fingerprint(input) == portable(.chunk, input))
        }
    }

    @Test func alignmentDoesNotMatter() {
        var random = SeededGenerator(for: "alignmentDoesNotMatter")
        let input = random.bytes(1000)
        let expected = FingerprintKey.chunk.fingerprint(input)
        for shift in 1..<16 {
            let moved = random.bytes(shift) + input + random.bytes(3)
            moved.withUnsafeBytes { bytes in
                let slice = UnsafeRawBufferPointer(rebasing: bytes[shift..<shift + 1000])
                #expect(FingerprintKey.chunk.fingerprint(slice) == expected)
                #expect(FingerprintKey.chunk.portableFingerprint(slice) == expected)
            }
        }
    }

    @Test func anEmptyBufferWithoutMemoryIsAnEmptyInput() {
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(FingerprintKey.chunk.fingerprint(nothing) == FingerprintKey.chunk.fingerprint([]))
    }

    @Test func theZeroChunkIsTheWellKnownOne() throws {
        let zeros = [UInt8](repeating: 0, count: Chunk.size)
        #expect(zeros.withUnsafeBytes { Chunk.fingerprint($0) } == Chunk.zeroFingerprint)
        #expect(try Fingerprint(hex: GoldenVectors.load().zero64KFingerprint) == Chunk.zeroFingerprint)
    }

    @Test func chunkNamesMatchTheVectorsAndComeBack() throws {
        let vectors = try GoldenVectors.load().chunkNames
        #expect(!vectors.isEmpty)
        for vector in vectors {
            let fingerprint = FingerprintKey.chunk.fingerprint(GoldenVectors.input(vector.input, vector.len))
            #expect(fingerprint.chunkName == vector.chunkName)
            #expect(Fingerprint(chunkName: vector.chunkName) == fingerprint)
        }
        let small = Fingerprint(primary: 1, secondary: 0xABC)
        #expect(small.chunkName == "0000000000000001%2F0000000000000abc")
        #expect(Fingerprint(chunkName: small.chunkName) == small)
    }

    @Test(arguments: [
        "", "%2F", "0000000000000001%2F0000000000000ab", "0000000000000001%2F0000000000000abcd",
        "0000000000000001/0000000000000abc", "0000000000000001%2f0000000000000abc",
        "0000000000000001%2F0000000000000ABC", "+000000000000001%2F0000000000000abc",
        "000000000000001g%2F0000000000000abc", "0000000000000001_2F0000000000000abc",
        " 000000000000001%2F000000000000abc",
    ])
    func whatIsNoChunkNameIsRefused(name: String) {
        #expect(Fingerprint(chunkName: name) == nil)
    }

    // MARK: Parameters

    /// ECRYPT's Salsa20 vectors, 256-bit keys, set 1, vector 0.
    @Test func theKeyStreamIsSalsa20() {
        let key: [UInt8] = [0x80] + [UInt8](repeating: 0, count: 31)
        #expect(
            Salsa20.keyStream(key: key, nonce: 0, words: 8).map { $0.bigEndian } == [
                0xE3BE_8FDD_8BEC_A2E3, 0xEA8E_F947_5B29_A6E7, 0x0039_51E1_097A_5C38, 0xD23B_7A5F_AD9F_6844,
                0xB22C_9755_9E27_23C7, 0xCBBD_3FE4_FC8D_9A07, 0x4465_2A83_E72A_9C46, 0x1876_AF4D_7EF1_A117,
            ])
    }

    @Test func longPurposesAreCutAt32Bytes() {
        let a = FingerprintKey(purpose: "0123456789abcdef0123456789abcdef")
        let b = FingerprintKey(purpose: "0123456789abcdef0123456789abcdef and more")
        let c = FingerprintKey(purpose: "0123456789abcdef0123456789abcde")
        #expect(a.fingerprint([1, 2, 3]) == b.fingerprint([1, 2, 3]))
        #expect(a.fingerprint([1, 2, 3]) != c.fingerprint([1, 2, 3]))
    }

    static let words = (0..<38).map { UInt64(1000 + $0) }

    @Test func fitWordsAreTakenAsTheyAre() throws {
        let values = try #require(UMASHParameters.select(from: Self.words))
        #expect(values.multipliers == [1001, 1003])
        #expect(values.keys == Array(1004..<1038))
    }

    @Test(arguments: [0, (1 << 61) - 1, 1 << 61, ~0] as [UInt64])
    func unfitMultipliersAreReplacedByTheSparesInOrder(unfit: UInt64) throws {
        var words = Self.words
        words[3] = unfit
        words[0] = 7 << 61 | 5
        #expect(try #require(UMASHParameters.select(from: words)).multipliers == [1001, 5])
        words[1] = unfit
        #expect(try #require(UMASHParameters.select(from: words)).multipliers == [5, 1002])
    }

    @Test func repeatedKeysAreReplacedByTheSparesAndThenGivenUp() throws {
        var words = Self.words
        words[20] = words[4]
        #expect(try #require(UMASHParameters.select(from: words)).keys[16] == 1000)
        words[21] = words[5]
        let values = try #require(UMASHParameters.select(from: words))
        #expect(values.keys[16] == 1000 && values.keys[17] == 1002)
        #expect(Set(values.keys).count == 34)
        words[22] = words[6]
        #expect(UMASHParameters.select(from: words) == nil)
        // A spare that is itself a repetition is used up, too.
        words = Self.words
        words[20] = words[4]
        words[0] = words[5]
        #expect(try #require(UMASHParameters.select(from: words)).keys[16] == 1002)
    }
}
