import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem

/// The spool's own files can't be read any more: a bad disk, or somebody who cleaned up.
@Suite(.serialized) struct UnreadableSpoolTests {
    enum Damage: String, CaseIterable, Sendable { case baseIsGone, baseCantBeRead, poolCantBeRead }

    @Test(arguments: Damage.allCases) func whatCantBeReadIsMadeAnewFromTheDatabase(_ damage: Damage) throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.scanInterval = 3600 }
        do {
            let db = try file.connect()
            try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data)")
            try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[1,2,3,4,5,6,7,8,9,10]')")
            #expect(try file.flush() == nil)
        }
        // Somebody else's commit: all chunks are in the base of a new epoch, and those of the next commit in its pool.
        do {
            let stranger = try SQLiteConnection(file.path, vfs: "unix")
            try stranger.rows("UPDATE t SET data = randomblob(65000) WHERE id = 1")
        }
        #expect(try file.flush() == nil)
        store.set { $0.operation == .put ? .fail(.unavailable, "down") : nil }
        let db = try file.connect()
        try db.rows("UPDATE t SET data = randomblob(65000) WHERE id = 5")
        let records = try #require(try file.spooled.control())
        #expect(records.isCurrentWhole && records.isCurrentTrusted)
        let epoch = try "\(file.spooled.directory)/epoch.\(records.current.point.epoch)"
        let name = damage == .poolCantBeRead ? "\(epoch)/pool" : "\(epoch)/base"
        #expect(try Files.status(name)?.isRegularFile == true)
        try Files.remove(name)
        // Opens, and answers each read with EISDIR.
        if damage != .baseIsGone { try Files.makeDirectories(name) }
        store.set(nil)

        #expect(try file.flush(timeout: 30) == nil)
        func expectAllStored(_ name: String) throws {
            let copy = "\(file.directory)/\(name).db"
            _ = try ReplicatedFile.restored(from: store, path: file.path, to: copy)
            #expect(try Files.read(copy) == Files.read(file.path))
        }
        try expectAllStored("first")
        #expect(LogBook.lines("doesn't hold what it should", file.path).count == 1)
        // And on from there.
        try db.rows("UPDATE t SET data = randomblob(65000) WHERE id = 7")
        #expect(try file.flush(timeout: 30) == nil)
        try expectAllStored("second")
    }

    /// Whoever looks after others' databases notices when he can't.
    @Test func aSpoolThatCantBeListedIsInTheLog() throws {
        let file = try ReplicatedFile([RecordingStore()]) { $0.scanInterval = 3600 }
        try file.connect().rows("CREATE TABLE t(data)")
        #expect(try file.flush() == nil)
        let control = try "\(file.spooled.directory)/control"
        try Files.remove(control)
        try Files.makeDirectories(control)
        file.replicator.scanNow()
        #expect(LogBook.lines("the spool can't be read", control).count == 1)
        let databases = "\(file.replicator.spool.boot)/databases"
        try Files.removeTree(databases)
        try Files.writeAtomically([], to: databases)
        file.replicator.scanNow()
        #expect(LogBook.lines("the spool can't be read", "\(databases)").count >= 1)
    }
}
