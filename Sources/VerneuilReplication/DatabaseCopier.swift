import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

// What the targets of one database share in one process:
//
// - the copier's lock. The first target that works takes it, the last one gives
//   it back. So no manifest is ever written without the lock, and those of one target never run backwards (S7).
// - how far producers may go on. `copied` is what lets them overwrite a
//   snapshot. It advances when every target has a snapshot that works on it, or `claim` seconds
//   after the first one had it: a target that is down, or much slower than the
//   others, holds nobody up, and finds a newer snapshot when it comes.

/// Uploads one database's snapshots from this process, to all targets. Safe from any thread.
final class DatabaseCopier: @unchecked Sendable {
    let database: SpoolDatabase
    let replicator: Replicator
    let manifestName: String
    private let notice: CommitNotice
    private(set) var targets: [TargetCopier] = []

    // Guarded by `lock`.
    private let lock = Lock()
    private var session: SpoolCopierSession?
    private var users = 0
    /// The newest point that some target has, and since when.
    private var newest: (point: SpoolPoint, since: MonotonicTime)?

    /// Held while something is written that all targets share, the copier's record and the tap: each is read, or
    /// compared, first, and must not go back. Other processes are kept out by the copier's lock.
    private let shared = Lock()
    /// Of the manifest in the tap. Guarded by `shared`.
    private var tapped = SpoolPoint.none

    /// - Parameter recent: for each target what it is known to have got lately.
    init(_ database: SpoolDatabase, _ replicator: Replicator, _ notice: CommitNotice, _ recent: [RecentChunks]) {
        self.database = database
        self.notice = notice
        self.replicator = replicator
        manifestName = ManifestName.make(host: replicator.options.hostName, path: database.path)
        targets = zip(replicator.targets, recent).map { TargetCopier($0, self, $1) }
    }

    /// Whether some target has work under way.
    var isHeld: Bool { lock.withLock { users > 0 } }

    /// Runs `body` under the copier's lock, which it shares with this process's other targets.
    func withSession(
        _ body: (SpoolCopierSession) throws(SystemError) -> TargetCopier.Outcome
    ) throws(SystemError) -> TargetCopier.Outcome {
        switch try enter() {
        case .refused(let outcome): return outcome
        case .entered(let session):
            defer { leave() }
            return try body(session)
        }
    }

    /// The same for what has another result; nil where the lock isn't to be had.
    func withSessionIfFree<T>(_ body: (SpoolCopierSession) throws(SystemError) -> T?) throws(SystemError) -> T? {
        guard case .entered(let session) = try enter() else { return nil }
        defer { leave() }
        return try body(session)
    }

    private enum Entry {
        case entered(SpoolCopierSession)
        case refused(TargetCopier.Outcome)
    }

    private func enter() throws(SystemError) -> Entry {
        notice.beginsPass()
        return try enterLocked()
    }

    private func enterLocked() throws(SystemError) -> Entry {
        try lock.withLock { () throws(SystemError) in
            let opened: SpoolCopierSession?
            if let session { opened = session } else { opened = try SpoolCopierSession.open(database) }
            guard let opened else { return .refused(try database.control() == nil ? .gone : .busy) }
            // S9: nobody restores a file that isn't there any more, and another one has its own directory.
            switch try database.presence() {
            case .here: break
            case .unseen(let reason):
                guard let idle = try opened.records()?.idleSeconds(at: replicator.options.uptime()), idle > Self.keptUnseen else {
                    replicator.noteUnseen(database, reason)
                    return .refused(.unseen(reason))
                }
                fallthrough
            case .gone:
                let isPending = try opened.records()?.pendingSince != nil
                if users == 0, try opened.retire(manifestName: manifestName) { replicator.noteRetired(database, wasStored: !isPending) }
                return .refused(.gone)
            }
            session = opened
            users += 1
            return .entered(opened)
        }
    }

    /// How long what is spooled of a database is kept that can't be seen, in seconds without a commit or an upload: somebody may
    /// see it who has not run for a while.
    static let keptUnseen = 86_400.0

