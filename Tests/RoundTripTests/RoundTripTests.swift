import CSQLite
import CVerneuil
import Logging
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// A database, replicated to a directory store, through real SQLite.
final class ReplicatedDatabase {
    let directory: String
    let path: String
    let store: String
    let replicator: Replicator
    static let host = "round.trip.example"

    /// - Parameters:
    ///   - isParanoid: compare all that is staged with the database after each commit.
    ///   - caches: which the copiers fill.
    init(
        name: String = "app.db", isParanoid: Bool = true, caches: [CacheDirectory] = [],
        _ adjust: (inout ReplicationOptions) -> Void = { _ in }
    ) throws {
        SQLiteTable.install()
        let directory = "/tmp/verneuil-round-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        try Files.makeDirectories("\(directory)/\(Files.directory(of: name))")
        self.directory = directory
        path = "\(directory)/\(name)"
        store = "\(directory)/store"
        var options = ReplicationOptions()
        options.hostName = Self.host
        options.isParanoid = isParanoid
        adjust(&options)
        var logger = Logger(label: "round trip")
        logger.logLevel = .error
        let publish: @Sendable (Fingerprint, [UInt8]) -> Void = { fingerprint, bytes in
            for cache in caches { cache.publish(fingerprint, bytes) }
        }
        replicator = Replicator(
            spool: SpoolDirectory("\(directory)/spool"),
            targets: [ReplicationTarget(DirectoryStore(path: store, sync: false))], options: options,
            logger: logger,
            didStoreChunk: caches.isEmpty ? nil : publish)
        ReplicatedVFS.replicator = replicator
        #expect(LinuxVFS.register(makeDefault: false) == SQLITE_OK)
        #expect(ReplicatedVFS.register(makeDefault: false) == SQLITE_OK)
    }

    deinit { try? Files.removeTree(directory) }

    func connect() throws -> SQLiteConnection { try SQLiteConnection(path, vfs: "verneuil") }

