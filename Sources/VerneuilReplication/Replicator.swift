import CVerneuil
import CoreMetrics
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// One place that must have everything.
public struct ReplicationTarget: Sendable {
    /// Names what is believed to be stored here; stable as long as it is the same place.
    public let identifier: String
    public let store: any ObjectStore

    public init(_ store: any ObjectStore) {
        self.store = store
        identifier = String(FingerprintKey.mangling.fingerprint(Array(store.name.utf8)).primary, radix: 16)
    }
}

/// What can be chosen about replication. Times in seconds.
public struct ReplicationOptions: Sendable {
    /// What one commit may spend on a full snapshot.
    public var commitBudget = 0.02
    /// Bytes of old epochs that one commit may remove.
    public var removedWithinCommit = SpoolDatabase.removedWithinCommit
    /// Between two uploads of one manifest.
    public var manifestInterval = 1.1
    /// Between two passes over one database.
    public var passInterval = 0.5
    /// Between two looks at all of the spooling directory.
    public var scanInterval = 60.0
    /// Lag from which on it is logged.
    public var lagThreshold = 120.0
    /// PUTs in flight for each target, while somebody waits.
    public var uploadWindow = 100
    /// The same in the background: about as many as the budget has for a second, since those that wait for it can't be hurried.
    public var backgroundWindow = 30
    public var workers = 10
    /// The age that no live chunk exceeds, in seconds: counted from when it was stored or touched.
    public var patrolMaxAge = 5 * 86_400.0
    /// What the patrol may plan with: half of the background budget, so that uploads don't wait for it.
    public var touchesPerSecond = 15.0
    /// Compare all that is staged with the database after each commit, and abort() on any difference.
    public var isParanoid = false
    /// Manifests' host name.
    public var hostName = Host.name()
    public var generatedBy = "verneuil-swift 0.1"
    /// Tells this machine from others with its host name.
    public var identity = WriterIdentity()
    /// Seconds since 1970, for the ages of chunks.
    public var clock: @Sendable () -> Int64 = { wallClock().seconds }
    /// For how long a database that can't be seen was idle: the same clock for all processes of this boot, that nobody sets.
    public var uptime: @Sendable () -> MonotonicTime = { MonotonicTime.now }

    public init() {}
}

/// Replication of any number of databases through one spooling directory:
/// hands out trackers, and runs builders and copiers in the background, on
/// threads that start with the first need.
///
/// Safe from any thread. After fork(2) the child's first use starts afresh; what
/// the parent had under way goes on there.
public final class Replicator: @unchecked Sendable {
    public let spool: SpoolDirectory
    public let targets: [ReplicationTarget]
    public let options: ReplicationOptions
    let logger: Logger
    /// Called with each chunk that is stored: a cache may keep it.
    public let didStoreChunk: (@Sendable (Fingerprint, [UInt8]) -> Void)?

    /// What belongs to a process. A child of fork(2) makes its own and leaks the parent's: the threads of that one don't
    /// exist there, and its locks may be held by them for ever.
    private final class ProcessState: @unchecked Sendable {
        let registry = Lock()
        /// Of the databases that are open, and by how many trackers: each keeps three descriptors.
        var producers: [SpoolDatabase: (producer: SpoolProducer, users: Int)] = [:]
        var engine: CopyEngine?
        var isPrepared = false

        let failures = Lock()
        var lastFailure: [SystemError: MonotonicTime] = [:]
        var lastUnseen: [SpoolDatabase: MonotonicTime] = [:]
        /// Files of which it was said that they are written without locks.
        var unlocked: Set<String> = []
    }
    private let local = ProcessLocal<ProcessState>()
    private var process: ProcessState { local.value { ProcessState() } }

    public init(
        spool: SpoolDirectory, targets: [ReplicationTarget], options: ReplicationOptions = ReplicationOptions(),
        logger: Logger, didStoreChunk: (@Sendable (Fingerprint, [UInt8]) -> Void)? = nil
    ) {
        self.spool = spool
        self.targets = targets
        self.options = options
        self.logger = logger
        self.didStoreChunk = didStoreChunk
        // Before there are threads that may want the same at the same time.
        FingerprintKey.makeAll()
        _ = ParallelLoop.mostHelpers
        _ = MetricsSystem.factory
    }

    /// A tracker for a connection to the file with this identity; `path` is canonical.
    public func tracker(path: String, device: UInt64, inode: UInt64, isReadOnly: Bool) -> Tracker {
        let database = SpoolDatabase(spool, path: path, device: device, inode: inode)
        let tracker = Tracker(database, producer(database), self, isReadOnly: isReadOnly)
        copyEngine.noteUse(database)
        return tracker
    }

