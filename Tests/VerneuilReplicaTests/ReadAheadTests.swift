import FormatTestSupport
import Testing
import VerneuilReplica

@Suite struct ReadAheadTests {
    /// A file of which chunks are loaded when they are asked for. Answers how
    /// often the reader had to ask for one itself, and what was loaded in all.
    private func read(_ order: some Sequence<Int>, count: Int, loaded: Set<Int> = []) -> (misses: Int, loaded: Set<Int>) {
        var ahead = ReadAhead(count: count, parallelism: 64)
        var loaded = loaded
        var misses = 0
        for i in order {
            let next: Range<Int>
            if loaded.contains(i) {
                next = ahead.touched(i)
            } else {
                misses += 1
                loaded.insert(i)
                next = ahead.missed(i) { limit in
                    var run = 0
                    while run < limit, loaded.contains(i - 1 - run) { run += 1 }
                    return run
                }
            }
            #expect(next.lowerBound >= 0 && next.upperBound <= count && next.count <= 128)
            loaded.formUnion(next)
        }
        return (misses, loaded)
    }

    @Test func aScanIsLoadedAheadAfterTwoChunks() {
        #expect(read(0..<1000, count: 1000).misses == 2)
        #expect(read(500..<1000, count: 1000).misses == 2)
    }

    @Test func aScanWithDetoursIsStillAScan() {
        // Every tenth chunk a page of the tree's inner nodes elsewhere, which is loaded already.
        let order = (100..<1000).flatMap { $0 % 10 == 0 ? [$0, 3] : [$0] }
        #expect(read(order, count: 1000, loaded: [3]).misses <= 3)
    }

    @Test func aScanThatSkipsChunksGoesOn() {
        #expect(read((0..<1000).filter { $0 % 3 != 2 }, count: 1000).misses <= 4)
    }

    /// A reader that takes what has arrived at each round trip.
    @Test func fullSpeedIsReachedInFourRoundTrips() {
        var ahead = ReadAhead(count: 10_000, parallelism: 64)
        _ = ahead.missed(0) { _ in 0 }
        var arrived = ahead.missed(1) { _ in 1 }
        var sizes = [arrived.count]
        for _ in 0..<4 {
            var asked = arrived.upperBound
            for i in arrived {
                let next = ahead.touched(i)
                #expect(next.isEmpty || next.lowerBound == asked)
                asked = max(asked, next.upperBound)
            }
            arrived = arrived.upperBound..<asked
            sizes.append(arrived.count)
        }
        #expect(sizes[0] == 8 && sizes[1] >= 24 && sizes[2] >= 90 && sizes[3...].allSatisfy { $0 >= 112 }, "\(sizes)")
    }

    /// However the reader dawdles, enough is outstanding to fill 64 requests while 64 are unpacked.
    @Test func whatIsKeptAheadIsAskedForInSmallSteps() {
        var ahead = ReadAhead(count: 10_000, parallelism: 64)
        _ = ahead.missed(500) { _ in 40 }
        var end = 0
        for i in 501..<2000 {
            let next = ahead.touched(i)
            #expect(next.count <= 128)
            if i > 560 { #expect(next.count <= 17) }
            end = max(end, next.upperBound)
            if i > 560 { #expect(end - i > 110 && end - i <= 129, "at \(i)") }
        }
    }

    @Test func aReaderThatStopsHasHadAtMostFiveTimesWhatItRead() {
        for n in 1..<30 {
            let (_, loaded) = read(1000..<1000 + n, count: 10_000)
            #expect(loaded.count <= 5 * n, "\(loaded.count) chunks for \(n)")
        }
    }

    @Test func whatIsLoadedAtFirstCountsAsHistory() {
        // The first 128 chunks were loaded at opening.
        let (misses, _) = read(0..<1000, count: 1000, loaded: Set(0..<128))
        #expect(misses == 1)
    }

    @Test func randomReadsLoadNothingElse() {
        var random = SeededGenerator(for: "randomReadsLoadNothingElse")
        let order = (0..<300).map { _ in Int.random(in: 0..<100_000, using: &random) }
        let (_, loaded) = read(order, count: 100_000)
        #expect(loaded.count <= Set(order).count + 40)
    }

    /// An interior page with its leaf beside it begins a stream; the next lookups fall into what that had loaded.
    @Test func lookupsInWhatWasLoadedAheadDoNotExtendIt() {
        var ahead = ReadAhead(count: 10_000, parallelism: 64)
        _ = ahead.missed(500) { _ in 0 }
        var end = ahead.missed(501) { _ in 1 }.upperBound
        for i in stride(from: end - 1, to: 504, by: -1) {
            #expect(ahead.touched(i).isEmpty, "at \(i)")
            #expect(ahead.missed(i) { _ in 3 }.isEmpty, "on its way, at \(i)")
        }
        // The scan itself goes on, also over a chunk that it leaves out.
        for i in 502..<700 where i % 3 != 0 {
            let next = ahead.touched(i)
            #expect(next.isEmpty || next.lowerBound == end)
            end = max(end, next.upperBound)
            #expect(end - i > 4, "at \(i)")
        }
        #expect(end - 700 > 100)
    }

    @Test func theEndOfTheFileIsTheEnd() {
        for count in 0..<20 {
            let (misses, loaded) = read(0..<count, count: count)
            #expect(misses <= 2 && loaded == Set(0..<count))
        }
    }

    @Test func thePolicySaysWhatIsLoadedAtFirst() {
        let policy = LoadingPolicy.partial(min: 4, max: 100)
        for (count, expected) in [(0, 0), (1, 1), (3, 3), (4, 4), (16, 4), (17, 5), (400, 20), (10_000, 100), (1_000_000, 100)] {
            #expect(policy.initialChunks(of: count) == expected)
        }
        #expect(LoadingPolicy.eager.initialChunks(of: 12345) == 12345)
        #expect(LoadingPolicy.partial(min: 10, max: 5).initialChunks(of: 1000) == 10)
        #expect(LoadingPolicy.partial(min: 0, max: 0).initialChunks(of: 1000) == 0)
    }
}
