import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// The process that replicates, and orders others to write.
final class ForeignRun {
    private let arena: Arena
    private let path: String
    private let ledger: Ledger
    private var random: SeededGenerator
    /// Open all the time, also while others write.
    private var connection: Connection
    private let replicator: Replicator
    private let sampler: StoreSampler
    /// Contents that the database had when nobody was in the middle of something.
    private var states: Set<Fingerprint> = []
    private var history: [String] = []
    private var figures = Figures()

    init(arena: Arena, random: SeededGenerator) throws {
        self.arena = arena
        self.random = random
        path = arena.database(0)
        ledger = Ledger(path, in: arena)
        replicator = Replicator(
            spool: arena.spool, targets: [ReplicationTarget(arena.store(0))], options: Arena.options(),
            logger: StressLog.logger(arena))
        try VFSs.install(replicator)
        connection = try Connection(path, vfs: "verneuil")
        try ledger.create(connection, items: 100)
        sampler = StoreSampler(arena.store(0), arena.manifestName(path))
    }

    private enum Deed: String, CaseIterable {
        case ownCommit, ownVacuum
        case commit, transfer, tag, tagAndCommit, backup, wal, walAndBack, crash
        case shell, overwrite, overwriteAtOnce, replace, replaceByOwn, recreate, recreateByOwn, moveAwayAndBack, hardLink, cut
    }

    func play(steps: Int) throws -> Figures {
        // A file without content is a database, too: `cut` and `recreateByOwn` leave one for a moment.
        states.insert(FingerprintKey.chunk.fingerprint([]))
        try sampler.start()
        try record()
        try waitUntilStored()
        // Each of them once, then whatever comes.
        let first = Deed.allCases.shuffled(using: &random)
        for step in 0..<steps {
            Watchdog.shared.pet()
            let all = Deed.allCases
            let deed = step < first.count ? first[step] : all[Int.random(in: 0..<all.count, using: &random)]
            history.append(deed.rawValue)
            do {
                try perform(deed)
                try record()
                try notice(deed)
                let stored = try sampler.take()
                for state in stored where !states.contains(state) {
                    throw Finding("P2: something was stored that \(path) has never been")
                }
            } catch {
                throw Finding("\(error)\nafter \(history.suffix(6).joined(separator: ", "))")
            }
            figures.note(deed.rawValue, 1)
        }
        let stored = try sampler.stop()
        for state in stored where !states.contains(state) {
            throw Finding("P2: something was stored that \(path) has never been, in: \(history.joined(separator: ", "))")
        }
        figures.note("steps", steps)
        figures.note("sampled", sampler.count)
        return figures
    }

    private func content() throws -> [UInt8] {
        guard let bytes = try Files.read(path) else { throw Finding("\(path) is gone") }
        return bytes
    }

    private func record() throws { states.insert(FingerprintKey.chunk.fingerprint(try content())) }

    private func hand(_ deed: ForeignHand.Deed, on path: String? = nil) throws {
        let child = try Child.start([
            "foreign-hand", deed.rawValue, "--arena", arena.root, "--path", path ?? self.path, "--seed", "\(random.next())",
        ])
        let said = child.text()
        let status = child.wait()
        // SIGKILL is what was asked for.
        guard status == 0 || (deed == .crash && status == SIGKILL) else {
            throw Finding("\(deed) by another process ended with \(status): \(said)")
        }
    }

    private func run(_ program: String, _ arguments: [String]) throws {
        let child = try Child.start(arguments, program: program)
        let said = child.text()
        guard child.wait() == 0 else { throw Finding("\(program) \(arguments) failed: \(said)") }
    }

    // MARK: - What happens

