import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem

/// What one process of a crash or fault run has: a database with a ledger, a replicator, connections.
final class CrashStage {
    let arena: Arena
    let ledger: Ledger
    let replicator: Replicator
    var random: SeededGenerator
    private var opened: Connection?

    /// - Parameter change: of the options. Without it, all happens on the calling thread: the commit makes the full
    ///   snapshot, only a flush uploads.
    init(_ arena: Arena, seed: UInt64, targets: Int = 1, _ change: (inout ReplicationOptions) -> Void = { _ in }) throws {
        self.arena = arena
        random = SeededGenerator(seed: seed)
        ledger = Ledger(arena.database(0), in: arena)
        var options = Arena.options()
        options.workers = 0
        options.commitBudget = 5
        options.removedWithinCommit = SpoolDatabase.removedWithinCommit
        change(&options)
        replicator = Replicator(
            spool: arena.spool, targets: (0..<targets).map { ReplicationTarget(arena.store($0)) }, options: options,
            logger: StressLog.logger(arena))
        try VFSs.install(replicator)
    }

    func connection(_ vfs: String = "verneuil") throws -> Connection {
        if let opened { return opened }
        let made = try Connection(ledger.path, vfs: vfs)
        made.waitForLocks(milliseconds: 30_000)
        opened = made
        return made
    }

    func close() { opened = nil }

    func create(items: Int = 24) throws { try ledger.create(connection(), items: items) }
    func commit() throws { try ledger.commit(connection(), &random) }

    /// A commit by SQLite's own VFS.
    func strangerCommits() throws { try ledger.commit(Connection(ledger.path, vfs: "unix"), &random) }

    func flush() throws {
        if let reason = replicator.flush(try arena.spooled(ledger.path), timeout: 60) { throw Finding("flush: \(reason)") }
    }

    /// Until `condition` holds, at most 20 s.
    func wait(for what: String, _ condition: () throws -> Bool) throws {
        let start = MonotonicTime.now
        while try !condition() {
            if MonotonicTime.now.seconds(since: start) > 20 { throw Finding("20 s later: not \(what)") }
            usleep(2000)
        }
    }

    /// Until the file's mtime can be told from the next write's.
    func rest() { usleep(25_000) }
}
