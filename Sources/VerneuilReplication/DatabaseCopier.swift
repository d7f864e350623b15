import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

// One pass over one database, under the copier's lock:
//
//   1. take a whole snapshot that isn't copied (SpoolCopierSession);
//   2. for each target, all at once: PUT the chunks that it isn't known to have,
//      then, when all are stored, the manifest (S5), then write down what it has;
//   3. tell the producers how far we are.
//
// A target that answers doesn't wait for one that doesn't: once one has the
// snapshot, the others get `grace` seconds more; then the pass ends, and a
// straggler keeps the lock (through its reference to the session) and its thread until it is done or has
// failed. It is left out of passes meanwhile. So no manifest is ever written
// without the lock, and those of one target never run backwards (S7).

/// Uploads one database's snapshots from this process. Safe from any thread; one pass at a time.
final class DatabaseCopier: @unchecked Sendable {
    let database: SpoolDatabase
    let replicator: Replicator
    private let notice: CommitNotice
    let options: ReplicationOptions
    let logger: Logger
    private let manifestName: String

    // Guarded by `lock`.
    private let lock = Lock()
    private var isPassing = false
    private var session: SpoolCopierSession?
    private var stragglers: Set<String> = []
    private var lastPass: MonotonicTime?
    private var states: [String: TargetCopier] = [:]
    private var failuresInARow = 0

    /// How long a pass waits for the other targets once one has the snapshot, in seconds.
    static let grace = 10.0

    init(_ database: SpoolDatabase, _ replicator: Replicator, _ notice: CommitNotice) {
        self.database = database
        self.notice = notice
        self.replicator = replicator
        options = replicator.options
        logger = replicator.logger
        manifestName = ManifestName.make(host: replicator.options.hostName, path: database.path)
    }

    enum Outcome {
        case nothingNew
        case copied(SpoolPoint)
        /// Another process has the lock, or another thread of ours passes.
        case busy
        case gone
        case failed([String])
    }

    /// A pass by a worker. Answers after how many seconds another one is wanted; nil: when something happens.
    func backgroundPass() -> Double? {
        let wait = lock.withLock { () -> Double in
            guard let lastPass else { return 0 }
            return options.passInterval - MonotonicTime.now.seconds(since: lastPass)
        }
        if wait > 0.005 { return wait }
        switch pass(.background) {
        case .nothingNew:
            return patrol()
        case .gone:
            return nil
        case .copied:
            // More may have been committed meanwhile; the manifest must not come too soon.
            return options.manifestInterval
        case .busy:
            return 1
        case .failed(let reasons):
            let count = lock.withLock {
                failuresInARow += 1
                return failuresInARow
            }
            logger.warning(
                "replication failed; it will be tried again",
                metadata: ["database": "\(database.path)", "reason": "\(reasons.joined(separator: "; "))"])
            return min(60, options.manifestInterval * Double(1 << min(count, 6)))
        }
    }

    // MARK: - A pass

    private func pass(_ urgency: Urgency) -> Outcome {
        let mayPass = lock.withLock { () -> Bool in
            if isPassing { return false }
            isPassing = true
            lastPass = MonotonicTime.now
            return true
        }
        guard mayPass else { return .busy }
        defer {
            lock.withLock {
                isPassing = false
                if stragglers.isEmpty { session = nil }
                lock.broadcast()
            }
        }
        do throws(SystemError) {
            return try passLocked(urgency)
        } catch {
            return .failed(["\(error)"])
        }
    }

