import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// A flush that answers "stored" is believed by people who then delete things.
@Suite(.serialized) struct FlushTests {
    /// What went wrong, from any thread.
    final class Findings: @unchecked Sendable {
        private let lock = Lock()
        private var all: [String] = []
        func add(_ finding: String) { lock.withLock { all.append(finding) } }
        var list: [String] { lock.withLock { all } }
    }

    /// For `VERNEUIL_HAMMER_SECONDS` (docs/TESTING.md), else a few seconds.
    static let seconds = getenv("VERNEUIL_HAMMER_SECONDS").flatMap { Double(String(cString: $0)) } ?? 4

    @Test func afterEachSuccessTheStoreAloneHasAStateNotOlderThanTheCall() throws {
        let store = RecordingStore()
        store.setDelay(0.01)
        let file = try ReplicatedFile([store])
        let setup = try file.connect()
        try setup.rows("PRAGMA journal_mode=TRUNCATE; CREATE TABLE ledger(n INTEGER); INSERT INTO ledger VALUES(0)")
        try setup.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        let findings = Findings()
        let commits = Counter()
        let flushes = Counter()
        let running = Counter()
        let end = MonotonicTime.now.advanced(seconds: Self.seconds)
        for w in 0..<8 {
            let connection = try file.connect()
            try Threads.spawn("writer") {
                while MonotonicTime.now < end {
                    do {
                        try connection.rows("BEGIN IMMEDIATE; UPDATE ledger SET n = n + 1")
                        try connection.rows("INSERT OR REPLACE INTO t VALUES(\(w) + 8 * (abs(random()) % 20), randomblob(20000)); COMMIT")
                        commits.add()
                    } catch { findings.add("writer: \(error)") }
                    usleep(1000)
                }
                running.add()
            }
        }
        for f in 0..<4 {
            let connection = try file.connect()
            let (path, directory, spooled, replicator) = (file.path, file.directory, try file.spooled, file.replicator)
            try Threads.spawn("flusher") {
                while MonotonicTime.now < end {
                    do {
                        let before = try #require(Int(try connection.value("SELECT n FROM ledger")))
                        if let reason = replicator.flush(spooled, timeout: 30) {
                            findings.add("flush: \(reason)")
                            continue
                        }
                        flushes.add()
                        let out = "\(directory)/restored-\(f).db"
                        let restored = try ReplicatedFile.restored(from: store, path: path, to: out)
                        let after = try #require(Int(try restored.value("SELECT n FROM ledger")))
                        if after < before { findings.add("stored \(after), though \(before) was committed before the flush") }
                    } catch { findings.add("flusher: \(error)") }
                }
                running.add()
            }
        }
        #expect(eventually(Self.seconds + 90) { running.value == 12 })
        print("hammer: \(commits.value) commits, \(flushes.value) flushes")
        #expect(findings.list.isEmpty, "\(findings.list.prefix(5))")
        #expect(flushes.value >= 4 && commits.value >= 20)
    }

    @Test func ofADatabaseThatIsGoneNothingIsLeftAndTheOthersAreStored() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        let gone: SpoolDatabase
        do {
            let db = try file.connect()
            try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
            #expect(try file.flush() == nil)
            gone = try file.spooled
            let kept = try SQLiteConnection("\(file.directory)/kept.db", vfs: "verneuil")
            try kept.rows("CREATE TABLE t(x); INSERT INTO t VALUES(2)")
        }
        // Until this process has nothing more to do: else it would find out in the background.
        usleep(500_000)
        try Files.remove(file.path)
        #expect(try Files.status(gone.directory) != nil)

