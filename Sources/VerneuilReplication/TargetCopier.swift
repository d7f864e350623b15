import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Brings one database to one target: its snapshots, and the touches that keep
/// them alive. Targets of a database know nothing of one another's pace: each
/// has its own state (TargetRecord), retries and threads, and takes the
/// snapshot that it lacks. What they share is the copier's lock and how far producers may go on (DatabaseCopier).
///
/// Safe from any thread; one pass at a time.
final class TargetCopier: @unchecked Sendable {
    let target: ReplicationTarget
    private let database: SpoolDatabase
    private unowned let copier: DatabaseCopier
    private let replicator: Replicator
    private let options: ReplicationOptions
    private let logger: Logger
    private let metrics: TargetMetrics
    private let recent: RecentChunks
    private let fence: ManifestFence
    private let pacing: PassPacing

    // Used by the pass alone.
    private var isPrepared = false
    private var record = TargetRecord()
    private var patrol: PatrolRound?
    /// What couldn't be read from the spool was to be replaced by a full snapshot. Once until something is stored: a disk that
    /// stays bad would be written to again and again.
    private var didReplaceUnreadable = false

    // Guarded by `lock`.
    private let lock = Lock()
    private var isPassing = false
    private var flushes = 0
    /// When this process looked last, whether or not there was anything to send.
    private var lastLook: MonotonicTime?
    /// A record that the spool couldn't be given; nil: it has all there is to know.
    private var unwritten: TargetRecord?
    /// The manifest is written once more, and (`forgets`) all that it refers to is sent again.
    private var repeats = false
    private var forgets = false
    private var hurrySeen: (at: MonotonicTime, value: Bool)?
    private var patience = TargetCopier.grace

    /// How long producers are asked to keep a snapshot still for a target that works on it after another has it, in
    /// seconds. Doubles each time that this wasn't enough, up to the second number.
    static let grace = 10.0
    static let longestGrace = 640.0

    init(_ target: ReplicationTarget, _ copier: DatabaseCopier, _ recent: RecentChunks) {
        self.target = target
        self.copier = copier
        self.recent = recent
        database = copier.database
        replicator = copier.replicator
        options = copier.replicator.options
        logger = copier.replicator.logger
        metrics = TargetMetrics(database: copier.database.path, target: target.store.name)
        fence = ManifestFence(database, target, key: copier.manifestName, options, logger: logger)
        pacing = PassPacing(passInterval: options.passInterval, manifestInterval: options.manifestInterval)
    }

    enum Outcome {
        case stored(SpoolPoint)
        case nothingNew
        /// Another process has the lock, or another thread of ours passes.
        case busy
        /// The database isn't there any more, or has nothing spooled.
        case gone
        /// It can't be told from here whether the database is there.
        case unseen(String)
        /// Commits overwrote the snapshot while it was on its way.
        case overtaken
        /// For this many seconds, because of what another process sent, or failed to.
        case tooEarly(Double)
        /// With a cause that is final, trying again doesn't help.
        case failed(String, final: FlushFailure.Cause?)
    }

    /// Seconds for which producers are asked to wait for this target; nil: not at all, since it failed the last time.
    func claim(_ record: TargetRecord?) -> Double? {
        lock.withLock { record?.failures ?? 0 == 0 && unwritten == nil ? patience : nil }
    }

    /// Nothing is known to be there any more: all of it is uploaded again, even if nothing is committed.
    func forget() {
        recent.removeAll()
        lock.withLock {
            repeats = true
            forgets = true
        }
    }

    func note(lag seconds: Double) { metrics.lag.record(seconds) }

    // MARK: - A pass by a worker

    /// Answers after how many seconds another one is wanted; nil: when something happens.
    func backgroundPass() -> Double? {
        let looked = lock.withLock { lastLook.map { options.passInterval - MonotonicTime.now.seconds(since: $0) } ?? 0 }
        let wait = max(looked, self.wait(database.targetRecord(target.identifier)))
        if wait > Self.momentary { return wait }
        switch pass(.background) {
        case .stored: return options.manifestInterval
        case .nothingNew:
            let due = patrolSlice()
            // Somebody else's commits are not told to who holds the lock for another target's sake.
            return copier.isHeld ? min(due ?? 1, 1) : due
        case .overtaken: return options.passInterval
        case .tooEarly(let seconds): return seconds
        case .busy: return 1
        case .gone, .unseen: return nil
        case .failed(let reason, _):
            logger.warning(
                "replication failed; it will be tried again",
                metadata: ["database": "\(database.path)", "store": "\(target.store.name)", "reason": "\(reason)"])
            return max(options.passInterval, self.wait(database.targetRecord(target.identifier)))
        }
    }

