import CVerneuil
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

/// What can be told about replication from the spooling directory alone: no
/// process has to run, no lock is taken, nothing is written and no store is asked.
///
///     for database in report.databases { print(database.path, database.lag ?? 0) }
///
/// How far behind a target is follows from what producers and copiers wrote
/// down; that nobody spools at all, from the database itself, which is compared with what is staged.
public struct SpoolReport: Sendable {
    /// The spooling directory.
    public var directory: String
    /// What is wrong with all of it.
    public var problems: [String] = []
    /// By their paths.
    public var databases: [DatabaseReport] = []

    /// The largest lag of all, in seconds.
    public var lag: Double { databases.compactMap(\.lag).max() ?? 0 }

    /// Whether replication works, with no problem and no lag above a limit.
    /// - Parameter limit: in seconds.
    public func isFine(limit: Double) -> Bool {
        problems.isEmpty && databases.allSatisfy { $0.problems.isEmpty && ($0.lag ?? 0) <= limit }
            && databases.allSatisfy { $0.targets.allSatisfy { $0.problems.isEmpty } }
    }

    /// - Parameters:
    ///   - targets: those that must have everything; nil: all that copiers have written about.
    ///   - now: nanoseconds since 1970; nil: by the clock.
    package init(_ spool: SpoolDirectory, targets: [ReplicationTarget]?, now: UInt64? = nil) {
        directory = spool.root
        let now = now ?? Self.wallNanoseconds()
        if let targets, targets.isEmpty { problems.append("no replication target is configured: nothing is uploaded") }
        do throws(SystemError) {
            guard let status = try Files.status(spool.root) else {
                problems.append("there is no directory \(spool.root): nothing was ever spooled here")
                return
            }
            guard status.isDirectory else {
                problems.append("\(spool.root) is no directory")
                return
            }
            if vrn_access(spool.root, W_OK | X_OK) != 0 { problems.append("\(spool.root) can't be written by this user") }
            if let boot = try Files.status(spool.boot), !boot.isDirectory || vrn_access(spool.boot, W_OK | X_OK) != 0 {
                problems.append("\(spool.boot) can't be written by this user")
            }
            let found = try spool.databases { problems.append("something in the spool can't be read: \($0)") }
            for database in found.sorted(by: { $0.path < $1.path }) {
                databases.append(DatabaseReport(database, targets: targets, now: now))
            }
        } catch {
            problems.append("the spool can't be read: \(error)")
        }
    }

    static func wallNanoseconds() -> UInt64 {
        let time = wallClock()
        return UInt64(clamping: time.seconds) &* 1_000_000_000 &+ UInt64(clamping: time.nanoseconds)
    }
}

/// One database file in a `SpoolReport`. Times are nanoseconds since 1970.
public struct DatabaseReport: Sendable {
    /// Canonical.
    public var path: String
    /// The database file's length; nil: it isn't there, or another file is.
    public var bytes: UInt64?
    /// Chunks and bytes of the newest snapshot; nil: there is none that is whole.
    public var stagedChunks: Int?
    /// See ``stagedChunks``.
    public var stagedBytes: UInt64?
    /// Transactions committed through the verneuil VFS since this machine started.
    public var transactions: UInt64 = 0
    /// When the file was changed last, if that isn't spooled: nanoseconds since 1970 (UTC), by its file system's clock; nil: all is.
    public var unspooledSince: UInt64?
    /// Disk space of the spool, and the most that it may have (S2), in bytes.
    public var spoolBytes: Int64 = 0
    /// See ``spoolBytes``.
    public var spoolBound: Int64 = 0
    /// What stops replication to all targets.
    public var problems: [String] = []
    /// Those that must have everything.
    public var targets: [TargetReport] = []
    /// Seconds since the oldest commit that some target lacks; nil: none does.
    public var lag: Double?

    init(_ database: SpoolDatabase, targets: [ReplicationTarget]?, now: UInt64) {
        path = database.path
        let records: SpoolControl?
        do throws(SystemError) {
            records = try database.control()
            if records == nil { problems.append("the spool's control page is missing or damaged; the next commit begins anew") }
        } catch {
            records = nil
            problems.append("the spool can't be read: \(error)")
        }
        transactions = records?.producer.transactions ?? 0
        inspect(database, records)
        let snapshot = database.newestSnapshot()
        stagedChunks = snapshot?.chunks.count
        stagedBytes = snapshot?.state.length
        spoolBytes = database.allocatedBytes()
        var known = database.targetRecords()
        var wanted = targets?.map { (id: $0.identifier, name: $0.store.name) } ?? known.map { (id: $0.key, name: $0.value.name) }
        wanted.sort { $0.name < $1.name }
        for (id, name) in wanted {
            let record = known.removeValue(forKey: id)
            var report = TargetReport(database, id, record ?? TargetRecord(name: name), records, snapshot, now: now)
            if let since = unspooledSince, since < now { report.lag = max(report.lag ?? 0, Double(now - since) / 1e9) }
            self.targets.append(report)
        }
        lag = self.targets.compactMap(\.lag).max()
        // Whole pages of the file system for small files (S2), of which each target has four.
        spoolBound = 4 * Int64(max(bytes ?? 0, stagedBytes ?? 0)) + 65_536 + Int64(self.targets.count) * 16_384
        if self.targets.isEmpty {
            let since = [records?.pendingSince(after: .none), unspooledSince].compactMap(\.self).min()
            if let since { lag = max(0, Double(now) - Double(since)) / 1e9 }
        }
        let pending = records?.pendingSince ?? 0
        if pending > now &+ 5_000_000_000 {
            problems.append("the clock was set back by \((pending - now) / 1_000_000_000) s or more: the lag can't be told")
        }
    }

