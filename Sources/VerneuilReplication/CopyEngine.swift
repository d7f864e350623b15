import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// A process's background work: one thread that makes full snapshots and looks after everything once a scan, and for
/// each target a queue with its own threads. All start with the first need of them.
final class CopyEngine: @unchecked Sendable {
    /// Keeps it: threads look at it for as long as the process lives.
    let replicator: Replicator
    private let options: ReplicationOptions
    private let logger: Logger

    private let lock = Lock()
    // Guarded by `lock`.
    private var copiers: [SpoolDatabase: DatabaseCopier] = [:]
    private var notices: [SpoolDatabase: CommitNotice] = [:]
    private var queues: [TargetQueue] = []
    private var isFirstScan = true
    /// Of each target what it was given lately, by any of the databases.
    private let recent: [RecentChunks]

    private let buildLock = Lock()
    private var builds: [SpoolDatabase: BuildTask] = [:]
    private var isBuilding = false
    private var scanDue: MonotonicTime

    private struct BuildTask {
        var due: MonotonicTime
        var wantsSnapshot = false
        var wantsAudit = false
        var attempts = 0
        /// A transaction that was seen open without a writer, and since when.
        var open: (begun: SpoolPoint, since: MonotonicTime)?
    }

    init(_ replicator: Replicator) {
        self.replicator = replicator
        options = replicator.options
        logger = replicator.logger
        scanDue = MonotonicTime.now
        recent = replicator.targets.map { _ in RecentChunks() }
        queues = replicator.targets.indices.map { i in
            TargetQueue(replicator) { [unowned self] database in
                // It could not be started with the first need, perhaps: without it, nobody scans or tells of a lag.
                buildLock.withLock { _ = startBuilder() }
                let copier = copier(database)
                return withExtendedLifetime(copier) { copier.targets[i].backgroundPass() }
            }
        }
    }

    // MARK: - Requests

    /// Through which this process's commits to the database are told.
    func notice(_ database: SpoolDatabase) -> CommitNotice { lock.withLock { lockedNotice(database) } }

    private func lockedNotice(_ database: SpoolDatabase) -> CommitNotice {
        if let known = notices[database] { return known }
        let made = CommitNotice(database, self, process: getpid())
        notices[database] = made
        return made
    }

    /// A commit was staged, the first since the last pass began: upload it soon. False: there is no thread for it.
    func noteCommit(_ database: SpoolDatabase) -> Bool {
        replicator.targets.isEmpty || schedule(database, after: 0)
    }

    /// Chunks were staged, the first since the last audit: look at as many that should be as they were. False: there is no
    /// thread for it.
    func scheduleAudit(_ database: SpoolDatabase) -> Bool {
        buildLock.withLock {
            let soon = MonotonicTime.now.advanced(seconds: 1)
            builds[database, default: BuildTask(due: soon)].wantsAudit = true
            defer { buildLock.signal() }
            return startBuilder()
        }
    }

    /// A connection was opened: what other processes, or earlier ones, left of this database is uploaded, a target that
    /// has come back catches up, and chunks are kept alive, even if nobody ever writes.
    func noteUse(_ database: SpoolDatabase) {
        if queues.isEmpty { return }
        schedule(database, after: 0)
        buildLock.withLock { _ = startBuilder() }
    }

    func requestBuild(_ database: SpoolDatabase) {
        buildLock.withLock {
            let now = MonotonicTime.now
            var task = builds[database] ?? BuildTask(due: now)
            task.wantsSnapshot = true
            task.attempts = 0
            task.due = now
            builds[database] = task
            _ = startBuilder()
            buildLock.signal()
        }
    }

    /// False: some target has no thread for it.
    @discardableResult
    func schedule(_ database: SpoolDatabase, after seconds: Double) -> Bool {
        queues.reduce(true) { $1.schedule(database, after: seconds) && $0 }
    }

    // MARK: - Copiers

    private func copier(_ database: SpoolDatabase) -> DatabaseCopier {
        lock.withLock {
            if let known = copiers[database] { return known }
            let made = DatabaseCopier(database, replicator, lockedNotice(database), recent)
            copiers[database] = made
            return made
        }
    }

    /// Finds what no commit of this process told: other processes' leftovers, databases that lag, and those that are gone.
    func scan() {
        removeOtherBoots()
        let databases: [SpoolDatabase]
        do throws(SystemError) {
            databases = try replicator.spool.databases(unreadable: replicator.noteUnreadable)
        } catch {
            return replicator.noteUnreadable(error)
        }
        replicator.spool.sweep()
        var lagging: [(database: SpoolDatabase, since: UInt64)] = []
        for database in databases {
            let records: SpoolControl
            do throws(SystemError) {
                guard let found = try database.control() else { continue }
                records = found
            } catch {
                replicator.noteUnreadable(error)
                continue
            }
            noteLag(database, records)
            lagging.append((database, records.pendingSince ?? .max))
            if !records.isCurrentWhole || !records.isCurrentTrusted { requestBuild(database) }
        }
        // Nobody passes over them then who would find those that are gone.
        if queues.isEmpty { for database in databases { _ = try? retireIfGone(database) } }
        // Who has waited longest is served first.
        for (database, _) in lagging.sorted(by: { $0.since < $1.since }) { schedule(database, after: 0) }
        lock.withLock {
            let present = Set(databases)
            for (database, copier) in copiers where !present.contains(database) && !copier.isHeld { copiers[database] = nil }
        }
    }

    /// Once: they leave nothing more. Before there are full snapshots of this boot, which need the room.
    private func removeOtherBoots() {
        let isFirst = lock.withLock {
            defer { isFirstScan = false }
            return isFirstScan
        }
        if isFirst { try? replicator.spool.removeOtherBoots() }
    }