    /// Pauses that aren't worth a thread's waking up, in seconds.
    private static let momentary = 0.005

    private func wait(_ record: TargetRecord?) -> Double {
        let now = MonotonicTime.now
        return max(record.map { pacing.wait($0, at: now) } ?? 0, lock.withLock { unwritten.map { pacing.wait($0, at: now) } ?? 0 })
    }

    /// - Parameter deadline: when whoever waits for it gives up.
    func pass(_ urgency: Urgency, deadline: MonotonicTime? = nil) -> Outcome {
        let mayPass = lock.withLock { () -> Bool in
            if isPassing { return false }
            isPassing = true
            lastLook = MonotonicTime.now
            return true
        }
        guard mayPass else { return .busy }
        defer {
            lock.withLock {
                isPassing = false
                lock.broadcast()
            }
        }
        do throws(SystemError) {
            return try copier.withSession { (session) throws(SystemError) in try pass(session, urgency, deadline) }
        } catch {
            let known = database.targetRecord(target.identifier) ?? TargetRecord(name: target.store.name)
            lock.withLock {
                var record = unwritten ?? known
                record.failures += 1
                record.lastFailure = MonotonicTime.now
                unwritten = record
            }
            return .failed("\(error)", final: nil)
        }
    }

    private func pass(_ session: SpoolCopierSession, _ urgency: Urgency, _ deadline: MonotonicTime?) throws(SystemError) -> Outcome {
        // Where it can't be read, an older snapshot might be taken for new (S7).
        let known = try database.readTargetRecord(target.identifier)
        // Another process may have sent something since this one looked, before it had the lock.
        let wait = urgency == .background ? wait(known) : 0
        if wait > Self.momentary { return .tooEarly(wait) }
        record = known ?? TargetRecord(name: target.store.name)
        // The one that was stored is due once more, or a newer one; never an older one (S7).
        let forgets = lock.withLock { self.forgets }
        let isRepeat = forgets || lock.withLock { repeats } || database.isTakeoverRequested(target.identifier)
        let found: StagedSnapshot?
        do throws(SystemError) {
            found = try session.snapshot(after: isRepeat ? record.stored.predecessor : record.stored)
        } catch {
            replaceUnreadable(error)
            throw error
        }
        guard let snapshot = found else {
            try copier.noteProgress(session)
            lock.withLock { unwritten = nil }
            return .nothingNew
        }
        let began = MonotonicTime.now
        let upload = SnapshotUpload(
            snapshot, database, target, replicator, fence: fence, recent: recent, isRepeat: isRepeat, forgets: forgets, deadline: deadline,
            urgency: { [self] in urgency == .background && isHurried() ? .flush : urgency },
            progress: { [self] done, total in
                record.progress = (done, total, timestamp())
                save()
            },
            didPutManifest: { [self] body in copier.keepTap(snapshot.point, body) })
        defer {
            metrics.requests.increment(by: upload.requests)
            metrics.bytes.increment(by: upload.sentBytes)
        }
        let failure: (any Error)?
        do {
            // A store that had something and isn't there is no new one: its disk may not be mounted.
            if !isPrepared && record.stored == .none { try target.store.prepare() }
            isPrepared = true
            try upload.run()
            failure = nil
        } catch {
            failure = error
        }
        record.progress = nil
        record.sentChunks += upload.sentChunks
        record.sentBytes += upload.sentBytes
        record.isUnguarded = fence.lineage.isUnguarded
        record.fencedBy = fence.lineage.fencedBy
        guard let failure else {
            didStore(snapshot, upload, began)
            try copier.noteProgress(session)
            return .stored(snapshot.point)
        }
        return try didFail(failure, snapshot, session)
    }

