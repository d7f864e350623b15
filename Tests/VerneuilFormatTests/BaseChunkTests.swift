import FormatTestSupport
import Testing
import VerneuilFormat

/// The writer's side of base chunks (FORMAT 6.2).
@Suite struct BaseChunkTests {
    func list(_ count: Int, _ random: inout SeededGenerator) -> [Fingerprint] {
        (0..<count).map { _ in Fingerprint(primary: random.next(), secondary: random.next()) }
    }
    func words(_ chunks: [Fingerprint]) -> [UInt64] { chunks.flatMap { [$0.primary, $0.secondary] } }

    @Test func listsComeBack() throws {
        var random = SeededGenerator(for: "listsComeBack")
        for count in [0, 1, 300, 1000] {
            let chunks = list(count, &random)
            let bytes = BaseChunk.encode(chunks)
            #expect(bytes.count == 16 * count)
            #expect(try BaseChunk.decode(bytes) == words(chunks))
        }
        #expect(
            BaseChunk.encode([Fingerprint(primary: 0x0807_0605_0403_0201, secondary: 0x100F_0E0D_0C0B_0A09)])
                == Array(1...16))
    }

    @Test(arguments: [1, 8, 15, 17, 24])
    func bytesThatAreNoListAreRefused(count: Int) {
        #expect(throws: FormatError("base chunk", "has \(count) bytes, which is not a multiple of 16")) {
            try BaseChunk.decode([UInt8](repeating: 0, count: count))
        }
    }

    @Test func aBaseIsKeptAsOftenAsItsWordsStillMatch() {
        var random = SeededGenerator(for: "aBaseIsKeptAsOftenAsItsWordsStillMatch")
        let chunks = list(400, &random)
        var base = words(chunks)
        for i in 0..<200 { base[i] ^= 1 }  // 600 of 800 words match
        #expect(BaseChunk.shouldKeep(base: base, for: chunks, random: 0))
        #expect(BaseChunk.shouldKeep(base: base, for: chunks, random: 0.7499))
        #expect(!BaseChunk.shouldKeep(base: base, for: chunks, random: 0.7501))
        let kept = (0..<10_000).filter { _ in
            BaseChunk.shouldKeep(base: base, for: chunks, random: Double.random(in: 0..<1, using: &random))
        }
        #expect((7200...7800).contains(kept.count))
    }

    @Test func anUnchangedListAlwaysKeepsItsBaseAndAStrangerNever() {
        var random = SeededGenerator(for: "anUnchangedListAlwaysKeepsItsBaseAndAStrangerNever")
        let chunks = list(300, &random)
        #expect(BaseChunk.shouldKeep(base: words(chunks), for: chunks, random: 1.0.nextDown))
        #expect(!BaseChunk.shouldKeep(base: words(list(300, &random)), for: chunks, random: 0))
    }

    @Test func baseAndListMayDifferInLength() {
        var random = SeededGenerator(for: "baseAndListMayDifferInLength")
        let chunks = list(400, &random)
        // What a base has in excess changes nothing; what it lacks doesn't match.
        #expect(BaseChunk.shouldKeep(base: words(chunks + list(50, &random)), for: chunks, random: 1.0.nextDown))
        let half = Array(words(chunks).prefix(400))
        #expect(BaseChunk.shouldKeep(base: half, for: chunks, random: 0.49))
        #expect(!BaseChunk.shouldKeep(base: half, for: chunks, random: 0.51))
        #expect(!BaseChunk.shouldKeep(base: [], for: chunks, random: 0))
    }

    /// Readers unpack at most 16 MiB and four times the list: what is left of a database that shrank must not name a longer one.
    @Test func aDatabaseThatShrankGetsAnotherBase() {
        var random = SeededGenerator(for: "aDatabaseThatShrankGetsAnotherBase")
        let chunks = list(400, &random)
        let more = list(401, &random)
        #expect(BaseChunk.shouldKeep(base: words(chunks + more.prefix(400)), for: chunks, random: 0))
        #expect(!BaseChunk.shouldKeep(base: words(chunks + more), for: chunks, random: 0))
    }

    @Test func shortListsHaveNoBase() {
        var random = SeededGenerator(for: "shortListsHaveNoBase")
        let chunks = list(299, &random)
        #expect(!BaseChunk.shouldKeep(base: words(chunks), for: chunks, random: 0))
        #expect(BaseChunk.minimumWords == 600)
    }

    /// The original writer's choices, seen in the golden database.
    @Test func theGoldenBasesAreTheOnesThatThisRuleAllows() throws {
        let golden = try #require(GoldenData.cases().first { $0.name == "big-base-chunk" })
        var previous: Fingerprint?
        for version in golden.versions {
            let stored = try StoredManifest(decoding: golden.manifestBody(version))
            let base = try golden.baseChunk(of: stored)
            let manifest = try stored.resolved(base: base)
            #expect((base != nil) == (2 * manifest.chunks.count >= BaseChunk.minimumWords), "\(version.step)")
            if let base, stored.baseChunk == previous {
                #expect(try BaseChunk.shouldKeep(base: BaseChunk.decode(base), for: manifest.chunks, random: 0))
            } else if let base {
                #expect(base == BaseChunk.encode(manifest.chunks), "\(version.step): a new base is the list itself")
            }
            previous = stored.baseChunk
        }
    }
}