    func contents() throws -> [UInt8] { try #require(try Files.read(path)) }

    /// Flushes, and restores without our own reader.
    @discardableResult
    func check(_ connection: SQLiteConnection, sourceLocation: SourceLocation = #_sourceLocation) throws
        -> IndependentReader.Restored
    {
        #expect(try connection.value("PRAGMA verneuil_flush_replication_data") == "1", sourceLocation: sourceLocation)
        let restored = try IndependentReader(store: store).restore(host: Self.host, path: path)
        let same = try restored.bytes == contents()
        #expect(same, "the restored bytes are the database's", sourceLocation: sourceLocation)
        return restored
    }

    var objects: Int { ((try? Files.list("\(store)/chunks")) ?? []).count }
}

@Suite(.serialized) struct RoundTripTests {
    @Test(arguments: [512, 4096, 65536], ["DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF"])
    func whatIsWrittenIsReadBackByAnotherReader(pageSize: Int, journal: String) throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("PRAGMA page_size=\(pageSize); PRAGMA journal_mode=\(journal)")
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        let first = try database.check(db)
        #expect(first.manifest.bundledChunks.count == 1)
        #expect(database.objects == max(0, first.chunks.count - 1))
        for round in 1...4 {
            for _ in 0..<20 { try db.rows("INSERT INTO t(data) VALUES(randomblob(abs(random() % 20000)))") }
            try db.rows("DELETE FROM t WHERE id % 5 = \(round)")
            let restored = try database.check(db)
            #expect(restored.bytes.count == restored.manifest.len)
        }
        try db.rows("VACUUM")
        try database.check(db)
        try db.rows("DELETE FROM t")
        try db.rows("VACUUM")
        let small = try database.check(db)
        #expect(small.bytes.count == 2 * pageSize)
    }

    @Test func aBigDatabasesListIsXoredWithABaseChunkThatIsKeptAndRenewed() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("PRAGMA journal_mode=TRUNCATE; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        let fill = """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)
            INSERT INTO t(data) SELECT randomblob(3900) FROM n
            """
        try db.rows(fill)
        let first = try database.check(db)
        #expect(first.chunks.count >= 300)
        #expect(first.manifest.hasBaseChunksFprint)
        var base = first.manifest.baseChunksFprint
        #expect(first.manifest.chunks.allSatisfy { $0 == 0 }, "a fresh base chunk is the list itself")
        var kept = 0
        for _ in 0..<5 {
            try db.rows("UPDATE t SET data = randomblob(3900) WHERE id = 1 + abs(random() % 6000)")
            let next = try database.check(db)
            // From one list to the next: 4 to 12 words of 752 differ from the base, which is the chance that it is renewed (FORMAT 6.2).
            if next.manifest.baseChunksFprint == base { kept += 1 }
            base = next.manifest.baseChunksFprint
        }
        #expect(kept >= 3, "a list that differs in a few words of 752 nearly always keeps its base")
        try db.rows("UPDATE t SET data = randomblob(3900)")
        let renewed = try database.check(db)
        #expect(renewed.manifest.baseChunksFprint != base)
        // Shorter than its base, longer than its base, and without one.
        try db.rows("DELETE FROM t WHERE id > 5200; VACUUM")
        try database.check(db)
        try db.rows(fill)
        try database.check(db)
        try db.rows("DELETE FROM t WHERE id > 100; VACUUM")
        #expect(try database.check(db).manifest.hasBaseChunksFprint == false)
    }

    @Test func chunksOfZerosAreNeitherStoredNorFetched() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        // The file grows by a MiB at a time: what isn't used yet is zeros.
        var mebibyte: Int32 = 1 << 20
        #expect(sqlite3_file_control(db.handle, "main", SQLITE_FCNTL_CHUNK_SIZE, &mebibyte) == SQLITE_OK)
        try db.rows("CREATE TABLE t(data)")
        try db.rows("INSERT INTO t VALUES('one row')")
        let restored = try database.check(db)
        #expect(restored.bytes.count == 1 << 20)
        #expect(restored.chunks.filter { $0 == Chunk.zeroFingerprint }.count == 15)
        #expect(database.objects == 0)
    }

    @Test(arguments: [
        "with space and #hash and 100%.db", "été/日本語.db",
        "long/" + String(repeating: "a name of some length/", count: 12) + "app.db",
    ])
    func oddAndOverlongPathsRoundTrip(_ name: String) throws {
        let database = try ReplicatedDatabase(name: name)
        let db = try database.connect()
        try db.rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(200000))")
        try database.check(db)
        let manifest = ManifestName.make(host: ReplicatedDatabase.host, path: database.path)
        #expect(manifest.utf8.count < 255)
        #expect(try Files.list("\(database.store)/manifests") == [manifest])
    }

    @Test func chunksThatDidNotChangeAreNotSentAgain() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t SELECT NULL, randomblob(60000) FROM json_each('[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]')")
        try database.check(db)
        let before = Set(try Files.list("\(database.store)/chunks"))
        try db.rows("UPDATE t SET data = zeroblob(60000) WHERE id = 10")
        try database.check(db)
        let added = Set(try Files.list("\(database.store)/chunks")).subtracting(before)
        #expect((1...3).contains(added.count), "\(added.count) new chunks for one row of 60,000 bytes")
    }

    @Test func strangersWritesAreNoticedAndNeverMixed() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); INSERT INTO t(data) VALUES(randomblob(300000))")
        try database.check(db)
        let stranger = try SQLiteConnection(database.path, vfs: "unix")
        for _ in 0..<10 {
            try stranger.rows("INSERT INTO t(data) VALUES(randomblob(90000))")
            try database.check(db)
            try db.rows("UPDATE t SET data = randomblob(1000) WHERE id = 1")
            try stranger.rows("UPDATE t SET data = randomblob(1000) WHERE id = 2")
            try db.rows("INSERT INTO t(data) VALUES(randomblob(1000))")
            try database.check(db)
        }
    }

    @Test func anotherProcessesReadersSeeWhatWasFlushed() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data TEXT)")
        for i in 0..<50 { try db.rows("INSERT INTO t(data) VALUES('row \(i)')") }
        try database.check(db)
        let environment = ReplicaEnvironment(
            stores: [DirectoryStore(path: database.store)], hostName: ReplicatedDatabase.host)
        #expect(SnapshotVFS.register(environment: environment) == SQLITE_OK)
        let replica = try SQLiteConnection("verneuil://\(ReplicatedDatabase.host)\(database.path)", vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
        #expect(try replica.value("SELECT count(*) FROM t") == "50")
        try db.rows("DELETE FROM t WHERE id > 10")
        try database.check(db)
        #expect(try replica.value("SELECT count(*) FROM t") == "50")
        _ = try replica.value("PRAGMA verneuil_snapshot_refresh(1)")
        #expect(try replica.value("SELECT count(*) FROM t") == "10")
    }

    @Test func exclusiveLockingModeIsReplicatedAtEachCommit() throws {
        let database = try ReplicatedDatabase()
        let db = try database.connect()
        try db.rows("PRAGMA locking_mode=EXCLUSIVE; CREATE TABLE t(data)")
        for i in 0..<10 {
            try db.rows("INSERT INTO t VALUES(randomblob(\(i * 10000)))")
            let status = try #require(try Files.status(database.path))
            let spooled = SpoolDatabase(database.replicator.spool, path: database.path, device: status.device, inode: status.inode)
            let records = try #require(try spooled.control())
            #expect(!records.producer.isOpen, "commit \(i) is staged while EXCLUSIVE is kept")
        }
        try db.rows("PRAGMA locking_mode=NORMAL; SELECT * FROM t")
        try database.check(db)
    }
}
