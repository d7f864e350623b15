import CVerneuil
import ReplicaTestSupport
import Synchronization
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem
import VerneuilVFS

/// A copier that sees the spool and not the database: in another container, or while a volume isn't mounted.
@Suite(.serialized) struct UnseenDatabaseTests {
    /// The time since boot, which passes as the test says.
    private final class Uptime: Sendable {
        private let hours = Atomic<Int>(0)
        func pass(hours: Int) { self.hours.store(hours, ordering: .relaxed) }
        var now: MonotonicTime { MonotonicTime.now.advanced(seconds: Double(hours.load(ordering: .relaxed)) * 3600) }
    }

    /// A database in a directory of its own, stored once.
    private struct Volume {
        let store = RecordingStore()
        let file: ReplicatedFile
        let directory: String
        let path: String
        let spooled: SpoolDatabase
        let uptime = Uptime()

        /// - Parameter isPending: one more commit is spooled, and not stored.
        init(isPending: Bool, scanInterval: Double = 3600) throws {
            let uptime = self.uptime
            file = try ReplicatedFile([store]) {
                $0.scanInterval = scanInterval
                $0.uptime = { uptime.now }
            }
            directory = "\(file.directory)/volume"
            path = "\(directory)/data.db"
            try Files.makeDirectories(directory)
            ReplicatedVFS.replicator = file.replicator
            let db = try SQLiteConnection(path, vfs: "verneuil")
            try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
            let status = try #require(try Files.status(path))
            spooled = SpoolDatabase(file.replicator.spool, path: path, device: status.device, inode: status.inode)
            #expect(file.replicator.flush(spooled, timeout: 60) == nil)
            guard isPending else { return }
            store.set { $0.operation == .put ? .fail(.unavailable, "down") : nil }
            try db.rows("INSERT INTO t VALUES(2)")
        }

        var isSpooled: Bool { get throws { try Files.status(spooled.directory) != nil } }
    }

    @Test func whatIsSpooledOfADatabaseThatCantBeSeenIsKept() throws {
        let volume = try Volume(isPending: true)
        let replicator = volume.file.replicator
        try Files.rename(volume.directory, to: volume.directory + ".away")
        func expectRefusal(_ words: String) throws {
            let failed = replicator.flushAll(timeout: 30)
            #expect(failed.map(\.path) == [volume.path])
            let reason = failed.first?.reason ?? ""
            #expect(reason.contains("can't be seen from here") && reason.contains(words), "\(failed)")
            replicator.scanNow()
            usleep(100_000)
            #expect(try volume.isSpooled)
        }
        try expectRefusal("there is no directory \(volume.directory)")
        // The mount point, without the volume.
        #expect(symlink("/proc", volume.directory) == 0)
        try expectRefusal("\(volume.directory) is on another device")
        #expect(LogBook.lines("a database can't be seen from here", volume.path).count == 1, "once a minute")
        #expect(LogBook.lines("removed what was spooled", volume.path).isEmpty)
        let problems = volume.file.report().databases.first?.problems ?? []
        #expect(problems.contains { $0.contains("can't be seen from here") }, "\(problems)")

        try Files.remove(volume.directory)
        try Files.rename(volume.directory + ".away", to: volume.directory)
        volume.store.set(nil)
        #expect(replicator.flushAll(timeout: 60).isEmpty)
        let copy = try ReplicatedFile.restored(from: volume.store, path: volume.path, to: "\(volume.file.directory)/copy.db")
        #expect(try copy.value("SELECT group_concat(x) FROM t") == "1,2")
    }

    @Test func oneThatIsStoredFailsNoFlushAndIsForgottenAfterADay() throws {
        let volume = try Volume(isPending: false)
        try Files.rename(volume.directory, to: volume.directory + ".away")
        #expect(volume.file.replicator.flushAll(timeout: 30).isEmpty)
        #expect(try volume.isSpooled)
        volume.uptime.pass(hours: 23)
        #expect(volume.file.replicator.flushAll(timeout: 30).isEmpty)
        #expect(try volume.isSpooled)
        volume.uptime.pass(hours: 25)
        #expect(volume.file.replicator.flushAll(timeout: 30).isEmpty)
        #expect(try !volume.isSpooled)
        #expect(LogBook.lines("notice removed what was spooled", volume.path).count == 1)
    }

    // A machine without a clock of its own starts in the past; the first answer of a time server sets it years on.
    @Test func aClockThatIsSetMakesNothingOld() throws {
        let volume = try Volume(isPending: true)
        try Files.rename(volume.directory, to: volume.directory + ".away")
        let years = timeval(tv_sec: Int(wallClock().seconds) - 3 * 366 * 86_400, tv_usec: 0)
        #expect(utimes("\(volume.spooled.directory)/control", [years, years]) == 0)
        #expect(volume.file.replicator.flushAll(timeout: 30).map(\.path) == [volume.path])
        #expect(try volume.isSpooled)
        #expect(LogBook.lines("removed what was spooled", volume.path).isEmpty)
    }

    @Test func oneThatIsGoneIsRemovedByTheBackgroundWithAWarningWhereItsLastCommitsWereNotStored() throws {
        let volume = try Volume(isPending: true, scanInterval: 0.2)
        try Files.remove(volume.path)
        #expect(eventually { !LogBook.lines("warning removed what was spooled", volume.path, "lastCommitsWereStored=false").isEmpty })
        #expect(try eventually { try !volume.isSpooled })
    }
}