    private func producer(_ database: SpoolDatabase) -> SpoolProducer {
        let process = self.process
        return process.registry.withLock {
            if !process.isPrepared {
                process.isPrepared = true
                // What other boots left is removed by the first scan: the application waits in its sqlite3_open.
                do throws(SystemError) { try spool.makeDirectories() } catch {
                    logger.error(
                        "the spooling directory can't be used; databases are not replicated",
                        metadata: ["directory": "\(spool.root)", "error": "\(error)"])
                }
            }
            let entry = process.producers[database] ?? (SpoolProducer(database, removable: options.removedWithinCommit), 0)
            process.producers[database] = (entry.producer, entry.users + 1)
            return entry.producer
        }
    }

    /// A tracker that `producer` was given to is gone. With the last one the producer goes, too: an application that
    /// opens one database after the other must not run out of descriptors by our doing.
    func release(_ producer: SpoolProducer) {
        let process = self.process
        process.registry.withLock {
            // In a forked child, those of the parent aren't known.
            guard let entry = process.producers[producer.database], entry.producer === producer else { return }
            process.producers[producer.database] = entry.users > 1 ? (producer, entry.users - 1) : nil
        }
    }

    var copyEngine: CopyEngine {
        let process = self.process
        return process.registry.withLock {
            if let engine = process.engine { return engine }
            let made = CopyEngine(self)
            process.engine = made
            return made
        }
    }

    // MARK: - From trackers

    /// A transaction is staged: the background threads are told, through `notice`, which its tracker keeps.
    @inline(__always)
    func didStage(_ database: SpoolDatabase, _ staged: SpoolProducer.Staged, _ notice: inout CommitNotice?, process: pid_t) {
        if notice?.process != process { notice = copyEngine.notice(database) }
        if !staged.isWhole {
            if notice?.mayHelp(staged.point.epoch) ?? false { buildWithinCommit(database) } else { needsBuild(database) }
        } else {
            if staged.leavesOldEpochs { needsBuild(database) }
            if options.isParanoid { auditAll(database) }
        }
        notice?.didStage(chunks: staged.chunks)
    }

    /// The commit itself does as much of a full snapshot as its budget allows: all
    /// of it, for a small database, so that a program that runs for a moment leaves a whole snapshot.
    private func buildWithinCommit(_ database: SpoolDatabase) {
        guard options.commitBudget > 0 else { return needsBuild(database) }
        do throws(SystemError) {
            let deadline = MonotonicTime.now.advanced(seconds: options.commitBudget)
            let outcome = try SpoolBuilder(database).run(
                deadline: deadline, removing: options.removedWithinCommit, isStored: knownChunks(database))
            switch outcome {
            case .whole: if options.isParanoid { auditAll(database) }
            case .more, .busy, .unsettled: needsBuild(database)
            }
        } catch {
            noteFailure(database, error)
            needsBuild(database)
        }
    }

    func needsBuild(_ database: SpoolDatabase) {
        copyEngine.requestBuild(database)
    }

    func noteDoubt(_ database: SpoolDatabase, _ doubt: SpoolProducer.Doubt) {
        logger.info(
            "a full snapshot is needed", metadata: ["database": "\(database.path)", "reason": "\(doubt.rawValue)"])
    }

    func noteUnflushed(_ database: SpoolDatabase, _ reason: String) {
        logger.error("not everything is stored", metadata: ["database": "\(database.path)", "reason": "\(reason)"])
    }

    /// A database can't be replicated at all.
    public func noteRefusal(_ reason: String, path: String) {
        logger.error("\(reason)", metadata: ["database": "\(path)"])
    }

    /// A database was opened with `nolock=1`. Said once of each.
    public func noteUnlocked(path: String) {
        let process = self.process
        let isNews = process.failures.withLock {
            if process.unlocked.count > 100 { process.unlocked = [] }
            return process.unlocked.insert(path).inserted
        }
        if isNews {
            logger.warning(
                "opened with nolock=1: each commit costs a full snapshot, taken when nobody writes", metadata: ["database": "\(path)"])
        }
    }

    func noteFailure(_ database: SpoolDatabase, _ error: SystemError) {
        guard isNews(error) else { return }
        logger.error(
            "spooling failed; the database itself is fine", metadata: ["database": "\(database.path)", "error": "\(error)"])
    }

    /// The same trouble at each commit is told once a minute.
    func isNews(_ error: SystemError) -> Bool {
        let process = self.process
        return process.failures.withLock {
            let now = MonotonicTime.now
            if let last = process.lastFailure[error], now.seconds(since: last) < 60 { return false }
            if process.lastFailure.count > 100 { process.lastFailure = [:] }
            process.lastFailure[error] = now
            return true
        }
    }

    /// Part of the spool, or all of it; whoever noticed goes on with the rest and comes again.
    func noteUnreadable(_ error: SystemError) {
        guard isNews(error) else { return }
        logger.error("the spool can't be read; what stands there is not uploaded", metadata: ["error": "\(error)"])
    }

    /// Nobody can tell from here whether the database is still there.
    func noteUnseen(_ database: SpoolDatabase, _ reason: String) {
        let process = self.process
        let isNews = process.failures.withLock {
            let now = MonotonicTime.now
            if let last = process.lastUnseen[database], now.seconds(since: last) < 60 { return false }
            process.lastUnseen[database] = now
            return true
        }
        guard isNews else { return }
        logger.warning(
            "a database can't be seen from here; what is spooled of it is kept",
            metadata: ["database": "\(database.path)", "reason": "\(reason)"])
    }

