import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A database elsewhere, as this process knows it: the newest snapshot, and how
/// to get a newer one. Connections share it; each uses a snapshot as long as it wants.
///
/// The newest known snapshot never goes back: an answer from another source
/// than the last one is taken only where it isn't older.
///
/// No lock is held while something is fetched. Safe from any thread; belongs to one process.
public final class Replica: @unchecked Sendable {
    public let location: ReplicaLocation
    /// Owns the cache; a registry refers to its replicas weakly.
    private let registry: ReplicaRegistry
    /// Of all snapshots together.
    private let allowance = TreeAhead.Allowance()

    private let lock = Lock()
    // Under the lock:
    private var known: Known?
    private var lastBase: (name: Fingerprint, bytes: [UInt8])?
    /// Fetches begun and ended so far; one at a time.
    private var begun = 0
    private var ended = 0
    private var lastResult: Result<Snapshot, ReplicaError>?
    private var lastAttempt = MonotonicTime(nanoseconds: 0)
    private var isScheduled = false

    private struct Known {
        var snapshot: Snapshot
        var origin: ManifestSource.Origin
        var tag: String
        /// Of the manifest as it was stored.
        var body: Fingerprint
        var changeCounter: UInt32?
    }

    init(at location: ReplicaLocation, in registry: ReplicaRegistry) {
        self.location = location
        self.registry = registry
    }

    /// The newest snapshot that has been fetched; nil before the first.
    public var newest: Snapshot? { lock.withLock { known?.snapshot } }

    /// The newest known snapshot; fetches where there is none yet.
    public func open() throws(ReplicaError) -> Snapshot {
        if let newest { return newest }
        return try fetch { self.known != nil }
    }

    /// Fetches, and answers the newest known snapshot then: at least as new as
    /// what was stored when this was called.
    public func refresh() throws(ReplicaError) -> Snapshot { try fetch { false } }

    /// Fetches, unless somebody is fetching already; answers the newest known snapshot.
    public func refreshUnlessUnderWay() throws(ReplicaError) -> Snapshot {
        let busy: Snapshot? = lock.withLock { begun > ended ? known?.snapshot : nil }
        if let busy { return busy }
        return try refresh()
    }

    /// Has a fetch done on another thread, unless one is under way. Failures are
    /// reported to the log; the next call tries again.
    public func scheduleRefresh() {
        let first = lock.withLock {
            if isScheduled || begun > ended { return false }
            isScheduled = true
            return true
        }
        guard first else { return }
        do throws(SystemError) {
            try Threads.spawn("verneuil-refresh") {
                do throws(ReplicaError) {
                    _ = try self.refresh()
                } catch {
                    Report.warning("refresh of \(self.location): \(error)")
                }
                self.lock.withLock { self.isScheduled = false }
            }
        } catch {
            lock.withLock { isScheduled = false }
            Report.warning("refresh of \(location): \(error)")
        }
    }

    /// Schedules a fetch where the configuration asks for one at intervals and the last is older than that.
    package func refreshIfDue() {
        guard let interval = registry.environment.autoRefreshInterval else { return }
        let last = lock.withLock { lastAttempt }
        if MonotonicTime.now.seconds(since: last) >= interval { scheduleRefresh() }
    }

    /// Runs a fetch that begins after this was called, or waits for one of
    /// somebody else's. `enough` (asked under the lock) cuts the wait short.
    private func fetch(unless enough: () -> Bool) throws(ReplicaError) -> Snapshot {
        lock.lock()
        let needed = begun + 1
        while true {
            if enough(), let known {
                lock.unlock()
                return known.snapshot
            }
            if ended >= needed, let result = lastResult {
                lock.unlock()
                return try result.get()
            }
            if begun == ended { break }
            lock.wait()
        }
        begun += 1
        lastAttempt = .now
        var base = lastBase
        let known = known
        lock.unlock()

        let result = Result { () throws(ReplicaError) in try fetchNow(known, &base) }

        lock.lock()
        ended = begun
        lastBase = base
        if case .success(let new) = result { self.known = new }
        let answer = result.map(\.snapshot)
        lastResult = answer
        lock.broadcast()
        lock.unlock()
        return try answer.get()
    }

    private func fetchNow(
        _ known: Known?, _ base: inout (name: Fingerprint, bytes: [UInt8])?
    ) throws(ReplicaError) -> Known {
        let answer = try registry.manifests.fetch(location, unless: known.map { ($0.origin, $0.tag) })
        let now = wallClock()
        switch (answer, known) {
        case (.notModified, let known?):
            known.snapshot.confirm(at: now)
            return known
        case (.notModified, nil):
            throw .refused("\(location): the store answered \"not modified\" to a plain GET")
        case (.found(let stored), _):
            let body = FingerprintKey.chunk.fingerprint(stored.body)
            if var known, known.body == body {
                known.snapshot.confirm(at: now)
                (known.origin, known.tag) = (stored.origin, stored.tag)
                return known
            }
            let manifest = try registry.manifests.resolve(stored.manifest, base: &base)
            let counter = Self.changeCounter(manifest)
            if let known, known.origin != stored.origin, Self.isOlder(manifest, counter, than: known) {
                Report.warning("\(location): another source has an older version, which is not used")
                return known
            }
            let snapshot = try Snapshot(
                manifest, fetched: now, cache: registry.cache, policy: registry.environment.policy,
                parallelism: registry.environment.parallelism, allowance: allowance)
            try snapshot.preload()
            return Known(
                snapshot: snapshot, origin: stored.origin, tag: stored.tag, body: body, changeCounter: counter)
        }
    }

    /// ctime decides where both have one and they differ; else SQLite's change counter, which wraps around.
    private static func isOlder(_ manifest: Manifest, _ counter: UInt32?, than known: Known) -> Bool {
        let ctime = FileTime(seconds: manifest.ctime, nanoseconds: Int64(manifest.ctimeNanoseconds))
        let unknown = FileTime(seconds: 0, nanoseconds: 0)
        if ctime != unknown, known.snapshot.ctime != unknown, ctime != known.snapshot.ctime {
            return ctime < known.snapshot.ctime
        }
        guard let counter, let last = known.changeCounter else { return false }
        return Int32(bitPattern: counter &- last) < 0
    }

    /// Bytes 24 to 27 of the database, where chunk 0 is bundled as usual.
    private static func changeCounter(_ manifest: Manifest) -> UInt32? {
        guard let first = manifest.bundled.first(where: { $0.index == 0 }), first.data.count >= 28 else { return nil }
        return first.data[24..<28].reduce(0) { $0 << 8 | UInt32($1) }
    }
}
