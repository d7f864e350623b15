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

    func run() throws {
        let arena = Arena(root: self.arena)
        var options = Arena.options()
        options.commitBudget = budget
        let stores = (0..<targets).map { arena.store($0) }
        let replicator = Replicator(
            spool: arena.spool, targets: stores.map { ReplicationTarget($0) }, options: options,
            logger: StressLog.logger(arena))
        try VFSs.install(
            replicator, readers: ReplicaEnvironment(stores: [stores[0]], hostName: Arena.hostName))

        let player = Player(
            arena: arena, databases: databases, seed: seed, isAlone: alone, sizeLimit: databases > 4 ? 1 << 20 : 4 << 20)
        var judge = Judge(arena: arena, stores: stores, figures: Figures())
        var sinceFlush = 0
        var done = 0
        while done < commits {
            let (count, touched) = try player.step()
            if count > 0 {
                done += count
                sinceFlush += count
                for index in touched { try judge.audit(arena.database(index), after: done) }
            }
            if sinceFlush > 0 && player.chance(100 * sinceFlush / flushEvery / 10) {
                sinceFlush = 0
                try judge.compare(arena.database(player.number(0...databases - 1)), keepsReplica: player.chance(50))
            }
            Watchdog.shared.pet()
        }
        player.leave()
        for index in 0..<databases {
            let path = arena.database(index)
            if try Files.status(path) != nil { try judge.compare(path, keepsReplica: false) }
        }
        if let alarm = StressLog.raised.first { throw Finding("replication said: \(alarm)") }
        judge.figures.note("commits", done)
        judge.figures.add(player.coverage)
        Child.report(judge.figures)
    }
}
