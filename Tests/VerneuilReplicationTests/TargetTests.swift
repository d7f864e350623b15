import CSQLite
import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilStore
import VerneuilSystem

/// Several targets: all must have everything, and none waits for another.
@Suite(.serialized) struct TargetTests {
    private func fill(_ db: SQLiteConnection, mebibytes: Int = 1) throws {
        try db.rows("PRAGMA synchronous=OFF; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[\(Array(repeating: "1", count: mebibytes * 16).joined(separator: ","))]')")
    }

    private func rows(_ store: RecordingStore, _ file: ReplicatedFile) throws -> String {
        let out = "\(file.directory)/restored-\(UInt64.random(in: 0 ... .max)).db"
        return try ReplicatedFile.restored(from: store, path: file.path, to: out).value("SELECT count(*) FROM t")
    }

    @Test func oneThatIsDownNeitherStopsNorSlowsTheOthersAndCatchesUpByItself() throws {
        let up = RecordingStore("up")
        let down = RecordingStore("down")
        down.set { _ in .fail(.unavailable, "nobody listens") }
        let file = try ReplicatedFile([up, down])
        let db = try file.connect()
        try fill(db)
        for i in 1...10 {
            try db.rows("INSERT INTO t(data) VALUES('commit \(i)')")
            let began = MonotonicTime.now
            #expect(eventually(5) { file.report().databases.first?.targets.first { $0.name == "up" }?.lag == nil })
            #expect(MonotonicTime.now.seconds(since: began) < 3, "commit \(i) waited for the other target")
        }
        let behind = try #require(file.report().databases.first?.targets.first { $0.name == "down" })
        #expect(behind.lag != nil && behind.pendingChunks >= 16 && behind.failures > 0 && behind.error.contains("nobody listens"))
        #expect(down.manifest == nil)
        let reason = try file.flush(timeout: 5)
        #expect(reason?.contains("nobody listens") == true, "\(reason ?? "flushed")")

        _ = up.take()
        down.set(nil)
        #expect(eventually(20) { file.report().lag == 0 && file.report().isFine(limit: 0) }, "\(file.report())")
        #expect(try rows(down, file) == "26")
        #expect(up.count(.put) == 0, "the others have nothing to do with it")
        #expect(try file.flush() == nil)
    }

    /// The tap (SPOOL.md) is one file for all targets, whose uploads end at the same time, or one after another.
    @Test func theTapIsTheNewestManifestWhicheverTargetWasLast() throws {
        let stores = (0..<4).map { RecordingStore("store \($0)") }
        let file = try ReplicatedFile(stores)
        let db = try file.connect()
        try fill(db)
        for i in 1...60 {
            try db.rows("INSERT INTO t(data) VALUES('commit \(i)')")
            #expect(try file.flush() == nil)
            let tap = file.replicator.spool.tap(ManifestName.make(host: ReplicatedFile.host, path: file.path))
            #expect(tap == stores[0].manifest, "after commit \(i)")
        }
        #expect(LogBook.lines("spooling failed", file.path) == [])
    }