    private func passLocked(_ urgency: Urgency) throws(SystemError) -> Outcome {
        notice.beginsPass()
        let held = lock.withLock { session }
        let opened: SpoolCopierSession?
        if let held { opened = held } else { opened = try SpoolCopierSession.open(database) }
        guard let session = opened else {
            return try database.control() == nil ? .gone : .busy
        }
        lock.withLock { self.session = session }

        // S9: nobody restores a file that isn't there any more, and another one has its own directory.
        let status = try Files.status(database.path)
        if status?.inode != database.inode || status?.device != database.device {
            try session.retire()
            return .gone
        }
        guard let snapshot = try session.snapshot() else {
            try session.removeOldEpochs()
            return try catchUpTargets(session) ? .busy : .nothingNew
        }

        let targets = lock.withLock { replicator.targets.filter { !stragglers.contains($0.identifier) } }
        if targets.isEmpty { return replicator.targets.isEmpty ? .nothingNew : .busy }
        let board = Scoreboard(targets.map(\.identifier))
        for target in targets {
            let copier = targetCopier(target)
            let work: @Sendable () -> Void = { [self] in
                let failure = copier.copy(snapshot, urgency: urgency)
                let isLate = board.report(target.identifier, failure)
                if isLate {
                    lock.withLock {
                        stragglers.remove(target.identifier)
                        if stragglers.isEmpty && !isPassing { self.session = nil }
                    }
                    copyAgainSoon()
                }
            }
            if targets.count == 1 {
                work()
            } else {
                try Threads.spawn("verneuil-put", work)
            }
        }
        let result = board.wait(grace: Self.grace)
        lock.withLock { stragglers.formUnion(result.late) }
        let failures = result.failures.values.sorted() + result.late.map { "target \($0) is slow" }.sorted()
        if result.succeeded > 0 {
            let isEverywhere = result.succeeded == replicator.targets.count
            try session.finish(snapshot.point, everywhere: isEverywhere)
            if isEverywhere { lock.withLock { failuresInARow = 0 } }
        }
        if result.failures.values.contains(where: { $0.contains(TargetCopier.damaged) }), try session.stands(snapshot.point) {
            logger.error(
                "the spool doesn't hold what it should; taking a full snapshot", metadata: ["database": "\(database.path)"])
            forgetAll()
        }
        return failures.isEmpty ? .copied(snapshot.point) : .failed(failures)
    }

    /// What was believed to be stored isn't, or what was staged isn't right: everything is looked at and uploaded afresh.
    func forgetAll() {
        database.forgetStoredChunks()
        lock.withLock { states = [:] }
        do throws(SystemError) { _ = try database.distrust() } catch { replicator.noteFailure(database, error) }
        replicator.needsBuild(database)
    }

    /// Whether some target lacks what others have: then the newest snapshot is due again, for it alone.
    private func catchUpTargets(_ session: SpoolCopierSession) throws(SystemError) -> Bool {
        guard let records = try session.records(), records.isCurrentWhole, records.isCurrentTrusted else { return false }
        let point = records.current.point
        guard point <= records.copier.copied, point > records.copier.everywhere else { return false }
        let lagging = lock.withLock { replicator.targets.filter { !stragglers.contains($0.identifier) } }
            .filter { targetCopier($0).stored != point }
        if lagging.isEmpty {
            if lock.withLock({ stragglers.isEmpty }) { try session.finish(point, everywhere: true) }
            return false
        }
        guard let snapshot = try session.snapshot(at: point) else { return true }
        var failed = false
        for target in lagging {
            if let reason = targetCopier(target).copy(snapshot, urgency: .background) {
                failed = true
                logger.warning(
                    "a target lags behind the others", metadata: ["database": "\(database.path)", "reason": "\(reason)"])
            }
        }
        if !failed && lock.withLock({ stragglers.isEmpty }) { try session.finish(point, everywhere: true) }
        return failed
    }

    private func copyAgainSoon() {
        replicator.copyEngine.schedule(database, after: options.passInterval)
    }

    private func targetCopier(_ target: ReplicationTarget) -> TargetCopier {
        lock.withLock {
            if let known = states[target.identifier] { return known }
            let made = TargetCopier(database, target, manifestName, replicator)
            states[target.identifier] = made
            return made
        }
    }

    // MARK: - Flush

