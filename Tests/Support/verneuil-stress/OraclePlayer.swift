import ArgumentParser
import CVerneuil
import VerneuilReplica
import VerneuilReplication
import VerneuilStore
import VerneuilSystem

/// One process of an oracle run.
struct OraclePlayer: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "oracle-player", shouldDisplay: false)

    @Option var arena: String
    @Option var seed: UInt64
    @Option var commits: Int
    @Option var databases: Int
    @Option var budget: Double
    @Option var targets: Int
    @Option var flushEvery: Int
    @Flag var alone = false
    @Flag var bare = false
    @Flag var check = false
    @Flag var trace = false

    func run() throws {
        let arena = Arena(root: self.arena)
        if bare { return try play(arena, vfs: "unix", judge: nil) }
        var options = Arena.options()
        options.commitBudget = budget
        let stores = (0..<targets).map { arena.store($0) }
        let replicator = Replicator(
            spool: arena.spool, targets: stores.map { ReplicationTarget($0) }, options: options,
            logger: StressLog.logger(arena))
        try VFSs.install(
            replicator, readers: ReplicaEnvironment(stores: [stores[0]], hostName: Arena.hostName))

        try play(arena, vfs: "verneuil", judge: Judge(arena: arena, stores: stores, figures: Figures()))
    }

    /// - Parameter judge: compares what is staged and stored; nil where nothing is.
    private func play(_ arena: Arena, vfs: String, judge: Judge?) throws {
        let player = Player(
            arena: arena, databases: databases, seed: seed, isAlone: alone, sizeLimit: databases > 4 ? 1 << 20 : 4 << 20,
            vfs: vfs)
        player.avoidsDefect = try SQLiteDefect.isPresent(arena.side("defect.\(getpid())"))
        if trace { player.trace = try Self.tracer(arena) }
        var judge = judge
        var sinceFlush = 0
        var done = 0
        while done < commits {
            let (count, touched) = try player.step()
            if count > 0 {
                done += count
                sinceFlush += count
                for index in touched {
                    if check { try expectIntegrity(arena.database(index), vfs, after: done) }
                    try judge?.audit(arena.database(index), after: done)
                }
            }
            if judge != nil, sinceFlush > 0 && player.chance(100 * sinceFlush / flushEvery / 10) {
                sinceFlush = 0
                try judge?.compare(arena.database(player.number(0...databases - 1)), keepsReplica: player.chance(50))
            }
            Watchdog.shared.pet()
        }
        player.leave()
        for index in 0..<databases {
            let path = arena.database(index)
            if try Files.status(path) != nil { try judge?.compare(path, keepsReplica: false) }
        }
        try StressLog.expectNoAlarm(arena)
        var figures = judge?.figures ?? Figures()
        figures.note("commits", done)
        figures.add(player.coverage)
        Child.report(figures)
    }

    /// What SQLite itself thinks of the database, if nobody holds it just now.
    private func expectIntegrity(_ path: String, _ vfs: String, after commits: Int) throws {
        do {
            let answer = try Connection(path, vfs: vfs).rows("PRAGMA integrity_check")
            if answer != [["ok"]] { throw Finding("\(path) is damaged after \(commits) commits: \(answer.prefix(5))") }
        } catch let error as SQLiteError where [SQLITE_BUSY, SQLITE_LOCKED].contains(error.primary) {}
    }

    /// Statements go to a file of this process's in the arena, each before it is run.
    private static func tracer(_ arena: Arena) throws -> (Int, String) -> Void {
        let path = "\(arena.root)/log/trace.\(getpid())"
        let file = Descriptor(owning: vrn_open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644), path: path)
        try SystemError.check(file.fd, "open", path)
        let start = MonotonicTime.now
        return { connection, statement in
            let line = "\(MonotonicTime.now.seconds(since: start)) \(connection) \(statement)\n"
            _ = line.withCString { vrn_write(file.fd, $0, strlen($0)) }
        }
    }
}