    private func perform(_ deed: Deed) throws {
        switch deed {
        case .ownCommit: try ledger.commit(connection, &random)
        case .ownVacuum: try connection.rows("VACUUM")
        case .commit: try hand(.commit)
        case .transfer: try hand(.transfer)
        case .tag: try hand(.tag)
        case .tagAndCommit: try hand(.tagAndCommit)
        case .backup: try hand(.backup)
        case .wal: try hand(.wal)
        case .walAndBack:
            try hand(.walStays)
            // Nothing of ours can use it now; whoever tries must do no harm.
            _ = try? connection.rows("SELECT count(*) FROM item")
            _ = try? Connection(path, vfs: "verneuil").rows("SELECT count(*) FROM item")
            usleep(UInt32.random(in: 0...60_000, using: &random))
            try hand(.walEnds)
        case .crash: try crash()
        case .shell:
            guard vrn_access("/usr/bin/sqlite3", X_OK) == 0 else { return }
            try run("/usr/bin/sqlite3", ["-cmd", ".timeout 30000", path, "PRAGMA user_version=\(Int.random(in: 0...1 << 30, using: &random))"])
        case .overwrite: try overwrite(after: 30_000)
        case .overwriteAtOnce: try overwrite(after: 0)
        case .replace: try replace { try self.hand(.commit, on: $0) }
        case .replaceByOwn:
            try replace { other in
                var ledger = self.ledger
                ledger.path = other
                try ledger.commit(Connection(other, vfs: "verneuil"), &self.random)
            }
        case .recreate:
            try remove()
            try hand(.create)
            connection = try Connection(path, vfs: "verneuil")
        case .recreateByOwn:
            try remove()
            connection = try Connection(path, vfs: "verneuil")
            try ledger.create(connection, items: 30)
        case .moveAwayAndBack:
            try Files.rename(path, to: arena.side("away.db"))
            usleep(UInt32.random(in: 0...30_000, using: &random))
            try Files.rename(arena.side("away.db"), to: path)
        case .hardLink: try hardLink()
        case .cut:
            // As `: > app.db` does. Then somebody begins anew in the same file.
            connection = try Connection(":memory:", vfs: "unix")
            try Descriptor(path, O_WRONLY).truncate(to: 0)
            try hand(.create)
            connection = try Connection(path, vfs: "verneuil")
        }
    }

    /// A process died in the middle of a transaction; somebody of ours rolls it back.
    private func crash() throws {
        let state = try Ledger.verify(connection)
        let before = try content()
        try hand(.crash)
        guard try Files.status(path + "-journal") != nil else { throw Finding("the crash left no journal") }
        if difference(try content(), before) == nil { throw Finding("the crash left no trace") }
        // Time for whoever might take it for a state.
        usleep(UInt32.random(in: 0...80_000, using: &random))
        let after = try Ledger.verify(connection)
        // Not the bytes: what a transaction writes to pages that were free isn't put back.
        guard after == state else { throw Finding("rolled back to \(after) instead of \(state)") }
    }

    /// cp over the file: the same length and the same change counter, but another history.
    private func overwrite(after microseconds: UInt32) throws {
        let other = arena.side("other.db")
        try run("/bin/cp", [path, other])
        try hand(.transfer, on: other)
        let amount = Int.random(in: 1...1_000_000, using: &random)
        try connection.rows(
            "BEGIN; UPDATE account SET balance=balance-\(amount) WHERE id=3; UPDATE account SET balance=balance+\(amount) WHERE id=4; COMMIT")
        try record()
        let mine = try content()
        guard let theirs = try Files.read(other), theirs.count == mine.count, theirs[24..<28] == mine[24..<28], theirs != mine
        else { throw Finding("the files were meant to differ, but not in length and change counter") }
        usleep(microseconds)
        try run("/bin/cp", [other, path])
    }

    /// mv over the file, while a connection has it open.
    private func replace(_ change: (String) throws -> Void) throws {
        let other = arena.side("other.db")
        try? Files.remove(other)
        try run("/bin/cp", [path, other])
        try change(other)
        try run("/bin/mv", [other, path])
        if Bool.random(using: &random) {
            // A connection to the old file: it finds out, or reads what isn't there any more; it must not do harm.
            _ = try? connection.rows("SELECT count(*) FROM item")
            _ = try? ledger.commit(connection, &random)
            connection.rollBack()
        }
        connection = try Connection(path, vfs: "verneuil")
    }

