import CVerneuil
import Logging
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// The guard against lost updates: after commits, chunks that should be as they were are looked at.
@Suite(.serialized) struct AuditTests {
    @Test(.timeLimit(.minutes(1)))
    func anUpdateThatTheTrackerMissedIsFoundAfterLaterCommits() throws {
        let database = try ReplicatedDatabase(isParanoid: false)
        let db = try database.connect()
        try db.rows("PRAGMA journal_mode=TRUNCATE; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) VALUES(zeroblob(100)), (randomblob(150000))")
        try database.check(db)
        let status = try #require(try Files.status(database.path))
        let spooled = SpoolDatabase(
            SpoolDirectory("\(database.directory)/spool"), path: database.path, device: status.device, inode: status.inode)
        // The background thread has done all there was to do, and sleeps.
        usleep(2_500_000)

        // While a transaction writes, something changes that it doesn't tell of: the blob, from behind SQLite's back.
        try db.rows("PRAGMA cache_size=1; BEGIN; UPDATE t SET data=zeroblob(99) WHERE id=1")
        try db.rows("CREATE TABLE spill(x); INSERT INTO spill VALUES(zeroblob(30000))")
        do {
            let file = try Descriptor(database.path, O_RDWR)
            try file.write([1, 2, 3, 4], at: 100_000)
        }
        try db.rows("COMMIT")

        var records = try #require(try spooled.control())
        let first = records.producer.staged
        for _ in 0..<60 where records.builder.distrusted < first.epoch {
            usleep(200_000)
            // Another value each time: SQLite writes nothing where nothing changes, and one chunk is looked at for each one written.
            try db.rows("UPDATE t SET data=randomblob(100) WHERE id=1")
            records = try #require(try spooled.control())
        }
        #expect(records.builder.distrusted >= first.epoch, "no audit found the lost update")
        // What is stored after that is the database again.
        try database.check(db)
    }
}
