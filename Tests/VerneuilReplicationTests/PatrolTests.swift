import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// A clock that tests set.
final class FakeClock: @unchecked Sendable {
    private let lock = Lock()
    private var seconds: Int64
    init(_ seconds: Int64 = 1_800_000_000) { self.seconds = seconds }
    var now: Int64 { lock.withLock { seconds } }
    func advance(_ by: Double) { lock.withLock { seconds += Int64(by.rounded(.up)) } }
}

/// A bucket's rule deletes what nobody touched for a week: nothing that lives comes near to that, and touching costs little.
@Suite(.serialized) struct PatrolTests {
    /// A spool with a list of chunks that a target has.
    final class Life {
        let directory = "/tmp/verneuil-patrol-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let database: SpoolDatabase
        let store = RecordingStore()
        let target: ReplicationTarget
        let clock = FakeClock()
        var options = ReplicationOptions()
        var list: [Fingerprint] = []
        /// When each live chunk was stored or touched.
        var born: [Fingerprint: Int64] = [:]
        var touches = 0
        var oldest: Int64 = 0
        var random = SystemRandomNumberGenerator()

        init(chunks: Int, maximumAge days: Double) throws {
            let spool = SpoolDirectory(directory)
            try spool.prepare()
            database = SpoolDatabase(spool, path: "/none", device: 1, inode: 1)
            try Files.makeDirectories(database.directory)
            target = ReplicationTarget(store)
            options.patrolMaxAge = days * 86_400
            options.clock = { [clock] in clock.now }
            for _ in 0..<chunks { list.append(try newChunk()) }
            try write(ChunkAges(database, target.identifier, list: []).hours)
        }
        deinit { try? Files.removeTree(directory) }

        private func newChunk() throws -> Fingerprint {
            let chunk = Fingerprint(primary: random.next(), secondary: random.next())
            try store.put(PutRequest(.chunks, chunk.chunkName, [1]))
            born[chunk] = clock.now
            return chunk
        }

        /// As a copier does after it stored a snapshot.
        private func write(_ hours: [UInt16]) throws {
            let now = ChunkAges.hour(clock.now)
            try database.setStoredChunks(target.identifier, list)
            try ChunkAges.write(
                database, target.identifier, list: list, hours: list.indices.map { $0 < hours.count ? hours[$0] : now })
        }

        /// Some chunks change.
        func commit(changing count: Int) throws {
            var hours = ChunkAges(database, target.identifier, list: list).hours
            for _ in 0..<count {
                let i = Int.random(in: list.indices)
                born[list[i]] = nil
                list[i] = try newChunk()
                hours[i] = ChunkAges.hour(clock.now)
            }
            try write(hours)
        }

        /// - Parameter change: called once an hour.
        func run(days: Int, each change: (Int) throws -> Void = { _ in }) throws {
            var patrol = Patrol(database, target, options)
            let end = clock.now + Int64(days) * 86_400
            var hour = 0
            var nextHour = clock.now + 3600
            _ = store.take()
            while clock.now < end {
                let wait: Double
                switch patrol.walk() {
                // A copier comes at least once an hour.
                case .idle(let seconds, _): wait = min(seconds, 3600)
                case .more: wait = 2  // 16 a second
                case .missing(let chunk): throw Lost(chunk: chunk)
                case .failed(let reason): throw StoreError(.invalid, store: "", operation: "walk", reason: reason)
                }
                for request in store.take() where request.operation == .touch {
                    touches += 1
                    guard let chunk = list.first(where: { $0.chunkName == request.key }) ?? nil else { continue }
                    born[chunk] = clock.now
                }
                clock.advance(wait)
                oldest = max(oldest, born.values.map { clock.now - $0 }.max() ?? 0)
                if clock.now >= nextHour {
                    nextHour += 3600
                    try change(hour)
                    hour += 1
                }
            }
        }
        struct Lost: Error { var chunk: Fingerprint }
    }

    @Test func inThirtyDaysNoLiveChunkExceedsTheAgeForAQuarterOfTheRequests() throws {
        let chunks = 600
        let life = try Life(chunks: chunks, maximumAge: 5)
        try life.run(days: 30) { hour in if hour % 6 == 0 { try life.commit(changing: 3) } }
        #expect(Double(life.oldest) <= 5 * 86_400, "\(Double(life.oldest) / 86_400) days")
        let daily = try Life(chunks: chunks, maximumAge: 1)
        try daily.run(days: 30) { hour in if hour % 6 == 0 { try daily.commit(changing: 3) } }
        #expect(Double(daily.oldest) <= 86_400)
        print("30 days, \(chunks) chunks: \(life.touches) touches at an age of 5 days, \(daily.touches) at 1 day, \(chunks * 30) for one each day")
        #expect(life.touches * 4 <= chunks * 30)
        #expect(life.touches * 4 <= daily.touches)
        #expect(life.touches >= chunks * 4, "everything that lives is touched")
    }

    @Test func whatIsNotKnownCountsAsOld() throws {
        let life = try Life(chunks: 200, maximumAge: 5)
        try Files.remove("\(life.database.directory)/ages.\(life.target.identifier)")
        // As they lie there, they may be close to their end.
        try ChunkAges.write(life.database, life.target.identifier, list: life.list, hours: [UInt16](repeating: 0, count: 200))
        try life.run(days: 1)
        #expect(life.touches == 200)
        // The record is of another list: a copier died between the two.
        life.list.swapAt(0, 1)
        try life.database.setStoredChunks(life.target.identifier, life.list)
        life.touches = 0
        try life.run(days: 1)
        #expect(life.touches == 200)
    }

    @Test func aClockThatWasSetBackMakesChunksOldNotYoung() throws {
        let life = try Life(chunks: 100, maximumAge: 5)
        life.clock.advance(-100 * 86_400)
        try life.run(days: 1)
        #expect(life.touches == 100)
    }

    @Test func muchThatComesDueAtOnceBeginsEarlier() throws {
        let life = try Life(chunks: 500, maximumAge: 5)
        // 500 chunks at so few a second take a day and a half.
        life.options.touchesPerSecond = 500 / (36 * 3600)
        let began = life.clock.now
        var first: Int64?
        var patrol = Patrol(life.database, life.target, life.options)
        while first == nil {
            if case .idle(let seconds, _) = patrol.walk() { life.clock.advance(min(seconds, 3600)) } else { first = life.clock.now }
        }
        let hours = Double((first ?? 0) - began) / 3600
        #expect(hours <= 117 - 36 + 1, "touches begin after \(hours) h")
    }

    @Test func aChunkThatTheStoreLostIsUploadedAgain() throws {
        let store = RecordingStore()
        let clock = FakeClock(wallClock().seconds)
        let file = try ReplicatedFile([store]) { $0.clock = { clock.now } }
        let db = try file.connect()
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); INSERT INTO t(data) VALUES(randomblob(500000))")
        #expect(try file.flush() == nil)
        let lost = try #require(store.removeOne(.chunks))
        _ = store.take()
        clock.advance(5 * 86_400)
        // A commit wakes the copier; the patrol comes after it.
        try db.rows("INSERT INTO t(data) VALUES('one more')")
        var seen: [RecordingStore.Request] = []
        #expect(
            eventually(20) {
                seen += store.take()
                return seen.contains { $0.operation == .put && "chunks/\($0.key)" == lost }
            })
        #expect(!LogBook.lines("a chunk is missing in the store", file.path).isEmpty)
        #expect(try file.flush() == nil)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("PRAGMA integrity_check") == "ok")
    }
}
