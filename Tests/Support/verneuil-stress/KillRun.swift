import CVerneuil
import FormatTestSupport
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// The parent of a kill run: it starts processes, ends them, and judges what is left.
final class KillRun {
    private let arena: Arena
    private let ledger: Ledger
    private let replicator: Replicator
    private var random: SeededGenerator
    private var writers: [Child?]
    private var copiers: [Child?]
    private var log: LedgerLog
    private let reader: StoreReader
    private var figures = Figures()
    private var slowestFlush = 0.0

    init(arena: Arena, writers: Int, copiers: Int, random: SeededGenerator) throws {
        self.arena = arena
        self.random = random
        self.writers = Array(repeating: nil, count: writers)
        self.copiers = Array(repeating: nil, count: copiers)
        ledger = Ledger(arena.database(0), in: arena)
        log = LedgerLog(ledger)
        replicator = Replicator(
            spool: arena.spool, targets: [ReplicationTarget(arena.store(0))], options: Arena.options(),
            logger: StressLog.logger(arena))
        try VFSs.install(replicator)
        let connection = try Connection(ledger.path, vfs: "verneuil")
        try ledger.create(connection, items: 120)
        reader = StoreReader(arena.store(0), arena.manifestName(ledger.path), scratch: arena.side("reader"))
        figures.note("writers", writers)
        figures.note("copiers", copiers)
    }

    func play(kills: Int) throws -> Figures {
        try reader.start()
        for i in writers.indices { writers[i] = try startWriter() }
        for i in copiers.indices { copiers[i] = try startCopier() }
        var done = 0
        while done < kills {
            Watchdog.shared.pet()
            usleep(UInt32.random(in: 1000...60_000, using: &random))
            let stopped = stopSomeCopier()
            if Bool.random(using: &random) || copiers.isEmpty {
                let i = Int.random(in: 0..<writers.count, using: &random)
                try end(writers[i])
                try judge(stopped)
                writers[i] = try startWriter()
            } else {
                let i = Int.random(in: 0..<copiers.count, using: &random)
                try end(copiers[i])
                try judge(stopped)
                copiers[i] = try startCopier()
            }
            done += 1
            if done % 10 == 0 || done == kills { done += try judgeAtRest(startAgain: done < kills) }
        }
        figures.note("kills", done)
        figures.note("commits", log.commits)
        figures.note("restores", try reader.stop().count)
        figures.note("slowest-flush-ms", Int(slowestFlush * 1000))
        try StressLog.expectNoAlarm(arena)
        return figures
    }

    private func startWriter() throws -> Child {
        try Child.start(["kill-writer", "--arena", arena.root, "--seed", "\(random.next())"])
    }

    private func startCopier() throws -> Child { try Child.start(["kill-copier", "--arena", arena.root]) }

    /// Kills it; throws where it had ended by itself: then it found something.
    private func end(_ child: Child?) throws {
        guard let child else { return }
        guard child.isRunning else { throw Finding("process \(child.pid) ended by itself:\n\(child.text())") }
        child.stop(SIGKILL)
    }

    /// Sometimes a copier is stopped for a while, perhaps while it holds the lock. nil: none is.
    private func stopSomeCopier() -> Child? {
        guard !copiers.isEmpty, Int.random(in: 0..<4, using: &random) == 0,
            let child = copiers[Int.random(in: 0..<copiers.count, using: &random)]
        else { return nil }
        child.send(SIGSTOP)
        figures.note("stops", 1)
        usleep(UInt32.random(in: 1000...50_000, using: &random))
        return child
    }

    // MARK: - Judgements

    /// After a kill, while the others go on.
    private func judge(_ stopped: Child?) throws {
        // The database opens, and is whole: whoever opens it first rolls back what the dead process left.
        let connection = try Connection(ledger.path, vfs: "verneuil")
        connection.waitForLocks(milliseconds: 60_000)
        // The log first: other writers commit meanwhile.
        try log.update()
        let committed = log.committed
        let live = try Ledger.verify(connection)
        try log.update()
        guard live.commit >= committed || log.commits == 0 else {
            throw Finding("\(ledger.path) shows \(live), but commit \(committed) had succeeded")
        }
        // What a stopped copier keeps others from is documented (docs/SPOOL.md, caveats).
        stopped?.send(SIGCONT)
        try flush(connection, atLeast: log.committed)
        try prove(connection)
    }