    private func noteLag(_ database: SpoolDatabase, _ records: SpoolControl) {
        let stored = database.targetRecords()
        let now = wallClock().seconds
        for target in copier(database).targets {
            let since = records.pendingSince(after: stored[target.target.identifier]?.stored ?? .none)
            let lag = since.map { max(0, Double(now) - Double($0) / 1e9) } ?? 0
            target.note(lag: lag)
            guard lag >= options.lagThreshold else { continue }
            logger.warning(
                "replication lags",
                metadata: [
                    "database": "\(database.path)", "store": "\(target.target.store.name)", "seconds": "\(Int(lag))",
                    "error": "\(stored[target.target.identifier]?.error ?? "")",
                ])
        }
        if replicator.targets.isEmpty, let since = records.pendingSince {
            let lag = Double(now) - Double(since) / 1e9
            guard lag >= options.lagThreshold else { return }
            logger.warning(
                "replication lags: no replication target is configured",
                metadata: ["database": "\(database.path)", "seconds": "\(Int(lag))"])
        }
    }

    // MARK: - The builder

    /// With `buildLock` held. False: there is no thread to be had; whoever needs it next tries again.
    private func startBuilder() -> Bool {
        if isBuilding { return true }
        do throws(SystemError) {
            try Threads.spawn("verneuil-snap") { self.buildLoop() }
            isBuilding = true
        } catch {
            if replicator.isNews(error) { logger.error("no thread for full snapshots", metadata: ["error": "\(error)"]) }
        }
        return isBuilding
    }

    private func buildLoop() {
        buildLock.lock()
        while true {
            let now = MonotonicTime.now
            if now >= scanDue {
                scanDue = now.advanced(seconds: options.scanInterval)
                buildLock.unlock()
                scan()
                buildLock.lock()
                continue
            }
            guard let (database, task) = builds.min(by: { $0.value.due < $1.value.due }), task.due <= now else {
                buildLock.wait(until: min(scanDue, builds.values.map(\.due).min() ?? scanDue))
                continue
            }
            builds[database] = nil
            buildLock.unlock()
            var again = task.wantsSnapshot ? build(database, task) : nil
            if again == nil && task.wantsAudit { again = audit(database, task) }
            buildLock.lock()
            if var again {
                if let asked = builds[database] {
                    again.wantsSnapshot = again.wantsSnapshot || asked.wantsSnapshot
                    again.wantsAudit = again.wantsAudit || asked.wantsAudit
                    again.due = min(again.due, asked.due)
                }
                builds[database] = again
            }
        }
    }

    /// nil: done, or given up until somebody asks again.
    private func build(_ database: SpoolDatabase, _ task: BuildTask) -> BuildTask? {
        var task = task
        var isDead = false
        if let records = (try? database.control()) ?? nil, records.producer.isOpen, !records.hasProposal {
            let begun = SpoolPoint(records.producer.staged.epoch, records.producer.begun)
            if task.open?.begun != begun { task.open = (begun, MonotonicTime.now) }
            isDead = task.open.map { MonotonicTime.now.seconds(since: $0.since) > 1 } ?? false
        }
        do throws(SystemError) {
            let slice = MonotonicTime.now.advanced(seconds: 0.25)
            let outcome = try SpoolBuilder(database).run(
                deadline: slice, openIsDead: isDead, isStored: replicator.knownChunks(database))
            switch outcome {
            case .whole:
                if options.isParanoid { replicator.auditAll(database) }
                if !replicator.targets.isEmpty { schedule(database, after: 0) }
                return nil
            case .more:
                task.due = MonotonicTime.now
                return task
            case .busy, .unsettled:
                // Whoever is in the way may be gone soon; the scan asks again in any case.
                task.attempts += 1
                if task.attempts > 200 { return nil }
                task.due = MonotonicTime.now.advanced(seconds: min(2, 0.02 * Double(task.attempts)))
                return task
            }
        } catch {
            // The file is gone, or replaced.
            if error.code == ENOENT || error.code == ESTALE { return nil }
            replicator.noteFailure(database, error)
            // No room, no descriptor: the records may say that all is well, so that no scan asks again.
            task.due = MonotonicTime.now.advanced(seconds: options.scanInterval)
            return task
        }
    }

    /// The guard against lost updates: one random chunk for each one staged, at most 64 a second.
    private func audit(_ database: SpoolDatabase, _ task: BuildTask) -> BuildTask? {
        let notice = notice(database)
        do throws(SystemError) {
            let samples = min(notice.takeStagedChunks(), 64)
            let verdict = try SpoolBuilder(database).audit(samples: samples) { Int.random(in: 0..<$0) }
            guard case .wrong(let index) = verdict else { return nil }
            logger.error(
                "a chunk changed without our knowing; taking a full snapshot",
                metadata: ["database": "\(database.path)", "chunk": "\(index)"])
            var again = task
            again.wantsSnapshot = true
            again.due = MonotonicTime.now
            again.wantsAudit = try !database.distrust()
            if again.wantsAudit { notice.addStagedChunks(1) }
            return again
        } catch {
            return nil
        }
    }

    // MARK: - Flush

    func flush(_ database: SpoolDatabase, deadline: MonotonicTime) -> FlushFailure? {
        copier(database).flush(deadline: deadline)
    }

    /// As `DatabaseCopier.retireIfGone`.
    func retireIfGone(_ database: SpoolDatabase) throws(SystemError) -> SpoolDatabase.Presence {
        try copier(database).retireIfGone()
    }
}
