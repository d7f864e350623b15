import CSQLite
import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem
import VerneuilVFS

/// S4, S9: what goes with databases that are gone, and with earlier boots; and when.
@Suite(.serialized) struct GoneDatabaseTests {
    private func spooled(_ file: ReplicatedFile, _ path: String) throws -> SpoolDatabase {
        let status = try #require(try Files.status(path))
        return SpoolDatabase(file.replicator.spool, path: path, device: status.device, inode: status.inode)
    }

    private func make(_ path: String, _ statements: String = "CREATE TABLE t(x); INSERT INTO t VALUES(1)") throws {
        try SQLiteConnection(path, vfs: "verneuil").rows(statements)
    }

    // S9: another process uploads, and doesn't run.
    @Test func whatIsSpooledOfThemGoesWithoutATargetAsWell() throws {
        let file = try ReplicatedFile([]) { $0.scanInterval = 3600 }
        let db = try file.connect()
        try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        let kept = try file.spooled
        let (deleted, replaced) = ("\(file.directory)/deleted.db", "\(file.directory)/replaced.db")
        for path in [deleted, replaced] { try make(path) }
        let gone = [try spooled(file, deleted), try spooled(file, replaced)]
        try Files.remove(deleted)
        // The old file's number mustn't be given to the new one.
        try make(replaced + ".new")
        try Files.rename(replaced, to: replaced + ".old")
        try Files.rename(replaced + ".new", to: replaced)
        try make(replaced, "INSERT INTO t VALUES(2)")
        let successor = try spooled(file, replaced)
        for database in gone + [kept, successor] { try #require(try Files.status(database.directory) != nil) }

        // A builder that is at work on one of them keeps it for that long.
        let isDone = try eventually {
            file.replicator.scanNow()
            return try gone.allSatisfy { try Files.status($0.directory) == nil }
        }
        #expect(isDone)
        for database in [kept, successor] { #expect(try Files.status(database.directory) != nil) }
        #expect(LogBook.lines("warning removed what was spooled", deleted, "lastCommitsWereStored=false").count == 1)
        #expect(file.replicator.flushAll(timeout: 30).map(\.reason).allSatisfy { $0 == "no replication target is configured" })
    }

    // S9: local references (verneuil:///path) would answer for it until the machine is restarted.
    @Test func theLastManifestGoesWithTheLastFileOfItsPath() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        let name = ManifestName.make(host: ReplicatedFile.host, path: file.path)
        let spool = file.replicator.spool
        ReplicatedVFS.replicator = file.replicator
        try make(file.path)
        #expect(try file.flush() == nil)
        let first = try #require(spool.tap(name))

        // Another file is at the path, and can't be stored yet.
        store.set { $0.operation == .put ? .fail(.unavailable, "down") : nil }
        let old = try file.spooled
        try Files.rename(file.path, to: file.path + ".old")
        try make(file.path)
        #expect(try file.spooled != old)
        #expect(try eventually { file.replicator.flushAll(timeout: 30).count == 1 ? try Files.status(old.directory) == nil : false })
        #expect(spool.tap(name) == first)

        store.set(nil)
        #expect(try file.flush() == nil)
        #expect(spool.tap(name) != nil)
        let last = try file.spooled
        try Files.remove(file.path)
        #expect(try eventually { file.replicator.flushAll(timeout: 30).isEmpty ? try Files.status(last.directory) == nil : false })
        #expect(try Files.list("\(spool.boot)/manifests").isEmpty)
        #expect(store.manifest != nil)
    }

    // S4, S1: four times each database, after a power failure while the target was down.
    @Test func nobodyWaitsForTheRemovalOfAnotherBootsSpoolInAnOpen() throws {
        // Without a target nothing is done in the background before the first commit.
        let file = try ReplicatedFile([]) { $0.scanInterval = 3600 }
        let other = SpoolDirectory(file.replicator.spool.root, bootID: "an earlier boot")
        try other.prepare()
        try Files.makeDirectories("\(other.boot)/databases/#x.db/1-2/epoch.1")
        try Files.writeAtomically([1, 2, 3], to: "\(other.boot)/databases/#x.db/1-2/epoch.1/pool")
        let db = try file.connect()
        try db.rows("SELECT count(*) FROM sqlite_schema")
        #expect(try Files.status("\(other.boot)/databases/#x.db/1-2/epoch.1/pool") != nil)
        try db.rows("CREATE TABLE t(x)")
        #expect(try eventually { try Files.status(other.boot) == nil })
    }
}
