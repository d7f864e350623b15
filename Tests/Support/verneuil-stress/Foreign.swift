import ArgumentParser
import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilSystem

/// Others write to the database as well, by every rule and by none: the next transaction of a connection of ours
/// notices, and nothing is ever stored that the database has not been.
struct Foreign: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Writes by SQLite's own VFS, cp, mv, restores, re-creation, links, WAL mode; never a mix of two states.")

    @OptionGroup var common: CommonOptions
    @Option(help: "How many things are done.") var steps = 100

    func run() throws {
        try common.supervise("foreign") { arena, seed in
            try ForeignRun(arena: arena, random: SeededGenerator(seed: seed)).play(steps: steps)
        }
    }
}

/// What a process without our VFS does to a database. In a process of its own, since closing a file drops the POSIX
/// locks of SQLite's unix VFS.
struct ForeignHand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "foreign-hand", shouldDisplay: false)

    enum Deed: String, ExpressibleByArgument {
        case commit, transfer, tag, tagAndCommit, backup, wal, walStays, walEnds, crash, create
    }

    @Argument var deed: Deed
    @Option var arena: String
    @Option var path: String
    @Option var seed: UInt64

    func run() throws {
        let arena = Arena(root: self.arena)
        var random = SeededGenerator(seed: seed)
        try VFSs.install(nil)
        var ledger = Ledger(arena.database(0), in: arena)
        ledger.path = path
        if deed == .tag || deed == .tagAndCommit {
            // As the original does before it writes (FORMAT 7).
            let file = try Descriptor(path, O_RDWR)
            let value = Array("01234567-89ab-4def-8123-\(String(UInt64.random(in: 0..<1 << 48, using: &random) | 1 << 47, radix: 16))".utf8)
            try SystemError.check(vrn_fsetxattr(file.fd, "user.verneuil.version_id", value, value.count), "fsetxattr", path)
            if deed == .tag { return }
        }
        let connection = try Connection(path, vfs: "unix")
        connection.waitForLocks(milliseconds: 30_000)
        switch deed {
        case .commit, .tagAndCommit: try ledger.commit(connection, &random)
        case .transfer:
            // Changes no length, and one page of data.
            let amount = Int.random(in: 1...1_000_000, using: &random)
            try connection.rows(
                "BEGIN; UPDATE account SET balance=balance-\(amount) WHERE id=1; UPDATE account SET balance=balance+\(amount) WHERE id=2; COMMIT")
        case .tag: break
        case .backup:
            let source = try Connection(arena.side("source.db"), vfs: "unix")
            if try source.number("SELECT count(*) FROM sqlite_schema") == 0 { try ledger.create(source, items: 80) }
            try ledger.commit(source, &random)
            try connection.copyAll(from: source)
        case .wal, .walStays:
            guard try connection.value("PRAGMA journal_mode=WAL") == "wal" else { throw Finding("no WAL for the unix VFS") }
            for _ in 0..<3 { try ledger.commit(connection, &random) }
            if deed == .wal { try leaveWAL(connection) }
        case .walEnds: try leaveWAL(connection)
        case .crash:
            // Part of a transaction is in the file, all of the old state in the journal.
            try connection.rows("PRAGMA cache_size=2; PRAGMA synchronous=OFF")
            let cause = { _ = kill(getpid(), SIGKILL) }
            try connection.rows("BEGIN IMMEDIATE; UPDATE item SET data=zeroblob(3000)")
            cause()
        case .create: try ledger.create(connection, items: 60)
        }
    }

    private func leaveWAL(_ connection: Connection) throws {
        for _ in 0..<300 {
            if try connection.value("PRAGMA journal_mode=DELETE") == "delete" { return }
            usleep(10_000)
        }
        throw Finding("WAL mode can't be left")
    }
}