    /// S9.
    func noteRetired(_ database: SpoolDatabase, wasStored: Bool) {
        logger.log(
            level: wasStored ? .notice : .warning, "removed what was spooled of a database that is gone",
            metadata: ["database": "\(database.path)", "lastCommitsWereStored": "\(wasStored)"])
    }

    /// The oracle of the tests (what is staged is what was committed).
    func auditAll(_ database: SpoolDatabase) {
        let verdict: SpoolBuilder.Verdict?
        do throws(SystemError) { verdict = try SpoolBuilder(database).audit(samples: nil) { _ in 0 } } catch { return }
        if case .wrong(let index) = verdict {
            let message = "verneuil: chunk \(index) of \(database.path) is not staged as it is in the database\n"
            _ = message.withCString { vrn_write(2, $0, strlen($0)) }
            abort()
        }
    }

    // MARK: - What targets are known to have

    /// Whether every target has a chunk with this index and fingerprint, as far as was written down.
    func knownChunks(_ database: SpoolDatabase) -> (Int, Fingerprint) -> Bool {
        let lists = targets.map { database.storedChunks($0.identifier) ?? [] }
        if lists.isEmpty { return { _, _ in false } }
        return { index, fingerprint in lists.allSatisfy { index < $0.count && $0[index] == fingerprint } }
    }

    // MARK: - For others' databases

    /// Has everything uploaded, in the background, that any process has spooled by now. Doesn't wait for it.
    public func scanNow() { copyEngine.scan() }

    // MARK: - Synchronous

    /// Makes sure that everything committed to the database before the call is stored on every target.
    ///
    /// - Parameter timeout: seconds.
    /// - Returns: nil, or why not.
    public func flush(_ database: SpoolDatabase, timeout: Double = 600) -> String? {
        flush(database, deadline: MonotonicTime.now.advanced(seconds: timeout))?.reason
    }

    /// The same, for who must tell one obstacle from another, or has several to flush by one deadline.
    public func flush(_ database: SpoolDatabase, deadline: MonotonicTime) -> FlushFailure? {
        copyEngine.flush(database, deadline: deadline)
    }

    /// Flushes every database that has something spooled, and removes what is spooled of those that are gone (S9).
    /// Answers with those that failed, and why.
    public func flushAll(timeout: Double = 3600) -> [(path: String, reason: String)] {
        let deadline = MonotonicTime.now.advanced(seconds: timeout)
        do throws(SystemError) {
            try spool.prepare()
            spool.sweep()
            var failed: [(path: String, reason: String)] = []
            let all = try spool.databases(unreadable: { failed.append(($0.path, "\($0)")) }).map { (database: $0, records: (try? $0.control()) ?? nil) }
            // A transaction that goes on for long may use up all of the time: it shall be nobody else's.
            let (open, closed) = (all.filter { $0.records?.producer.isOpen ?? false }, all.filter { !($0.records?.producer.isOpen ?? false) })
            for (database, records) in closed + open {
                do throws(SystemError) {
                    switch try copyEngine.retireIfGone(database) {
                    case .here: if let failure = copyEngine.flush(database, deadline: deadline) { failed.append((database.path, failure.reason)) }
                    case .gone: continue
                    // What is stored already is nothing that anybody here could lose.
                    case .unseen(let reason): if records?.pendingSince != nil { failed.append((database.path, Self.unseen(reason))) }
                    }
                } catch {
                    failed.append((database.path, "\(error)"))
                }
            }
            return failed
        } catch {
            return [(spool.root, "\(error)")]
        }
    }

    static func unseen(_ reason: String) -> String { "can't be seen from here: \(reason); what is spooled of it is kept" }

    /// Takes a full snapshot of the database at `path`, now, and stores it.
    /// Answers nil, or why that wasn't possible.
    ///
    /// - Parameters:
    ///   - timeout: seconds.
    ///   - takeOver: also over a manifest that another machine has written (docs/REPLICATION.md, Fencing).
    public func sync(path: String, timeout: Double = 3600, takeOver: Bool = false) -> String? {
        sync(path: path, deadline: MonotonicTime.now.advanced(seconds: timeout), takeOver: takeOver)?.reason
    }

    /// The same, for who must tell one obstacle from another.
    public func sync(path: String, deadline: MonotonicTime, takeOver: Bool) -> FlushFailure? {
        do throws(SystemError) {
            try spool.prepare()
            guard let status = try Files.status(path) else { return FlushFailure(.noDatabase, "there is no file \(path)") }
            let database = SpoolDatabase(spool, path: path, device: status.device, inode: status.inode)
            if takeOver { for target in targets { try database.requestTakeover(target.identifier) } }
            return flush(database, deadline: deadline)
        } catch {
            return FlushFailure(.notStored, "\(error)")
        }
    }
}