    /// Looks at the database itself.
    private mutating func inspect(_ database: SpoolDatabase, _ records: SpoolControl?) {
        do throws(SystemError) {
            switch try database.presence() {
            case .here: break
            case .gone(isReplaced: false): return problems.append("the database is gone; its spool is removed by the next copier")
            case .gone(isReplaced: true): return problems.append("another file is at this path; this one's spool is removed by the next copier")
            case .unseen(let reason): return problems.append(Replicator.unseen(reason))
            }
            let file = try Descriptor(database.path, O_RDONLY)
            let status = try file.status()
            bytes = UInt64(max(0, status.size))
            if try file.isInWALMode() {
                problems.append("the database is in WAL mode, which is not replicated: set journal_mode=DELETE with another VFS")
            }
            // A crash, until somebody opens the database. Looked at twice: a transaction may just have ended.
            if try SourceLocks.hasLiveJournal(database.path), try !SourceLocks.isReserved(file.fd, path: database.path),
                try !SourceLocks.isBeingWritten(file.fd, path: database.path), try SourceLocks.hasLiveJournal(database.path)
            {
                problems.append("a transaction was left by a crash (hot journal): open the database to roll it back")
            }
            let state = try SourceState.read(file.fd, path: database.path)
            func isStaged(_ records: SpoolControl?) -> Bool {
                records.map { $0.isCurrentTrusted && state.proves($0.current.state) } ?? false
            }
            if !isStaged(records), !isStaged(try database.control()) {
                let at = status.modified
                unspooledSince = UInt64(clamping: at.seconds) &* 1_000_000_000 &+ UInt64(clamping: at.nanoseconds)
            }
        } catch {
            problems.append("the database can't be read: \(error)")
        }
    }
}

/// One target of one database. Times are nanoseconds since 1970; 0: never.
public struct TargetReport: Sendable {
    /// As it stands in the spool's file names.
    public var identifier: String
    /// The store's.
    public var name: String
    /// Seconds since the oldest commit that isn't here; nil: everything is.
    public var lag: Double?
    /// Of the newest snapshot, what isn't here: chunks to send, and their bytes before compression.
    public var pendingChunks = 0
    /// See ``pendingChunks``.
    public var pendingBytes: UInt64 = 0
    /// Chunks and bytes sent since this machine started; bytes as sent, compressed.
    public var uploadedChunks: Int
    /// See ``uploadedChunks``.
    public var uploadedBytes: Int
    /// When a snapshot was stored last: nanoseconds since 1970 (UTC); 0: never.
    public var lastSuccess: UInt64
    /// When a pass failed last: nanoseconds since 1970 (UTC); 0: never.
    public var lastError: UInt64
    /// Its reason.
    public var error: String
    /// Failures since the last success.
    public var failures: Int
    /// Chunks of the upload that is under way, if one is.
    public var progress: (done: Int, total: Int)?
    /// The store can't tell who wrote last: two machines of one name would overwrite each other.
    public var isUnguarded: Bool
    /// What stops this target until somebody does something.
    public var problems: [String] = []

    init(
        _ database: SpoolDatabase, _ id: String, _ record: TargetRecord, _ records: SpoolControl?,
        _ snapshot: StagedSnapshot?, now: UInt64
    ) {
        identifier = id
        name = record.name
        uploadedChunks = record.sentChunks
        uploadedBytes = record.sentBytes
        lastSuccess = record.lastSuccess
        lastError = record.lastError
        error = record.error
        failures = record.failures
        isUnguarded = record.isUnguarded
        if let progress = record.progress, now &- progress.at < 60_000_000_000 { self.progress = (progress.done, progress.total) }
        if let since = records?.pendingSince(after: record.stored) { lag = max(0, Double(now) - Double(since)) / 1e9 }
        do throws(SystemError) {
            let fence = try database.lineage(id).fencedBy
            if !fence.isEmpty {
                problems.append("fenced: \(fence); verneuilctl sync --take-over makes this machine the one")
            }
        } catch {
            problems.append("whether another machine replicates to the same name can't be read: \(error)")
        }
        guard let snapshot, lag != nil else { return }
        let stored = database.storedChunks(id) ?? []
        var have = Set(stored)
        have.insert(Chunk.zeroFingerprint)
        for index in snapshot.chunks.indices.dropFirst() {
            let chunk = snapshot.chunks[index]
            if index < stored.count && stored[index] == chunk { continue }
            if !have.insert(chunk).inserted { continue }
            pendingChunks += 1
            pendingBytes += UInt64(Chunk.length(ofChunk: index, databaseLength: snapshot.state.length))
        }
    }
}