    /// Until everything that is committed now is everywhere, or it's sure that it won't be. nil, or why not.
    func flush(deadline: MonotonicTime) -> String? {
        var wanted: SpoolPoint?
        var lastReason = "nothing was tried"
        var failures = 0
        while true {
            do throws(SystemError) {
                if wanted == nil {
                    switch try settle(deadline) {
                    case .success(let point): wanted = point
                    case .failure(let reason): return reason.text
                    }
                }
                if let point = wanted, let records = try database.control() {
                    if records.isOvertaken {
                        wanted = nil
                        continue
                    }
                    if records.copier.everywhere >= point { return nil }
                }
            } catch {
                return "\(error)"
            }
            if MonotonicTime.now >= deadline { return "out of time; last: \(lastReason)" }
            switch pass(.flush) {
            case .copied: lastReason = "more was committed meanwhile"
            case .nothingNew:
                lastReason = "the snapshot is not complete"
                usleep(20_000)
            case .gone: return "\(database.path) is gone, or replaced by another file"
            case .busy:
                lastReason = "another copier is at work"
                usleep(20_000)
            case .failed(let reasons):
                lastReason = reasons.joined(separator: "; ")
                failures += 1
                if failures >= 3 { return lastReason }
                usleep(200_000)
            }
        }
    }

    private struct Refusal: Error { var text: String }

    /// The point to which everything that is committed now belongs, made whole. Runs the builder where it isn't.
    private func settle(_ deadline: MonotonicTime) throws(SystemError) -> Result<SpoolPoint, Refusal> {
        var openSince: (begun: SpoolPoint, since: MonotonicTime)?
        while true {
            var isDead = false
            if let records = try database.control(), records.producer.isOpen, !records.hasProposal {
                let begun = SpoolPoint(records.producer.staged.epoch, records.producer.begun)
                if openSince?.begun != begun { openSince = (begun, MonotonicTime.now) }
                isDead = openSince.map { MonotonicTime.now.seconds(since: $0.since) > 1 } ?? false
            }
            let outcome: SpoolBuilder.Outcome
            do throws(SystemError) {
                outcome = try SpoolBuilder(database).run(
                    deadline: min(deadline, MonotonicTime.now.advanced(seconds: 1)), openIsDead: isDead,
                    isStored: replicator.knownChunks(database))
            } catch {
                if error.code == ENOENT || error.code == ESTALE {
                    return .failure(Refusal(text: "\(database.path) is gone, or replaced by another file"))
                }
                throw error
            }
            if case .whole = outcome, let records = try database.control(), records.isCurrentWhole {
                return .success(records.current.point)
            }
            // Commits go on: what is staged and whole by now includes all that was committed before the call,
            // once a transaction that began after it is staged.
            if let records = try database.control(), records.isCurrentWhole, !records.hasProposal, !records.isOvertaken,
                let openSince, records.producer.staged >= openSince.begun
            {
                return .success(records.producer.staged)
            }
            if MonotonicTime.now >= deadline {
                return .failure(Refusal(text: "the database is being written, or has a hot journal (\(outcome))"))
            }
            if outcome != .more { usleep(10_000) }
        }
    }
}

/// Who of a pass's targets has answered.
private final class Scoreboard: @unchecked Sendable {
    struct Result {
        var succeeded = 0
        var failures: [String: String] = [:]
        var late: Set<String> = []
    }
    private let lock = Lock()
    private var result = Result()
    private var firstSuccess: MonotonicTime?
    private var isOver = false
    private var pending: Set<String>

    init(_ targets: [String]) { pending = Set(targets) }

    /// True where nobody waits for this any more.
    func report(_ id: String, _ failure: String?) -> Bool {
        lock.withLock {
            if isOver { return true }
            pending.remove(id)
            if let failure {
                result.failures[id] = failure
            } else {
                result.succeeded += 1
                if firstSuccess == nil { firstSuccess = MonotonicTime.now }
            }
            lock.broadcast()
            return false
        }
    }

    func wait(grace: Double) -> Result {
        lock.withLock {
            while !pending.isEmpty {
                if let firstSuccess {
                    let until = firstSuccess.advanced(seconds: grace)
                    if MonotonicTime.now >= until { break }
                    lock.wait(until: until)
                } else {
                    lock.wait()
                }
            }
            isOver = true
            result.late = pending
            return result
        }
    }
}
