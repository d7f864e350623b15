import ArgumentParser
import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Processes die at any instruction: what is stored stays a committed state, never an older one than before, and
/// replication goes on.
struct Kill: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "SIGKILLs writers and copiers at random moments, and looks at what is left.")

    @OptionGroup var common: CommonOptions
    @Option(help: "How many processes are killed.") var kills = 300
    @Option(help: "How many processes commit, 1 to 4; otherwise as the seed says.") var writers: Int?
    @Option(help: "How many processes do nothing but flush, 0 to 4; otherwise as the seed says.") var copiers: Int?

    func run() throws {
        try common.supervise("kill") { arena, seed in
            var random = SeededGenerator(seed: seed)
            let run = try KillRun(
                arena: arena, writers: writers ?? Int.random(in: 1...4, using: &random),
                copiers: copiers ?? Int.random(in: 0...3, using: &random), random: random)
            return try run.play(kills: kills)
        }
    }
}

/// A process that commits until it is killed.
struct KillWriter: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "kill-writer", shouldDisplay: false)
    @Option var arena: String
    @Option var seed: UInt64

    func run() throws {
        let arena = Arena(root: self.arena)
        var random = SeededGenerator(seed: seed)
        var options = Arena.options()
        options.commitBudget = Bool.random(using: &random) ? 0.02 : 0.000_1
        let replicator = Replicator(
            spool: arena.spool, targets: [ReplicationTarget(arena.store(0))], options: options,
            logger: StressLog.logger(arena))
        try VFSs.install(replicator)
        let ledger = Ledger(arena.database(0), in: arena)
        var connection: Connection?
        while true {
            if connection == nil || Int.random(in: 0..<50, using: &random) == 0 {
                let opened = try Connection(ledger.path, vfs: "verneuil")
                opened.waitForLocks(milliseconds: 60_000)
                let modes = ["DELETE", "TRUNCATE", "PERSIST"]
                // Another process may be in the way: then it stays as it is.
                _ = try? opened.rows("PRAGMA journal_mode=\(modes[Int.random(in: 0..<3, using: &random)])")
                try opened.rows("PRAGMA cache_size=\([5, 50, 2000][Int.random(in: 0..<3, using: &random)])")
                try opened.rows("PRAGMA synchronous=\(Int.random(in: 0...2, using: &random))")
                connection = opened
            }
            guard let connection else { continue }
            do throws(any Error) {
                if Int.random(in: 0..<60, using: &random) == 0 {
                    try connection.rows("VACUUM")
                } else {
                    try ledger.commit(connection, &random)
                }
            } catch {
                guard let error = error as? SQLiteError, error.primary == SQLITE_BUSY else { throw error }
                connection.rollBack()
            }
            if Int.random(in: 0..<4, using: &random) == 0 { usleep(UInt32.random(in: 0...5000, using: &random)) }
        }
    }
}

/// A process that uploads what is spooled until it is killed.
struct KillCopier: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "kill-copier", shouldDisplay: false)
    @Option var arena: String

    func run() throws {
        let arena = Arena(root: self.arena)
        let replicator = Replicator(
            spool: arena.spool, targets: [ReplicationTarget(arena.store(0))], options: Arena.options(),
            logger: StressLog.logger(arena))
        while true {
            _ = replicator.flushAll(timeout: 60)
            usleep(2000)
        }
    }
}