    @Test func oneThatNeverAnswersHoldsUpItsOwnThreadsOnly() throws {
        let up = RecordingStore("up")
        let wedged = RecordingStore("wedged")
        wedged.set { _ in .hang }
        // Fewer threads than databases: shared ones would all be stuck.
        let files = try (0..<3).map { _ in try ReplicatedFile([up, wedged]) { $0.workers = 2 } }
        for file in files {
            let db = try file.connect()
            try fill(db)
            #expect(eventually(10) { file.report().databases.first?.targets.first { $0.name == "up" }?.lag == nil })
            try db.rows("INSERT INTO t(data) VALUES('more')")
            #expect(eventually(10) { file.report().databases.first?.targets.first { $0.name == "up" }?.lag == nil })
            #expect(try rows(up, file) == "17")
        }
        wedged.set(nil)
        wedged.release()
        for file in files { #expect(eventually(20) { file.report().lag == 0 }) }
    }

    @Test func aSlowOneGetsItsSnapshotUnderConstantWrites() throws {
        let fast = RecordingStore("fast")
        let slow = RecordingStore("slow")
        slow.setDelay(0.15)
        let file = try ReplicatedFile([fast, slow])
        let db = try file.connect()
        try fill(db, mebibytes: 2)
        let stop = Flag()
        let ended = Flag()
        let directory = file.directory
        let writer = try file.connect()
        try Threads.spawn("writer") {
            while !stop.isSet {
                _ = try? writer.rows("UPDATE t SET data = randomblob(65000) WHERE id = 1 + abs(random() % 30)")
                usleep(2000)
            }
            ended.set()
        }
        _ = directory
        let stored = eventually(20) { slow.count(.put, .manifests) >= 3 }
        #expect(stored, "the slow target stored \(slow.count(.put, .manifests)) manifests while commits went on")
        #expect(fast.count(.put, .manifests) >= 3)
        stop.set()
        ended.wait()
        #expect(try file.flush() == nil)
        #expect(try rows(slow, file) == "32")
    }

    @Test func aNewTargetGetsEverythingWithoutACommit() throws {
        let first = RecordingStore("first")
        let second = RecordingStore("second")
        let file = try ReplicatedFile([first])
        do {
            let db = try file.connect()
            try fill(db, mebibytes: 4)
            #expect(try file.flush() == nil)
        }
        _ = first.take()
        // Another process, after a change of the configuration. It only reads.
        let later = try ReplicatedFile([first, second], sharing: file)
        let db = try later.connect()
        #expect(try db.value("SELECT count(*) FROM t") == "64")
        #expect(eventually(20) { later.report().databases.first?.targets.allSatisfy { $0.lag == nil } == true }, "\(later.report())")
        #expect(try rows(second, later) == "64")
        #expect(first.count(.put, .chunks) == 0, "the first target has them all")
        // And the first one's configuration comes back: the same place is known by its name.
        let last = try ReplicatedFile([first], sharing: file)
        #expect(try last.flush() == nil)
        #expect(first.count(.put, .chunks) == 0)
    }

    @Test func aStoreWhoseDiskIsNotMountedIsNotMadeOnAnother() throws {
        let mount = "/tmp/verneuil-mount-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        let away = mount + ".away"
        defer { for path in [mount, away] { try? Files.removeTree(path) } }
        try Files.makeDirectories(mount)
        let file = try ReplicatedFile([DirectoryStore(path: "\(mount)/verneuil", sync: false)])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(x)")
        let reason = try file.flush(timeout: 20)
        #expect(reason?.contains("\(mount) is empty") == true, "\(reason ?? "stored")")
        #expect(try Files.list(mount).isEmpty)
        // It is mounted.
        try Files.writeAtomically([1], to: "\(mount)/other")
        #expect(try file.flush() == nil)

        // It goes, and a database comes of which nothing is stored yet.
        try Files.rename(mount, to: away)
        try Files.makeDirectories(mount)
        let path = "\(file.directory)/second.db"
        let second = try SQLiteConnection(path, vfs: "verneuil")
        try second.rows("CREATE TABLE t(x)")
        try db.rows("INSERT INTO t VALUES(1)")
        let failed = file.replicator.flushAll(timeout: 20)
        #expect(failed.map(\.path).sorted() == [file.path, path], "\(failed)")
        #expect(failed.contains { $0.reason.contains("\(mount) is empty") }, "\(failed)")
        #expect(try Files.list(mount).isEmpty)
        try Files.removeTree(mount)
        try Files.rename(away, to: mount)
        #expect(file.replicator.flushAll(timeout: 60).isEmpty)
        #expect(try Files.list("\(mount)/verneuil/manifests").count == 2)
    }

    /// S7: what can't be read is not what was never written.
    @Test func nothingIsSentToATargetWhoseRecordCantBeRead() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        let db = try file.connect()
        try fill(db)
        #expect(try file.flush() == nil)
        let path = "\(try file.spooled.directory)/target.\(file.replicator.targets[0].identifier)"
        let record = try Descriptor(path, O_RDWR)
        let size = try record.status().size
        // More than is ever read of it.
        try record.truncate(to: 2 << 20)
        _ = store.take()
        try db.rows("INSERT INTO t(data) VALUES('more')")
        let reason = try file.flush(timeout: 20)
        #expect(reason?.contains(path) == true, "\(reason ?? "stored")")
        #expect(store.count(.put) == 0 && store.count(.touch) == 0)
        try record.truncate(to: size)
        #expect(try file.flush() == nil)
        #expect(store.count(.put, .chunks) <= 4)
        #expect(try rows(store, file) == "17")
    }

    @Test func aTargetThatLostItsBucketGetsEverythingAgain() throws {
        let kept = RecordingStore("kept")
        let lost = RecordingStore("lost")
        let file = try ReplicatedFile([kept, lost])
        let db = try file.connect()
        try fill(db)
        #expect(try file.flush() == nil)
        _ = kept.take()
        lost.removeAll(.chunks)
        lost.removeAll(.manifests)
        // Nothing was committed since, but what a flush says must be true.
        #expect(try file.flush() == nil)
        #expect(try rows(lost, file) == "16")
        #expect(kept.count(.put, .chunks) == 0)
    }
}
