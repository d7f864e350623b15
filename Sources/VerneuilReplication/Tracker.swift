import CVerneuil
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

// SQLite's locks tell when the file is consistent: when EXCLUSIVE becomes
// SHARED (docs/SPOOL.md). In order, for one write transaction of one connection:
//
//   first write   EXCLUSIVE is held. Compare the file with the newest snapshot,
//                 open the transaction in the spool, give the file a new tag.
//   writes        mark chunks.
//   downgrade     SHARED is held: others may read, none can write. If no hot
//                 journal is left, stage the marked chunks.
//
// Where any step fails, the transaction goes on untracked: its tag and the
// change counter in the file's header are not those of the newest snapshot, so
// that the next transaction finds it in doubt and starts afresh. Nothing here
// answers an error to SQLite (S1).

/// Follows the transactions of one connection to one database file. Used by
/// one thread at a time, as SQLite uses the file itself.
public final class Tracker {
    public let database: SpoolDatabase
    private let producer: SpoolProducer
    private let replicator: Replicator
    private let isReadOnly: Bool
    private let journal: String

    private var dirty = DirtyChunks()
    private var scratch: UnsafeMutableRawPointer?

    private enum Phase {
        /// No write since the last transaction was dealt with.
        case clean
        /// Written to, and the spool knows.
        case tracked
        /// Written to, and the spool could not be told.
        case untracked
    }
    private var phase = Phase.clean
    private var tag = VersionTag()
    /// The process that began the transaction.
    private var owner: pid_t = 0
    private var notice: CommitNotice?
    /// The file's length when the transaction began, and the least that it was cut to since.
    private var beganWith: UInt64 = 0
    private var lowWater: UInt64 = 0

    /// The file as it was when it was last found to be what is staged (or when somebody was told that it isn't).
    private var seenLength: Int64 = -1
    private var seenModified = timespec()

    /// Whether the connection keeps EXCLUSIVE between transactions.
    public private(set) var isExclusive = false
    /// As last set by `PRAGMA journal_mode`.
    public var journalMode = "delete"
    private var committedUnderExclusive = false

    init(_ database: SpoolDatabase, _ producer: SpoolProducer, _ replicator: Replicator, isReadOnly: Bool) {
        self.database = database
        self.producer = producer
        self.replicator = replicator
        self.isReadOnly = isReadOnly
        journal = SourceLocks.journal(database.path)
    }

    deinit {
        scratch?.deallocate()
        replicator.release(producer)
    }

    // MARK: - What the VFS tells

    /// Before the file's bytes or length change.
    ///
    /// - Parameter holdsExclusive: SQLite's pager never writes without. Who does (an application that uses the VFS by
    ///   itself, or `nolock=1`) is not protected from others, and is treated as a stranger.
    @inline(__always)
    public func willChange(_ fd: Int32, holdsExclusive: Bool) {
        if phase == .clean || committedUnderExclusive { begin(fd, holdsExclusive) }
    }

    /// SQLite is about to write `count` bytes at `offset`.
    @inline(__always)
    public func willWrite(offset: Int64, count: Int) {
        dirty.mark(offset: offset, length: count)
    }

    /// The file is about to be cut (or stretched) to `size` bytes.
    public func willTruncate(to size: Int64) {
        lowWater = min(lowWater, UInt64(max(0, size)))
    }

    /// SHARED was just taken: a transaction begins, of whatever kind.
    @inline(__always)
    public func didLockShared(_ fd: Int32) {
        var st = stat()
        guard vrn_fstat(fd, &st) == 0 else { return }
        let modified = withUnsafePointer(to: st) { vrn_stat_mtime($0) }
        if st.st_size == seenLength && modified.tv_sec == seenModified.tv_sec && modified.tv_nsec == seenModified.tv_nsec {
            return
        }
        lookForStrangers(fd, st)
    }

    /// `PRAGMA locking_mode=…` was asked for, for this database or all of the connection. Where it isn't so after all, that
    /// does no harm: what is committed under EXCLUSIVE may be staged under it.
    public func willSetLockingMode(exclusive: Bool) {
        isExclusive = exclusive
    }

    /// SQLITE_FCNTL_COMMIT_PHASETWO: the transaction is committed. It is
    /// followed by a downgrade, but for connections that stay exclusive.
    public func didCommit(_ fd: Int32, holdsExclusive: Bool) {
        guard holdsExclusive else {
            // Without locks (nolock=1) nothing else tells of it.
            if phase == .untracked { finish(fd) }
            return
        }
        if isExclusive {
            finish(fd)
        } else {
            committedUnderExclusive = true
        }
    }

    /// EXCLUSIVE (or RESERVED) just became SHARED.
    @inline(__always)
    public func didDowngrade(_ fd: Int32) {
        committedUnderExclusive = false
        isExclusive = false
        if phase != .clean { finish(fd) }
    }

    /// The file is about to be closed, or was unlocked altogether without a downgrade: what wasn't staged stays in doubt.
    public func abandon() {
        phase = .clean
        committedUnderExclusive = false
        dirty.removeAll()
    }

    // MARK: - Flush

    private var flushesOnClose = false
    private let opener = getpid()

