import CSQLite
import CVerneuil
import FormatTestSupport
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

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
        var random = SeededGenerator(for: "patrol")

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
                let i = Int.random(in: list.indices, using: &random)
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

    /// Touches a day of 1 GiB: docs/OPERATIONS.md and docs/REPLICATION.md say so, and FigureTests compares those with each other.
    @Test(arguments: [(5.0, 3640.0), (1.0, 20_480.0)])
    func aGiBIsTouchedAsOftenADayAsTheDocumentsSay(age: Double, documented: Double) throws {
        let life = try Life(chunks: 600, maximumAge: age)
        // As after a while: not all at once.
        let now = ChunkAges.hour(life.clock.now)
        let hours = life.list.map { _ in now &- UInt16.random(in: 0..<UInt16(age * 0.9 * 24), using: &life.random) }
        try ChunkAges.write(life.database, life.target.identifier, list: life.list, hours: hours)
        try life.run(days: 30)
        let found = Double(life.touches) / 30 / 600 * 16_384
        print("an age of \(age) days: \(Int(found)) touches a day for 1 GiB")
        #expect(abs(found - documented) < 0.05 * documented, "\(found)")
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

    @Test func whatOneProcessTouchesNoOtherTouchesAgain() throws {
        let life = try Life(chunks: 500, maximumAge: 5)
        try ChunkAges.write(life.database, life.target.identifier, list: life.list, hours: [UInt16](repeating: 0, count: 500))
        _ = life.store.take()
        // Each has made up its mind before the others have done anything.
        var patrols = (0..<8).map { _ in Patrol(life.database, life.target, life.options) }
        var resting: Set<Int> = []
        while resting.count < patrols.count {
            for i in patrols.indices { if case .idle = patrols[i].walk() { resting.insert(i) } }
        }
        #expect(life.store.count(.touch) == 500)
    }

    // MARK: - The manifest

    private func manifestPuts(_ store: RecordingStore) -> Int {
        store.take().filter { $0.operation == .put && $0.space == .manifests }.count
    }

    @Test func anIdleDatabasesManifestNeverExceedsTheAgeAndStaysWhatItIs() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore(clock: { clock.now })
        let file = try ReplicatedFile([store]) { $0.clock = { clock.now } }
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data); INSERT INTO t VALUES('as it was')")
        #expect(try file.flush() == nil)
        let manifest = try #require(store.manifest)
        #expect(SnapshotVFS.register(environment: ReplicaEnvironment(stores: [store], hostName: ReplicatedFile.host)) == SQLITE_OK)
        let replica = try SQLiteConnection(
            "verneuil://\(ReplicatedFile.host)\(file.path)", vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
        #expect(try replica.value("SELECT data FROM t") == "as it was")
        let seen = try replica.value("PRAGMA verneuil_snapshot_ctime")
        for day in stride(from: 0, to: 30, by: 5) {
            // As young as this, it is left alone.
            clock.advance(3 * 86_400)
            _ = store.take()
            usleep(300_000)
            #expect(manifestPuts(store) == 0, "day \(day + 3)")
            clock.advance(2 * 86_400 - 3 * 3600)
            #expect(eventually { manifestPuts(store) == 1 }, "day \(day + 5)")
            #expect(store.manifest == manifest)
            let age = clock.now - (store.modified.first { $0.key.hasPrefix("manifests/") }?.value ?? 0)
            #expect(age == 0)
            _ = try replica.value("PRAGMA verneuil_snapshot_refresh(2)")
            #expect(try replica.value("PRAGMA verneuil_snapshot_ctime") == seen)
            #expect(try replica.value("SELECT data FROM t") == "as it was")
        }
        // Its tag is another one now, and known.
        try db.rows("INSERT INTO t VALUES('one more')")
        #expect(try file.flush() == nil)
        #expect(store.manifest != manifest && file.report().isFine(limit: 10))
        #expect(LogBook.lines("another machine", file.path).isEmpty)
    }

    @Test func whereTheStoreHasNoConditionsTheManifestIsTouched() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore("plain", honoursConditions: false, clock: { clock.now })
        let file = try ReplicatedFile([store]) { $0.clock = { clock.now } }
        try file.connect().rows("CREATE TABLE t(data)")
        #expect(try file.flush() == nil)
        _ = store.take()
        clock.advance(5 * 86_400 - 3 * 3600)
        var requests: [RecordingStore.Request] = []
        #expect(eventually {
            requests += store.take().filter { $0.space == .manifests }
            return !requests.isEmpty
        })
        #expect(requests.allSatisfy { $0.operation == .touch })
        withExtendedLifetime(file) {}
    }

    @Test func aManifestThatIsGoneIsFoundByThePatrolAndComesBack() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore(clock: { clock.now })
        let file = try ReplicatedFile([store]) { $0.clock = { clock.now } }
        try file.connect().rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(200000))")
        #expect(try file.flush() == nil)
        store.removeAll(.manifests)
        store.removeAll(.chunks)
        clock.advance(5 * 86_400)
        #expect(eventually { store.manifest != nil })
        #expect(!LogBook.lines("what was stored is not there any more", file.path).isEmpty)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("PRAGMA integrity_check") == "ok")
    }

    @Test func anotherMachinesManifestIsNotKeptAliveOrOverwritten() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore(clock: { clock.now })
        func machine(_ digit: String, sharing other: ReplicatedFile? = nil, scan: Double) throws -> ReplicatedFile {
            try ReplicatedFile([store], sharing: other, spool: "spool-\(digit)") {
                $0.clock = { clock.now }
                $0.scanInterval = scan
                $0.identity = WriterIdentity(machine: String(repeating: digit, count: 32), boot: digit)
            }
        }
        let first = try machine("a", scan: 0.2)
        try first.connect().rows("CREATE TABLE t(data)")
        #expect(try first.flush() == nil)
        let second = try machine("b", sharing: first, scan: 3600)
        #expect(second.replicator.sync(path: second.path, takeOver: true) == nil)
        let winner = store.manifest
        clock.advance(5 * 86_400)
        #expect(eventually { first.report().databases.first?.targets.first?.problems.first?.contains("fenced") == true })
        #expect(store.manifest == winner)
    }
}