    private func didStore(_ snapshot: StagedSnapshot, _ upload: SnapshotUpload, _ began: MonotonicTime) {
        let now = MonotonicTime.now
        didReplaceUnreadable = false
        record.stored = snapshot.point
        record.lastSuccess = timestamp()
        record.failures = 0
        record.lastPass = now
        record.lastManifest = now
        save()
        lock.withLock {
            repeats = false
            forgets = false
            patience = Self.grace
        }
        metrics.snapshots.increment()
        metrics.duration.recordNanoseconds(Int64(now.seconds(since: began) * 1e9))
        logger.info(
            "stored a snapshot",
            metadata: [
                "database": "\(database.path)", "store": "\(target.store.name)", "snapshot": "\(snapshot.point)",
                "chunks": "\(upload.sentChunks)", "requests": "\(upload.requests)", "bytes": "\(upload.sentBytes)",
                "milliseconds": "\(Int(now.seconds(since: began) * 1000))",
            ])
    }

    private func didFail(
        _ failure: any Error, _ snapshot: StagedSnapshot, _ session: SpoolCopierSession
    ) throws(SystemError) -> Outcome {
        if let gap = failure as? SnapshotUpload.Gap {
            guard try session.stands(snapshot.point) else { return overtaken() }
            if gap.isUnspooled {
                logger.notice(
                    "a target lacks what is not in the spool any more; taking a full snapshot",
                    metadata: ["database": "\(database.path)", "store": "\(target.store.name)"])
                copier.takeFullSnapshot()
                return overtaken()
            }
            logger.error(
                "the spool doesn't hold what it should; taking a full snapshot",
                metadata: ["database": "\(database.path)", "chunk": "\(gap.index)"])
            copier.forget(nil)
        } else if let error = failure as? SystemError, database.isUnreadable(error) {
            guard try session.stands(snapshot.point) else { return overtaken() }
            replaceUnreadable(error)
        } else if let lost = failure as? StoredBefore.Lost {
            noteLost(lost.chunk)
        } else if failure is ManifestFence.Overtaken {
            // What the database is now is newer than that, or the same; a fresh look tells.
            if try session.stands(snapshot.point) { copier.takeFullSnapshot() }
        } else if let error = failure as? StoreError, error.kind == .noSuchSpace {
            if record.stored == .none { isPrepared = false }
        } else if failure is ManifestFence.Vanished {
            noteVanished("\(failure)")
        }
        let reason = "\(failure)"
        if failure is SnapshotUpload.OutOfTime {
            // The store does what it can.
            save()
            try copier.noteProgress(session)
            return .failed(reason, final: .timedOut)
        }
        record.error = reason
        record.lastError = timestamp()
        record.failures += 1
        record.lastPass = MonotonicTime.now
        record.lastFailure = record.lastPass
        save()
        metrics.failures.increment()
        try copier.noteProgress(session)
        return .failed(reason, final: failure is ManifestFence.Fenced ? .fenced : nil)
    }

    /// A snapshot that stands and can't be read: a full one is made of the database itself.
    private func replaceUnreadable(_ error: SystemError) {
        // While a builder is at work, nobody can be told: the next pass tries again.
        guard !didReplaceUnreadable, database.isUnreadable(error), copier.takeFullSnapshot() else { return }
        didReplaceUnreadable = true
        logger.error(
            "the spool doesn't hold what it should; taking a full snapshot",
            metadata: ["database": "\(database.path)", "error": "\(error)"])
    }

    private func overtaken() -> Outcome {
        record.failures = 0
        record.lastPass = MonotonicTime.now
        save()
        lock.withLock { patience = min(patience * 2, Self.longestGrace) }
        return .overtaken
    }

    private func save() {
        do throws(SystemError) {
            try database.setTargetRecord(target.identifier, record)
            lock.withLock { unwritten = nil }
        } catch {
            replicator.noteFailure(database, error)
            lock.withLock { unwritten = record }
        }
    }

    private func timestamp() -> UInt64 {
        let time = wallClock()
        return UInt64(clamping: time.seconds) &* 1_000_000_000 &+ UInt64(clamping: time.nanoseconds)
    }

    /// Whether somebody waits for this upload, here or in another process.
    private func isHurried() -> Bool {
        lock.withLock {
            if flushes > 0 { return true }
            let now = MonotonicTime.now
            if let hurrySeen, now.seconds(since: hurrySeen.at) < 1 { return hurrySeen.value }
            let value = database.isHurried
            hurrySeen = (now, value)
            return value
        }
    }

    // MARK: - Patrol