    /// After a kill of all processes: nobody but us is at work.
    private func judgeAtRest(startAgain: Bool) throws -> Int {
        let all = (writers + copiers).compactMap { $0 }
        for child in all { child.send(SIGKILL) }
        for child in all { child.wait() }
        let connection = try Connection(ledger.path, vfs: "verneuil")
        connection.waitForLocks(milliseconds: 60_000)
        _ = try Ledger.verify(connection)
        try log.update()
        try connection.rows("BEGIN; SELECT * FROM meta")
        try flush(connection, atLeast: log.committed)
        guard let file = try Files.read(ledger.path),
            let image = try StoredImage.read(arena.store(0), arena.manifestName(ledger.path))
        else { throw Finding("\(ledger.path) or its manifest is gone") }
        if let difference = difference(image.bytes, file) {
            throw Finding("what is stored against \(ledger.path): \(difference)")
        }
        connection.rollBack()
        try prove(connection)
        // Our own builder and copier may be in the middle of something.
        var debris: [String] = []
        for _ in 0..<40 {
            debris = try SpoolUse.debris(arena)
            if debris.isEmpty { break }
            usleep(50_000)
        }
        guard debris.isEmpty else { throw Finding("debris is left in the spool:\n\(debris.joined(separator: "\n"))") }
        try SpoolUse.check(arena, bytes: Int64(file.count))
        figures.note("rests", 1)
        guard startAgain else {
            writers = []
            copiers = []
            return all.count
        }
        for i in writers.indices { writers[i] = try startWriter() }
        for i in copiers.indices { copiers[i] = try startCopier() }
        return all.count
    }

    private func flush(_ connection: Connection, atLeast commit: Int64) throws {
        let start = MonotonicTime.now
        let answer = try connection.value("PRAGMA verneuil_flush_replication_data")
        slowestFlush = max(slowestFlush, MonotonicTime.now.seconds(since: start))
        guard answer == "1" else { throw Finding("flush answered \(answer)") }
        figures.note("flushes", 1)
        guard let image = try StoredImage.read(arena.store(0), arena.manifestName(ledger.path)) else {
            throw Finding("flush succeeded, but there is no manifest")
        }
        let stored = try Ledger.verify(image.bytes, scratch: arena.side("judge"))
        guard stored.commit >= commit else {
            throw Finding("flush succeeded after commit \(commit), but what is stored shows \(stored)")
        }
        reader.note(stored)
    }

    /// P2: every state that was ever restored is in the chain of what was committed.
    private func prove(_ connection: Connection) throws {
        // First what was seen, then what was attempted by then: a writer that commits in between has the other order.
        let states = try reader.take()
        try log.update()
        for state in states {
            guard log.attempted.contains(state) else { throw Finding("P2: restored \(state), which nobody committed") }
            let live = try connection.rows("SELECT hex(tip) FROM chain WHERE n=\(state.commit)")
            guard live == [[state.tip]] else {
                throw Finding("P2: restored \(state), but commit \(state.commit) of the database is \(live)")
            }
        }
        figures.note("proven", states.count)
    }
}

/// Restores whatever a store offers, all the time, and remembers what it saw.
final class StoreReader: @unchecked Sendable {
    private let store: any ObjectStore
    private let name: String
    private let scratch: String
    private let lock = Lock()
    private var seen: [Ledger.State] = []
    private var taken = 0
    private var failure: (any Error)?
    private var wantsEnd = false
    private var hasEnded = true

    init(_ store: any ObjectStore, _ name: String, scratch: String) {
        self.store = store
        self.name = name
        self.scratch = scratch
    }

    func start() throws {
        lock.withLock { hasEnded = false }
        try Threads.spawn("reader", stackBytes: 8 << 20) { [self] in
            do {
                var newest: Ledger.State?
                while !lock.withLock({ wantsEnd }) {
                    guard let image = try StoredImage.read(store, name) else {
                        usleep(1000)
                        continue
                    }
                    let state = try Ledger.verify(image.bytes, scratch: scratch)
                    if let newest, state.commit < newest.commit || (state.commit == newest.commit && state != newest) {
                        throw Finding("P3: restored \(newest), and after that \(state)")
                    }
                    if state != newest { lock.withLock { seen.append(state) } }
                    newest = state
                    usleep(500)
                }
            } catch {
                lock.withLock { failure = error }
            }
            lock.withLock {
                hasEnded = true
                lock.broadcast()
            }
        }
    }

    /// Somebody else restored this.
    func note(_ state: Ledger.State) { lock.withLock { seen.append(state) } }

    /// What was restored since the last call; throws where that found something.
    func take() throws -> [Ledger.State] {
        try lock.withLock {
            if let failure { throw failure }
            defer { taken = seen.count }
            return Array(seen[taken...])
        }
    }

    /// All that was ever restored.
    func stop() throws -> [Ledger.State] {
        try lock.withLock {
            wantsEnd = true
            while !hasEnded { lock.wait() }
            if let failure { throw failure }
            return seen
        }
    }
}
