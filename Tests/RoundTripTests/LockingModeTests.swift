import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Connections that keep their lock between transactions, have none, or had a database that was in WAL mode.
@Suite(.serialized) struct LockingModeTests {
    /// Nothing here is about how long things take.
    private static func database() throws -> ReplicatedDatabase {
        try ReplicatedDatabase { ($0.manifestInterval, $0.passInterval) = (0.05, 0.02) }
    }

    private func spooled(_ database: ReplicatedDatabase, _ path: String) throws -> SpoolDatabase {
        let status = try #require(try Files.status(path))
        return SpoolDatabase(database.replicator.spool, path: path, device: status.device, inode: status.inode)
    }

    private func eventually(_ isSo: () throws -> Bool) rethrows -> Bool {
        let deadline = MonotonicTime.now.advanced(seconds: 60)
        while true {
            if try isSo() { return true }
            if MonotonicTime.now >= deadline { return false }
            usleep(20_000)
        }
    }

    /// Whether the store has the file as it is.
    private func isStored(_ database: ReplicatedDatabase, _ path: String) throws -> Bool {
        let copy = "\(database.directory)/copy.db"
        try Files.remove(copy)
        do {
            let chunks = ChunkSource(caches: [], stores: [DirectoryStore(path: database.store)])
            let manifests = ManifestSource(chunks: chunks)
            let stored = try manifests.fetch(.manifest(name: ManifestName.make(host: ReplicatedDatabase.host, path: path)))
            _ = try Restore(manifests.resolve(stored.manifest), from: chunks).write(to: copy)
        } catch {
            return false
        }
        return try Files.read(copy) == Files.read(path)
    }

    // SQLite tells the main database's file alone. Where that is of another VFS, nobody of ours hears of it.
    @Test(arguments: ["verneuil", "unix"], ["mode, attach", "attach, mode"])
    func attachedDatabasesAreReplicatedUnderExclusiveLockingMode(main: String, order: String) throws {
        let database = try Self.database()
        let attached = "\(database.directory)/attached.db"
        try #require(Files.status(attached) == nil)
        var db: SQLiteConnection? = try SQLiteConnection(database.path, vfs: main)
        let mode = "PRAGMA locking_mode=EXCLUSIVE", attach = "ATTACH 'file:\(attached)?vfs=verneuil' AS attached"
        try db?.rows(order == "mode, attach" ? "\(mode); \(attach)" : "\(attach); \(mode)")
        try db?.rows("CREATE TABLE main.m(x); CREATE TABLE attached.t(data)")
        for i in 0...5 {
            let producer = try #require(try spooled(database, attached).control()).producer
            // Who isn't told learns of the mode when the second transaction begins.
            let isStaged = main == "verneuil" || i > 0
            #expect(producer.isOpen != isStaged && producer.transactions == (isStaged ? UInt64(i) + 1 : 0), "\(i)")
            try db?.rows("INSERT INTO m VALUES(\(i)); INSERT INTO attached.t VALUES(randomblob(\(i * 10000)))")
        }
        #expect(try db?.value("PRAGMA attached.verneuil_flush_replication_data") == "1")
        #expect(try isStored(database, attached))
        db = nil
        #expect(try database.replicator.flush(spooled(database, attached)) == nil)
        #expect(try isStored(database, attached))
    }

    @Test func aFlushUnderExclusiveLockingModeIsPossibleAndWaitsForNothingThatItHolds() throws {
        let database = try Self.database()
        let db = try database.connect()
        try db.rows("PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE t(data)")
        for i in 1...3 {
            try db.rows("INSERT INTO t VALUES(randomblob(\(i * 100_000)))")
            try database.check(db)
        }
        // In a transaction, what was committed before is stored.
        try db.rows("BEGIN; UPDATE t SET data = 1")
        let committed = try database.contents()
        let began = MonotonicTime.now
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "1")
        #expect(try IndependentReader(store: database.store).restore(host: ReplicatedDatabase.host, path: database.path).bytes == committed)
        try db.rows("COMMIT")
        try database.check(db)
        // One that has written to the file, and a snapshot that nobody can take while the lock is kept: no waiting helps.
        try db.rows("PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN")
        try db.rows("INSERT INTO t SELECT randomblob(3000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]')")
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "0")
        try db.rows("COMMIT")
        try database.check(db)
        let records = try spooled(database, database.path)
        #expect(try eventually { try records.distrust() })
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "0")
        // 300 s is how long a flush waits.
        #expect(MonotonicTime.now.seconds(since: began) < 250)
        try db.rows("INSERT INTO t VALUES(1)")
        try database.check(db)
    }

    @Test(arguments: ["DELETE", "TRUNCATE", "PERSIST"])
    func commitsWithoutLocksAreReplicated(journal: String) throws {
        let database = try Self.database()
        let db = try SQLiteConnection("file:\(database.path)?nolock=1", vfs: "verneuil")
        try db.rows("PRAGMA journal_mode=\(journal); CREATE TABLE t(data)")
        for i in 1...3 {
            try db.rows("INSERT INTO t VALUES(randomblob(\(i * 100_000)))")
            try #require(try eventually { try isStored(database, database.path) }, "commit \(i)")
        }
    }

    @Test func aDatabaseThatLeavesWALModeWhileItIsOpenIsReplicatedFromThenOn() throws {
        let database = try Self.database()
        func elsewhere(_ sql: String) throws { try SQLiteConnection(database.path, vfs: "unix").rows(sql) }
        try elsewhere("PRAGMA journal_mode=WAL; CREATE TABLE t(data); INSERT INTO t VALUES(1)")
        let db = try database.connect()
        #expect(throws: SQLiteError.self) { try db.rows("SELECT * FROM t") }
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "0")
        #expect(throws: SQLiteError.self) { try db.rows("INSERT INTO t VALUES(2)") }
        try elsewhere("PRAGMA journal_mode=DELETE")
        #expect(try db.value("SELECT count(*) FROM t") == "1")
        try #require(try eventually { try isStored(database, database.path) })
        try db.rows("INSERT INTO t VALUES(3)")
        try #require(try eventually { try isStored(database, database.path) })
        try database.check(db)
    }

    // SQLite enters WAL mode without shared memory under that, and can leave it.
    @Test func aConnectionThatLeavesWALModeUnderItsExclusiveLockIsReplicatedFromThenOn() throws {
        let database = try Self.database()
        try SQLiteConnection(database.path, vfs: "unix").rows("PRAGMA journal_mode=WAL; CREATE TABLE t(data)")
        let db = try database.connect()
        try db.rows("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(1)")
        #expect(try db.value("PRAGMA journal_mode") == "wal")
        #expect(try db.value("PRAGMA journal_mode=DELETE") == "delete")
        try db.rows("INSERT INTO t VALUES(2)")
        try database.check(db)
    }
}