    /// Touches some of what is due. Answers after how many seconds to come again; nil: nothing to do.
    private func patrolSlice() -> Double? {
        let mayPass = lock.withLock { () -> Bool in
            if isPassing { return false }
            isPassing = true
            return true
        }
        guard mayPass else { return 1 }
        defer {
            lock.withLock {
                isPassing = false
                lock.broadcast()
            }
        }
        let outcome: PatrolRound.Outcome?
        do throws(SystemError) {
            outcome = try copier.withSessionIfFree { (_) throws(SystemError) -> PatrolRound.Outcome? in
                let round = patrol ?? PatrolRound(database, target, options, fence, metrics, logger)
                patrol = round
                return round.run()
            }
        } catch {
            replicator.noteUnreadable(error)
            return 60
        }
        switch outcome {
        case .again(let seconds)?: return seconds
        case .lostChunk(let chunk)?: noteLost(chunk)
        case .lostManifest(let reason)?: noteVanished(reason)
        case .fenced?, nil: return nil
        }
        return 1
    }

    private func noteLost(_ chunk: Fingerprint) {
        logger.error(
            "a chunk is missing in the store; taking a full snapshot",
            metadata: ["database": "\(database.path)", "store": "\(target.store.name)", "chunk": "\(chunk.chunkName)"])
        copier.forget(self)
    }

    // MARK: - Flush

    /// What `flush` answers where the point that it was asked for means nothing any more.
    static let overtakenEpoch = FlushFailure(.notStored, "a full snapshot came before what was wanted")

    /// Until `wanted` is stored on this target, or it's sure that it won't be. nil, or why not.
    func flush(_ wanted: SpoolPoint, _ mark: WriterMark, deadline: MonotonicTime) -> FlushFailure? {
        lock.withLock { flushes += 1 }
        defer { lock.withLock { flushes -= 1 } }
        var hurried: MonotonicTime?
        var lastReason = "nothing was tried"
        var tries = 0
        var didUpload = false
        while true {
            let now = MonotonicTime.now
            if hurried.map({ now.seconds(since: $0) > 3 }) ?? true {
                database.requestHurry()
                hurried = now
            }
            if let records = (try? database.control()) ?? nil, records.isOvertaken { return Self.overtakenEpoch }
            if let stored = database.targetRecord(target.identifier)?.stored, stored >= wanted, !lock.withLock({ repeats }) {
                if didUpload { return nil }
                switch verify(mark) {
                case .success(nil): return nil
                case .success(let reason?): lastReason = reason
                case .failure(let error):
                    lastReason = "\(error)"
                    tries += 1
                }
                if tries >= 3 { return FlushFailure(.notStored, lastReason) }
            }
            if now >= deadline { return FlushFailure(.timedOut, "out of time; last: \(lastReason)") }
            switch pass(.flush, deadline: deadline) {
            case .stored(let point):
                didUpload = point >= wanted
                lastReason = "more was committed meanwhile"
            case .nothingNew:
                lastReason = "the snapshot is not complete"
                Threads.pause(microseconds: 20_000)
            case .gone: return FlushFailure(.noDatabase, "\(database.path) is gone, or replaced by another file")
            case .unseen(let reason): return FlushFailure(.noDatabase, Replicator.unseen(reason))
            case .busy:
                lastReason = "another copier is at work"
                waitForPass()
            case .tooEarly: Threads.pause(microseconds: 20_000)
            case .overtaken: lastReason = "commits came faster than they were stored"
            case .failed(let reason, let final):
                lastReason = reason
                tries += 1
                if tries >= 3 || final != nil { return FlushFailure(final ?? .notStored, reason) }
                Threads.pause(microseconds: 200_000)
            }
        }
    }

    /// nil: the manifest is there. Else it has to be written again, and is from the next pass on.
    private func verify(_ mark: WriterMark) -> Result<String?, any Error> {
        do {
            let reason = try ManifestFence.verify(database, target, key: copier.manifestName, mark, .flush)
            switch reason {
            case nil: return .success(nil)
            case .vanished?, .older?: noteVanished(reason.map { "\($0)" } ?? "")
            // The next pass finds out as well, and is fenced.
            case .foreign?: lock.withLock { repeats = true }
            }
            return .success(reason?.description)
        } catch {
            return .failure(error)
        }
    }

    private func noteVanished(_ reason: String) {
        logger.error(
            "what was stored is not there any more; everything is uploaded again",
            metadata: ["database": "\(database.path)", "store": "\(target.store.name)", "reason": "\(reason)"])
        copier.forget(self)
    }

    private func waitForPass() {
        let soon = MonotonicTime.now.advanced(seconds: 0.02)
        lock.withLock { if isPassing { lock.wait(until: soon) } else { Threads.pause(microseconds: 20_000) } }
    }
}