        let other = try ReplicatedFile([store], sharing: file)
        let failed = other.replicator.flushAll(timeout: 30)
        #expect(failed.isEmpty, "\(failed)")
        #expect(try Files.status(gone.directory) == nil)
        #expect(LogBook.lines("removed what was spooled of a database that is gone", file.path).count == 1)
        // Again: nothing of it is left to be found.
        #expect(other.replicator.flushAll(timeout: 30).isEmpty)
    }

    /// What a writer that was killed leaves is no state that was committed: no waiting helps until somebody opens the database.
    /// The others of the spool are stored all the same.
    @Test func aJournalThatNobodyRollsBackFailsItSoonAndIsNamed() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        let other: SQLiteConnection
        do {
            let db = try file.connect()
            try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
            #expect(try file.flush() == nil)
            other = try SQLiteConnection("\(file.directory)/other.db", vfs: "verneuil")
            try other.rows("CREATE TABLE t(x); INSERT INTO t VALUES(2)")
        }
        // As a crash leaves it: the journal of a transaction that has written to the file.
        let writer = try SQLiteConnection(file.path, vfs: "unix")
        try writer.rows("PRAGMA cache_spill=1; PRAGMA cache_size=1; BEGIN IMMEDIATE")
        try writer.rows("INSERT INTO t SELECT randomblob(3000) FROM (WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<60) SELECT i FROM c)")
        let (database, journal) = (try #require(try Files.read(file.path)), try #require(try Files.read("\(file.path)-journal")))
        #expect(database.count > 100_000 && journal.count >= 512)
        try writer.rows("ROLLBACK")
        let now = try Descriptor(file.path, O_WRONLY)
        try now.write(database, at: 0)
        try Files.writeAtomically(journal, to: "\(file.path)-journal", mode: 0o644)

        let began = MonotonicTime.now
        let failed = file.replicator.flushAll(timeout: 300)
        let seconds = MonotonicTime.now.seconds(since: began)
        #expect(failed.map(\.path) == [file.path], "\(failed)")
        let reason = failed.first?.reason ?? ""
        #expect(reason.contains("\(file.path)-journal") && reason.contains("open the database once with SQLite"), "\(reason)")
        #expect(seconds < 120, "\(seconds) s")
        let copy = try ReplicatedFile.restored(from: store, path: "\(file.directory)/other.db", to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT x FROM t") == "2")

        let opened = try SQLiteConnection(file.path, vfs: "unix")
        #expect(try opened.value("SELECT group_concat(x) FROM t") == "1")
        #expect(file.replicator.flushAll(timeout: 60).isEmpty)
    }

    @Test func whatCantBeReadInTheSpoolIsNamedAndKeepsNobodyFromTheOthers() throws { try expectNamed() }

    @Test(.enabled(if: geteuid() != 0, "root can read everything"))
    func aDirectoryThatCantBeReadInTheSpoolIsNamedAndKeepsNobodyFromTheOthers() throws { try expectNamed(closed: true) }

    private func expectNamed(closed: Bool = false) throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        let db = try file.connect()
        try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        let databases = "\(file.replicator.spool.boot)/databases"
        var strange = ["\(databases)/a file", "\(databases)/#a/1-2/path"]
        try Files.writeAtomically([1], to: strange[0])
        try Files.makeDirectories(strange[1])
        if closed {
            strange.append("\(databases)/#b")
            try Files.makeDirectories(strange[2], mode: 0)
        }
        defer { _ = vrn_chmod("\(databases)/#b", 0o700) }
        let failed = file.replicator.flushAll(timeout: 60)
        #expect(failed.map(\.path).sorted() == strange.sorted(), "\(failed)")
        #expect(store.manifest != nil)
        let report = file.report()
        #expect(report.databases.map(\.path) == [file.path])
        #expect(report.databases.first?.lag == nil)
        for path in strange { #expect(report.problems.contains { $0.contains(path) }, "\(report.problems)") }
        #expect(!report.isFine(limit: 60))
    }

    /// Whichever of them would have its turn first.
    @Test func aLongTransactionUsesUpNobodyElsesTime() throws {
        let store = RecordingStore()
        // Who commits has no target: what is stored, the flush has stored.
        let file = try ReplicatedFile([])
        let flusher = try ReplicatedFile([store], sharing: file) { $0.scanInterval = 3600 }
        let other = "\(file.directory)/other.db"
        let fill = "CREATE TABLE t(x); INSERT INTO t VALUES(1)"
        let connections = [file.path: try file.connect(), other: try SQLiteConnection(other, vfs: "verneuil")]
        for connection in connections.values { try connection.rows(fill) }
        #expect(flusher.replicator.flushAll(timeout: 60).isEmpty)

        let order = try file.replicator.spool.databases().map(\.path)
        try #require(order.count == 2)
        let (first, second) = (try #require(connections[order[0]]), try #require(connections[order[1]]))
        // One commit that the flush must store, and one transaction that has begun to write to the file.
        try second.rows("UPDATE t SET x = 2")
        try first.rows("PRAGMA cache_spill=1; PRAGMA cache_size=1; BEGIN")
        try first.rows("INSERT INTO t SELECT randomblob(3000) FROM (WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<60) SELECT i FROM c)")
        let failed = flusher.replicator.flushAll(timeout: 5)
        #expect(failed.map(\.path) == [order[0]], "\(failed)")
        #expect(failed.first?.reason.contains("end the transaction that is open on it") == true, "\(failed)")
        try first.rows("COMMIT")
        #expect(flusher.replicator.flushAll(timeout: 60).isEmpty)
        let copy = try ReplicatedFile.restored(from: store, path: order[0], to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT count(*) FROM t") == "61")
    }

    @Test func withoutTargetsItFails() throws {
        let file = try ReplicatedFile([])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data)")
        #expect(try file.flush() == "no replication target is configured")
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "0")
    }

    @Test func withABucketThatCantBeMadeItFails() throws {
        let good = RecordingStore("good")
        let bad = RecordingStore("bad")
        bad.set { $0.operation == .prepare ? .fail(.noSuchSpace, "there is no bucket") : nil }
        let file = try ReplicatedFile([good, bad])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data)")
        let reason = try file.flush(timeout: 20)
        #expect(reason?.contains("there is no bucket") == true && reason?.contains("bad") == true, "\(reason ?? "nil")")
        #expect(good.manifest != nil)
        bad.set(nil)
        #expect(try file.flush() == nil)
        #expect(bad.manifest != nil)
    }

    @Test func aFailingManifestOrChunkFailsIt() throws {
        for space in ObjectSpace.allCases {
            let store = RecordingStore()
            let file = try ReplicatedFile([store])
            let db = try file.connect()
            try db.rows("CREATE TABLE t(data)")
            #expect(try file.flush() == nil)
            store.set { $0.operation == .put && $0.space == space ? .fail(.denied, "no \(space.rawValue)") : nil }
            try db.rows("INSERT INTO t VALUES(randomblob(200000))")
            let reason = try file.flush(timeout: 20)
            #expect(reason?.contains("no \(space.rawValue)") == true, "\(reason ?? "nil")")
        }
    }
}