    /// Uploads all that is committed; false, and why in the log, where that wasn't possible.
    ///
    /// - Parameter holdsLock: this connection has more than SHARED.
    public func flush(_ fd: Int32, holdsLock: Bool) -> Bool {
        report((holdsLock ? obstacle(fd) : nil) ?? replicator.flush(database, timeout: 300))
    }

    private func report(_ reason: String?) -> Bool {
        if let reason { replicator.noteUnflushed(database, reason) }
        return reason == nil
    }

    /// Why a flush would wait for this connection itself, whose lock keeps others from writing.
    private func obstacle(_ fd: Int32) -> String? {
        guard isExclusive && phase == .clean else { return "this connection is in a write transaction" }
        // What is staged can be stored. All else takes a full snapshot, which waits for the lock.
        do throws(SystemError) {
            let state = try SourceState.read(fd, path: database.path)
            if let records = try database.control(), records.isCurrentTrusted, state.proves(records.current.state) { return nil }
        } catch {
            return "\(error)"
        }
        return "a full snapshot is needed, and waits for the lock that this connection keeps (locking_mode=EXCLUSIVE): "
            + "commit something and flush again, or set locking_mode=NORMAL and read something first"
    }

    /// Whether closing the connection flushes. Answers the old setting.
    public func setFlushOnClose(_ flushes: Bool) -> Bool {
        defer { flushesOnClose = flushes }
        return flushesOnClose
    }

    /// The file was closed. In a forked child that was the parent's connection, which flushes when it is closed there.
    public func didClose() {
        if flushesOnClose && opener == getpid() { _ = report(replicator.flush(database, timeout: 300)) }
    }

    // MARK: - begin

    @inline(never)
    private func begin(_ fd: Int32, _ holdsExclusive: Bool) {
        if committedUnderExclusive {
            // The last commit was not followed by a downgrade: this connection stays exclusive, and nobody told. No byte
            // has changed since; the journal that is there already is of the transaction that begins.
            isExclusive = true
            committedUnderExclusive = false
            finish(fd, isCommitted: true)
        }
        dirty.removeAll()
        phase = .untracked
        tag = VersionTag()
        owner = getpid()
        do throws(SystemError) {
            if holdsExclusive {
                let found = try SourceState.read(fd, path: database.path)
                beganWith = found.length
                lowWater = found.length
                if let doubt = try producer.begin(found), doubt != .firstUse { replicator.noteDoubt(database, doubt) }
                phase = .tracked
            }
        } catch {
            replicator.noteFailure(database, error)
        }
        // Whatever became of the above: no snapshot may be believed to be of the file as it is from here on.
        do throws(SystemError) {
            tag = try VersionTag.replace(fd, path: database.path)
        } catch {
            phase = .untracked
            replicator.noteFailure(database, error)
        }
    }

    // MARK: - stage

    /// - Parameter isCommitted: nobody needs to look whether the journal says otherwise.
    @inline(never)
    private func finish(_ fd: Int32, isCommitted: Bool = false) {
        guard phase != .clean else { return }
        let tracked = phase == .tracked
        phase = .clean
        defer { dirty.removeAll() }
        // A forked child that closes what it inherited must not finish its parent's transaction.
        guard owner == getpid() else { return }
        guard tracked else {
            replicator.needsBuild(database)
            return
        }
        do throws(SystemError) {
            // The transaction failed half-way: the next one rolls it back, and finds "begun" without "staged".
            if !isCommitted, try SourceLocks.isLive(journal: journal) { return }
            let room = scratch ?? UnsafeMutableRawPointer.allocate(byteCount: SpoolProducer.scratchBytes, alignment: 4096)
            scratch = room
            let staged = try producer.stage(fd, path: database.path, tag: tag, scratch: room) { length in
                markTail(length)
                return dirty.sorted()
            }
            remember(staged.state)
            replicator.didStage(database, staged, &notice, process: owner)
        } catch {
            replicator.noteFailure(database, error)
            replicator.needsBuild(database)
        }
    }

    /// What lies beyond the end of the old file changed with it: the last chunk
    /// grew or shrank, and those after it came or went, written or not.
    private func markTail(_ length: UInt64) {
        if length == beganWith && lowWater == beganWith { return }
        dirty.mark(chunks: Int(min(lowWater, length) >> 16), Chunk.count(forLength: length))
    }

    private func remember(_ state: SourceState) {
        seenLength = Int64(state.length)
        seenModified = timespec(tv_sec: Int(state.modified.seconds), tv_nsec: Int(state.modified.nanoseconds))
    }

    // MARK: - Strangers

    /// The file isn't as this connection saw it last: another connection
    /// committed and staged, or somebody wrote who doesn't.
    @inline(never)
    private func lookForStrangers(_ fd: Int32, _ st: stat) {
        seenLength = Int64(st.st_size)
        seenModified = withUnsafePointer(to: st) { vrn_stat_mtime($0) }
        do throws(SystemError) {
            let state = try SourceState.read(fd, path: database.path)
            if let records = try producer.readControl() {
                if records.isCurrentTrusted && state.proves(records.current.state) {
                    if !records.isCurrentWhole { replicator.needsBuild(database) }
                    return
                }
            } else if state.length == 0 {
                return
            }
            replicator.needsBuild(database)
        } catch {
            replicator.noteFailure(database, error)
        }
    }
}
