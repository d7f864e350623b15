import CVerneuil
import Logging
import Synchronization
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// A process's background work: one builder thread, up to `workers` copiers,
/// each started with the first need of it. A queue of databases with the time when each is due.
final class CopyEngine: @unchecked Sendable {
    unowned let replicator: Replicator
    private let options: ReplicationOptions
    private let logger: Logger

    // Guarded by `lock`.
    private let lock = Lock()
    private var due: [SpoolDatabase: MonotonicTime] = [:]
    private var copiers: [SpoolDatabase: DatabaseCopier] = [:]
    private var notices: [SpoolDatabase: CommitNotice] = [:]
    private var copying: Set<SpoolDatabase> = []
    private var threads = 0
    private var idle = 0
    private var scanDue: MonotonicTime

    private let buildLock = Lock()
    private var builds: [SpoolDatabase: BuildTask] = [:]
    private var isBuilding = false

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

    /// A commit was staged, the first since the last pass began: upload it soon.
    func noteCommit(_ database: SpoolDatabase) {
        if !replicator.targets.isEmpty { schedule(database, after: 0) }
    }

    /// Chunks were staged, the first since the last audit: look at as many that should be as they were.
    func scheduleAudit(_ database: SpoolDatabase) {
        buildLock.withLock {
            let soon = MonotonicTime.now.advanced(seconds: 1)
            builds[database, default: BuildTask(due: soon)].wantsAudit = true
            startBuilder()
            buildLock.signal()
        }
    }

    func requestBuild(_ database: SpoolDatabase) {
        buildLock.withLock {
            let now = MonotonicTime.now
            var task = builds[database] ?? BuildTask(due: now)
            task.wantsSnapshot = true
            task.attempts = 0
            task.due = now
            builds[database] = task
            startBuilder()
            buildLock.signal()
        }
    }

    func schedule(_ database: SpoolDatabase, after seconds: Double) {
        lock.withLock {
            let at = MonotonicTime.now.advanced(seconds: seconds)
            // Already due at that time or before: the thread that waits for it knows.
            if let planned = due[database], planned <= at { return }
            due[database] = at
            // Who is at it looks again when he is done.
            if copying.contains(database) { return }
            if idle > 0 { lock.signal() } else if threads < options.workers { startCopier() }
        }
    }

    // MARK: - Copiers

    /// Copiers of all engines of this process, with its pid above: a forked child has none.
    private static let copiersOfProcess = Atomic<UInt64>(0)
    /// Beyond the first of each engine, which it can't do without. Engines are
    /// many only where connections name many targets (CONFIGURATION.md).
    private static let mostCopiersOfProcess: UInt64 = 32

    /// Counts a new copier; false where there are enough.
    private static func countCopier(isFirst: Bool) -> Bool {
        let pid = UInt64(UInt32(bitPattern: getpid())) << 32
        var found = copiersOfProcess.load(ordering: .relaxed)
        while true {
            let count = found & ~0xFFFF_FFFF == pid ? found & 0xFFFF_FFFF : 0
            if !isFirst && count >= mostCopiersOfProcess { return false }
            let (exchanged, original) = copiersOfProcess.compareExchange(
                expected: found, desired: pid | (count + 1), ordering: .relaxed)
            if exchanged { return true }
            found = original
        }
    }

    private func startCopier() {
        guard Self.countCopier(isFirst: threads == 0) else { return }
        do throws(SystemError) {
            try Threads.spawn("verneuil-copy") { self.copyLoop() }
            threads += 1
        } catch {
            logger.error("a copier can't be started", metadata: ["error": "\(error)"])
        }
    }

    private func copyLoop() {
        lock.lock()
        while true {
            let now = MonotonicTime.now
            if now >= scanDue {
                scanDue = now.advanced(seconds: options.scanInterval)
                lock.unlock()
                scan()
                lock.lock()
                continue
            }
            var next: (database: SpoolDatabase, at: MonotonicTime)?
            for (database, at) in due where !copying.contains(database) {
                if next.map({ at < $0.at }) ?? true { next = (database, at) }
            }
            guard let next, next.at <= now else {
                idle += 1
                lock.wait(until: min(next?.at ?? scanDue, scanDue))
                idle -= 1
                continue
            }
            due[next.database] = nil
            copying.insert(next.database)
            let copier = copier(next.database)
            lock.unlock()
            let again = copier.backgroundPass()
            lock.lock()
            copying.remove(next.database)
            let soonest = MonotonicTime.now.advanced(seconds: again ?? options.passInterval)
            if let planned = due[next.database] {
                due[next.database] = max(planned, MonotonicTime.now.advanced(seconds: options.passInterval))
            } else if again != nil {
                due[next.database] = soonest
            }
        }
    }

    private func copier(_ database: SpoolDatabase) -> DatabaseCopier {
        if let known = copiers[database] { return known }
        let made = DatabaseCopier(database, replicator, lockedNotice(database))
        copiers[database] = made
        return made
    }

    /// Finds what no commit of this process told: other processes' leftovers, databases that lag, and those that are gone.
    func scan() {
        guard let databases = try? replicator.spool.databases() else { return }
        replicator.spool.sweep()
        let now = wallClock()
        for database in databases {
            guard let records = (try? database.control()) ?? nil else { continue }
            if let since = records.pendingSince {
                let lag = Double(now.seconds) - Double(since) / 1e9
                if lag >= options.lagThreshold {
                    logger.warning(
                        "replication lags", metadata: ["database": "\(database.path)", "seconds": "\(Int(lag))"])
                }
            }
            schedule(database, after: 0)
            if !records.isCurrentWhole || !records.isCurrentTrusted { requestBuild(database) }
        }
    }

    // MARK: - The builder

    private func startBuilder() {
        if isBuilding { return }
        do throws(SystemError) {
            try Threads.spawn("verneuil-snap") { self.buildLoop() }
            isBuilding = true
        } catch {
            logger.error("no thread for full snapshots", metadata: ["error": "\(error)"])
        }
    }

    private func buildLoop() {
        buildLock.lock()
        while true {
            guard let (database, task) = builds.min(by: { $0.value.due < $1.value.due }) else {
                buildLock.wait()
                continue
            }
            if task.due > MonotonicTime.now {
                buildLock.wait(until: task.due)
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
            if error.code != ENOENT && error.code != ESTALE { replicator.noteFailure(database, error) }
            return nil
        }
    }

    /// The guard against lost updates (SYSTEM 2): one random chunk for each one staged, at most 64 a second.
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

    func flush(_ database: SpoolDatabase, deadline: MonotonicTime) -> String? {
        if replicator.targets.isEmpty { return "no replication target is configured" }
        let copier = lock.withLock { self.copier(database) }
        return copier.flush(deadline: deadline)
    }
}
