import CSQLite
import CVerneuil
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// What must hold of whatever a process left when it died.
struct CrashJudge {
    let arena: Arena
    let scenario: CrashScenario
    /// The commit that was stored before the operation; -1: none.
    let storedBefore: Int64

    func judge(seed: UInt64) throws {
        let away = arena.database(0) + CrashScenario.away
        if try Files.status(away) != nil { try Files.rename(away, to: arena.database(0)) }
        var log = LedgerLog(Ledger(arena.database(0), in: arena))
        try log.update()
        // Before anybody repairs anything.
        try spoolOffersCommittedStates(log)
        for target in 0..<scenario.targets { try storeIsSound(target, log, least: target == 0 ? storedBefore : -1) }

        let stage = try CrashStage(arena, seed: seed ^ 0x5EED, targets: scenario.targets) { options in
            scenario.change(&options)
            options.workers = 2
        }
        if try Files.status(stage.ledger.path)?.size ?? 0 == 0 { try stage.create() }
        // The database opens, and shows the last commit, or one that was under way.
        let tables = try stage.connection().number("SELECT count(*) FROM sqlite_schema")
        if tables == 0 && log.commits == 0 { try stage.create() }
        let live = try Ledger.verify(stage.connection())
        try log.update()
        guard live.commit >= log.committed, log.attempted.contains(live) else {
            throw Finding("the database shows \(live), but commit \(log.committed) had succeeded")
        }
        // Replication goes on, without a commit and with one.
        try compare(stage)
        try stage.commit()
        try compare(stage)
        try noDebris(stage)
        try StressLog.expectNoAlarm(arena)
    }

    /// No half snapshot passes for a whole one.
    private func spoolOffersCommittedStates(_ log: LedgerLog) throws {
        for database in try arena.spool.databases() {
            guard let session = try SpoolCopierSession.open(database), let snapshot = try session.snapshot() else { continue }
            var bytes: [UInt8] = []
            for index in snapshot.chunks.indices {
                if let chunk = try snapshot.chunk(index) {
                    bytes += chunk
                    continue
                }
                // Not spooled, because a target has it: so it must be there.
                let name = snapshot.chunks[index].chunkName
                guard case .found(let body, _) = try arena.store(0).get(GetRequest(.chunks, name, limit: Body.maximumLength)) else {
                    throw Finding("snapshot \(snapshot.point) passes for whole, but chunk \(index) is nowhere")
                }
                bytes += try Body.decodeChunk(
                    body, expecting: snapshot.chunks[index],
                    length: Chunk.length(ofChunk: index, databaseLength: snapshot.state.length))
            }
            try check(bytes, log, "snapshot \(snapshot.point) in the spool", least: -1)
        }
    }

    /// Whatever is stored can be restored, was committed, and isn't older than what was stored before (P2, P3, S5).
    private func storeIsSound(_ target: Int, _ log: LedgerLog, least: Int64) throws {
        guard let image = try StoredImage.read(arena.store(target), arena.manifestName(arena.database(0))) else {
            if least >= 0 { throw Finding("the manifest is gone") }
            return
        }
        try check(image.bytes, log, "what is stored", least: least)
    }

    private func check(_ bytes: [UInt8], _ log: LedgerLog, _ what: String, least: Int64) throws {
        // The first transaction has not changed anything yet, or was rolled back.
        if bytes.isEmpty && log.commits == 0 { return }
        let state: Ledger.State
        do { state = try Ledger.verify(bytes, scratch: arena.side("judge")) } catch { throw Finding("\(what): \(error)") }
        guard log.attempted.contains(state) else { throw Finding("\(what) shows \(state), which nobody committed") }
        guard state.commit >= least else { throw Finding("\(what) shows \(state), older than \(least)") }
    }

    private func compare(_ stage: CrashStage) throws {
        try stage.flush()
        guard let file = try Files.read(stage.ledger.path) else { throw Finding("the database is gone") }
        for target in 0..<scenario.targets {
            guard let image = try StoredImage.read(arena.store(target), arena.manifestName(stage.ledger.path)) else {
                throw Finding("flush answered 1, but nothing is stored")
            }
            if let difference = difference(image.bytes, file) {
                throw Finding("flush answered 1, but what is stored differs: \(difference)")
            }
        }
    }

    /// After the next pass over all of the spool, as each process makes it once a minute.
    private func noDebris(_ stage: CrashStage) throws {
        let failed = stage.replicator.flushAll(timeout: 20)
        if let first = failed.first { throw Finding("flush of all: \(first.path): \(first.reason)") }
        var debris: [String] = []
        for _ in 0..<100 {
            debris = try SpoolUse.debris(arena)
            if debris.isEmpty { break }
            usleep(10_000)
        }
        let store = try Files.list("\(arena.storePath(0))/manifests").filter { $0.hasPrefix(".") }
        guard debris.isEmpty else { throw Finding("debris is left in the spool:\n\(debris.joined(separator: "\n"))") }
        // A store's own leavings go by age (DirectoryStore.prepare).
        guard store.count <= 1 else { throw Finding("debris is left in the store: \(store)") }
        let size = try Files.status(stage.ledger.path)?.size ?? 0
        try SpoolUse.check(arena, bytes: size)
    }
}