    /// S9, for who doesn't pass over the database first: removes what is spooled of a file that is gone. `.here` also where
    /// another copier is at work, who removes it.
    func retireIfGone() throws(SystemError) -> SpoolDatabase.Presence {
        let presence = try database.presence()
        if presence == .here { return .here }
        switch try enter() {
        case .refused(.gone): return .gone(isReplaced: false)
        case .refused(.unseen(let reason)): return .unseen(reason)
        case .refused:
            if case .unseen = presence { return presence }
            return .here
        case .entered:
            leave()
            return .here
        }
    }

    private func leave() {
        lock.withLock {
            users -= 1
            if users == 0 { session = nil }
        }
    }

    /// Keeps the manifest of a snapshot that a target has now, unless another one had a newer one before. Under the copier's lock.
    func keepTap(_ point: SpoolPoint, _ body: [UInt8]) {
        shared.withLock {
            // Other processes', too.
            let newest = database.targetRecords().values.map(\.stored).max() ?? .none
            if point < max(tapped, newest) { return }
            do throws(SystemError) {
                try database.spool.setTap(manifestName, body)
                tapped = point
            } catch {
                replicator.noteFailure(database, error)
            }
        }
    }

    /// Tells producers how far the targets are. Under the copier's lock.
    func noteProgress(_ session: SpoolCopierSession) throws(SystemError) {
        shared.lock()
        defer { shared.unlock() }
        let records = database.targetRecords()
        let stored = targets.map { ($0, records[$0.target.identifier]?.stored ?? .none) }
        guard let best = stored.map(\.1).max() else { return }
        let now = MonotonicTime.now
        let since = lock.withLock { () -> MonotonicTime in
            if let newest, newest.point == best { return newest.since }
            newest = (best, now)
            return now
        }
        let age = now.seconds(since: since)
        var copied = best
        for (target, point) in stored where point < best {
            if let claim = target.claim(records[target.target.identifier]), age < claim { copied = min(copied, point) }
        }
        var everywhere = stored.map(\.1).min() ?? .none
        // Other programs may have other targets: those count while somebody tries.
        let mine = Set(targets.map(\.target.identifier))
        for (id, record) in records where !mine.contains(id) {
            let age = Double(wallClock().seconds) - Double(record.written) / 1e9
            if abs(age) < 3600 { everywhere = min(everywhere, record.stored) }
        }
        try session.advance(copied: copied, everywhere: everywhere)
    }

    /// The newest snapshot doesn't serve (any more). False: nobody was told, since a builder is at work.
    @discardableResult
    func takeFullSnapshot() -> Bool {
        var isTold = false
        do throws(SystemError) { isTold = try database.distrust() } catch { replicator.noteFailure(database, error) }
        replicator.needsBuild(database)
        return isTold
    }

    /// What was believed to be stored isn't, or what was staged isn't right: everything is looked at and uploaded afresh.
    /// - Parameter target: where; nil: everywhere.
    func forget(_ target: TargetCopier?) {
        database.forgetStoredChunks(target?.target.identifier)
        for each in targets where target == nil || each === target { each.forget() }
        takeFullSnapshot()
    }

    // MARK: - Flush

    /// Until everything that is committed now is on every target, or it's sure that it won't be. nil, or why not.
    func flush(deadline: MonotonicTime) -> FlushFailure? {
        if targets.isEmpty { return FlushFailure(.noTarget, "no replication target is configured") }
        let mark = WriterMark(replicator.options.identity, device: database.device, inode: database.inode)
        while true {
            do throws(SystemError) {
                switch try settle(deadline) {
                case .success(let wanted):
                    let failures = flush(wanted, mark, deadline)
                    if failures.isEmpty { return nil }
                    // Another epoch has begun meanwhile, whose points don't compare with what was wanted.
                    if !failures.contains(TargetCopier.overtakenEpoch) { return FlushFailure.all(failures) }
                case .failure(let failure): return failure
                }
            } catch {
                return FlushFailure(.notStored, "\(error)")
            }
            if MonotonicTime.now >= deadline { return FlushFailure(.timedOut, "out of time") }
        }
    }

    /// On all targets at once. Answers why not, of each that failed.
    private func flush(_ wanted: SpoolPoint, _ mark: WriterMark, _ deadline: MonotonicTime) -> [FlushFailure] {
        if targets.count == 1, let only = targets.first {
            return only.flush(wanted, mark, deadline: deadline).map { [$0] } ?? []
        }
        let board = Answers(targets.count)
        for (i, target) in targets.enumerated() {
            do throws(SystemError) {
                try Threads.spawn("verneuil-flush") { board.put(i, target.flush(wanted, mark, deadline: deadline)) }
            } catch {
                board.put(i, FlushFailure(.notStored, "\(error)"))
            }
        }
        return board.take().compactMap(\.self)
    }