    private func remove() throws {
        let keepsOpen = Bool.random(using: &random)
        if !keepsOpen { connection = try Connection(":memory:", vfs: "unix") }
        try Files.remove(path)
        try? Files.remove(path + "-journal")
        usleep(UInt32.random(in: 0...40_000, using: &random))
        if keepsOpen { connection = try Connection(":memory:", vfs: "unix") }
    }

    /// Two names of one file, both used with our VFS.
    private func hardLink() throws {
        let other = arena.database(1)
        try SystemError.check(vrn_link(path, other), "link", other)
        do {
            let second = try Connection(other, vfs: "verneuil")
            var theirs = ledger
            theirs.path = other
            try theirs.commit(second, &random)
            try record()
            // The first name's turn: its connection sees that somebody wrote.
            try ledger.commit(connection, &random)
            try record()
            try second.rows("SELECT count(*) FROM item")
            try waitUntilStored(path: other)
        }
        try Files.remove(other)
    }

    // MARK: - What must follow

    /// The next transaction, of whatever kind, notices; or a flush does.
    private func notice(_ deed: Deed) throws {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: try connection.rows("SELECT count(*) FROM sqlite_schema")
        case 1:
            try ledger.commit(connection, &random)
            try record()
        case 2: try Connection(path, vfs: "verneuil").rows("SELECT count(*) FROM sqlite_schema")
        default:
            let answer = try connection.value("PRAGMA verneuil_flush_replication_data")
            guard answer == "1" else { throw Finding("flush after \(deed) answered \(answer)") }
            guard let image = try StoredImage.read(arena.store(0), arena.manifestName(path)) else {
                throw Finding("flush after \(deed) answered 1, but nothing is stored")
            }
            if let difference = difference(image.bytes, try content()) {
                throw Finding("flush after \(deed) answered 1, but what is stored differs: \(difference)")
            }
        }
        try waitUntilStored()
    }

    /// In the background, without anybody's asking.
    private func waitUntilStored(path: String? = nil) throws {
        let path = path ?? self.path
        guard let file = try Files.read(path) else { throw Finding("\(path) is gone") }
        let start = MonotonicTime.now
        var last = "there is no manifest"
        while MonotonicTime.now.seconds(since: start) < 30 {
            if let image = try StoredImage.read(arena.store(0), arena.manifestName(path)) {
                guard let difference = difference(image.bytes, file) else { return }
                last = difference
            }
            usleep(3000)
        }
        throw Finding("30 s later \(path) is not stored as it is: \(last)")
    }
}

/// Restores whatever a store offers, all the time, and keeps the contents' fingerprints.
final class StoreSampler: @unchecked Sendable {
    private let store: any ObjectStore
    private let name: String
    private let lock = Lock()
    private var seen: [Fingerprint] = []
    private var taken = 0
    private var failure: (any Error)?
    private var wantsEnd = false
    private var hasEnded = true

    init(_ store: any ObjectStore, _ name: String) {
        self.store = store
        self.name = name
    }

    var count: Int { lock.withLock { seen.count } }

    func start() throws {
        lock.withLock { hasEnded = false }
        try Threads.spawn("sampler", stackBytes: 8 << 20) { [self] in
            do {
                while !lock.withLock({ wantsEnd }) {
                    if let image = try StoredImage.read(store, name) {
                        let print = FingerprintKey.chunk.fingerprint(image.bytes)
                        lock.withLock { if seen.last != print { seen.append(print) } }
                    }
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

    /// What was seen since the last call; throws where there was something that can't be restored.
    func take() throws -> [Fingerprint] {
        try lock.withLock {
            if let failure { throw failure }
            defer { taken = seen.count }
            // A copy: the array's own storage is the other thread's.
            return seen[taken...].map(\.self)
        }
    }

    func stop() throws -> [Fingerprint] {
        lock.withLock {
            wantsEnd = true
            while !hasEnded { lock.wait() }
        }
        return try take()
    }
}