    /// Seconds that a journal which nobody is at work on is waited for: a program that starts again rolls it back.
    static let patienceForJournals = 5.0

    private var hotJournal: FlushFailure {
        FlushFailure(
            .hotJournal,
            "a transaction was interrupted and is not rolled back: \(SourceLocks.journal(database.path)) is left of it; "
                + "open the database once with SQLite (sqlite3 FILE \"SELECT 1 FROM sqlite_schema\"), and flush again")
    }

    /// The point to which everything that is committed now belongs, made whole. Runs the builder where it isn't.
    private func settle(_ deadline: MonotonicTime) throws(SystemError) -> Result<SpoolPoint, FlushFailure> {
        var openSince: (begun: SpoolPoint, since: MonotonicTime)?
        // Whatever was committed before the call came before this transaction.
        var first: SpoolPoint?
        var left: (journal: FileStatus, since: MonotonicTime)?
        while true {
            var isDead = false
            if let records = try database.control(), records.producer.isOpen, !records.hasProposal {
                let begun = SpoolPoint(records.producer.staged.epoch, records.producer.begun)
                if openSince?.begun != begun { openSince = (begun, MonotonicTime.now) }
                first = first ?? begun
                isDead = openSince.map { MonotonicTime.now.seconds(since: $0.since) > 1 } ?? false
            }
            let outcome: SpoolBuilder.Outcome
            do throws(SystemError) {
                outcome = try SpoolBuilder(database).run(
                    deadline: min(deadline, MonotonicTime.now.advanced(seconds: 1)), openIsDead: isDead,
                    isStored: replicator.knownChunks(database))
            } catch {
                if error.code == ENOENT || error.code == ESTALE {
                    return .failure(FlushFailure(.noDatabase, "\(database.path) is gone, or replaced by another file"))
                }
                throw error
            }
            if case .whole = outcome, let records = try database.control(), records.isCurrentWhole {
                return .success(records.current.point)
            }
            // Commits go on: what is staged and whole by now includes all that was committed before the call,
            // once a transaction that was open then, or began later, is staged.
            if let records = try database.control(), records.isCurrentWhole, !records.hasProposal, !records.isOvertaken,
                records.producer.staged.epoch > records.builder.distrusted, let first, records.producer.staged >= first
            {
                return .success(records.producer.staged)
            }
            // No waiting helps; nor does it with a hot journal, unless somebody opens the database soon.
            if case .unsettled = outcome {
                if try database.isInWALMode() {
                    return .failure(
                        FlushFailure(
                            .walMode, "the database is in WAL mode, which is not replicated: run \"PRAGMA journal_mode=DELETE\" on it with another VFS"))
                }
                let journal = try database.abandonedJournal()
                if let journal, let left, left.journal.inode == journal.inode, left.journal.modified == journal.modified {
                    if MonotonicTime.now.seconds(since: left.since) >= Self.patienceForJournals { return .failure(hotJournal) }
                } else {
                    left = journal.map { ($0, MonotonicTime.now) }
                }
            } else {
                left = nil
            }
            if MonotonicTime.now >= deadline {
                if left != nil { return .failure(hotJournal) }
                return .failure(
                    FlushFailure(
                        .timedOut, "the database was being written all the time (\(outcome)): end the transaction that is open on it, and flush again"))
            }
            if outcome != .more { Threads.pause(microseconds: 10_000) }
        }
    }
}

/// What several threads answer.
private final class Answers: @unchecked Sendable {
    private let lock = Lock()
    private var answers: [FlushFailure?]
    private var missing: Int

    init(_ count: Int) {
        answers = Array(repeating: nil, count: count)
        missing = count
    }
    func put(_ index: Int, _ answer: FlushFailure?) {
        lock.withLock {
            answers[index] = answer
            missing -= 1
            lock.broadcast()
        }
    }
    func take() -> [FlushFailure?] {
        lock.withLock {
            while missing > 0 { lock.wait() }
            return answers
        }
    }
}
