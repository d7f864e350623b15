import CVerneuil
import Logging
import VerneuilReplication
import VerneuilSystem

/// The `verneuil` VFS: the `linux` VFS, and replication for main database
/// files when there is a replicator. Without one its methods are the linux VFS's own.
public enum ReplicatedVFS {
    public static let name = "verneuil"

    /// Makes the VFS known to SQLite; doing it again is fine.
    ///
    /// - Parameter makeDefault: whether connections that name no VFS use this one.
    /// - Returns: SQLITE_OK, or as `LinuxVFS.register`.
    public static func register(makeDefault: Bool) -> Int32 {
        guard vrn_sqlite3_has_api() != 0 else { return SQLITE_MISUSE }
        _ = vrn_fork_prepare()
        return vrn_sqlite3_vfs_register(shared, makeDefault ? 1 : 0)
    }

    /// What replicates the databases opened from now on; nil: nothing does.
    /// Connections that are open keep the one that they were opened with. Safe from any thread.
    public static var replicator: Replicator? {
        get { current.lock.withLock { current.replicator } }
        set { current.lock.withLock { current.replicator = newValue } }
    }

    private final class Current: @unchecked Sendable {
        let lock = Lock()
        var replicator: Replicator?
    }
    private static let current = Current()

    private nonisolated(unsafe) static let shared: UnsafeMutablePointer<sqlite3_vfs> = {
        let vfs = LinuxVFS.makeVFS(named: name)
        vfs.pointee.xOpen = verneuil_replicated_vfs_xOpen
        return vfs
    }()

    /// The methods of a replicated database.
    nonisolated(unsafe) static let methods = table {
        $0.xClose = verneuil_replicated_xClose
        $0.xWrite = verneuil_replicated_xWrite
        $0.xTruncate = verneuil_replicated_xTruncate
        $0.xLock = verneuil_replicated_xLock
        $0.xUnlock = verneuil_replicated_xUnlock
        $0.xFileControl = verneuil_replicated_xFileControl
    }

    /// Those of the linux VFS, but for what `change` sets; never freed.
    static func table(_ change: (inout sqlite3_io_methods) -> Void) -> UnsafePointer<sqlite3_io_methods> {
        let table = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)
        table.initialize(to: LinuxVFS.databaseMethods.pointee)
        change(&table.pointee)
        return UnsafePointer(table)
    }
}

// MARK: - xOpen

@c
package func verneuil_replicated_vfs_xOpen(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?,
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ flags: Int32, _ outFlags: UnsafeMutablePointer<Int32>?
) -> Int32 {
    guard flags & SQLITE_OPEN_MAIN_DB != 0, let path else {
        return verneuil_linux_vfs_xOpen(vfs, path, file, flags, outFlags)
    }
    var chosen = ReplicatedVFS.replicator
    if let parameters = ConnectionParameters(path) {
        // Before the file is opened: it must not be made where it can't be replicated as was asked.
        do throws(ConnectionRefusal) {
            chosen = try ConnectionSettings.answer(
                to: parameters, for: .replication, path: String(cString: path)).replicator
        } catch {
            file?.pointee.pMethods = nil
            return error.report(vfs: ReplicatedVFS.name, path: path)
        }
    }
    let result = verneuil_linux_vfs_xOpen(vfs, path, file, flags, outFlags)
    guard result == SQLITE_OK, let replicator = chosen else { return result }
    let opened = linuxFile(file)

    let isInWAL = isInWALMode(opened.pointee.fd)
    if isInWAL {
        // SQLite itself refuses with SQLITE_CANTOPEN when it finds that there is no shared memory, and doesn't say why.
        let name = String(cString: path)
        replicator.noteRefusal(
            "this database is in WAL mode, which the verneuil VFS can't offer: run \"PRAGMA journal_mode=DELETE\" on it with another VFS first",
            path: name)
        vrn_sqlite3_log(SQLITE_CANTOPEN, "verneuil VFS: \(name) is in WAL mode; set another journal_mode with another VFS first")
    }

    let tracker = replicator.tracker(
        path: String(cString: path), device: opened.pointee.device, inode: opened.pointee.inode,
        isReadOnly: opened.pointee.flags & UInt32(VRN_FILE_READONLY) != 0)
    opened.pointee.tracker = Unmanaged.passRetained(tracker).toOpaque()
    opened.pointee.base.pMethods = isInWAL ? ReplicatedVFS.methodsInWALMode : ReplicatedVFS.methods
    if flags & SQLITE_OPEN_URI != 0, vrn_sqlite3_uri_boolean(path, "nolock", 0) != 0 {
        replicator.noteUnlocked(path: String(cString: path))
    }
    return SQLITE_OK
}

/// SQLite file format, 1.3.3: the version numbers at offsets 18 and 19 are 2 in WAL mode.
func isInWALMode(_ fd: Int32) -> Bool {
    withUnsafeTemporaryAllocation(byteCount: 20, alignment: 8) { header in
        guard vrn_pread(fd, header.baseAddress, 20, 0) == 20 else { return false }
        return header.starts(with: Array("SQLite format 3\0".utf8)) && (header[18] == 2 || header[19] == 2)
    }
}

/// The tracker of a replicated file, without touching its reference count.
@inline(__always)
func withTracker<R>(_ file: UnsafeMutablePointer<vrn_file>, _ body: (Tracker) -> R) -> R {
    Unmanaged<Tracker>.fromOpaque(file.pointee.tracker.unsafelyUnwrapped)._withUnsafeGuaranteedRef(body)
}

@c
package func verneuil_replicated_xClose(_ file: UnsafeMutablePointer<sqlite3_file>?) -> Int32 {
    let opened = linuxFile(file)
    let tracker = Unmanaged<Tracker>.fromOpaque(opened.pointee.tracker.unsafelyUnwrapped).takeRetainedValue()
    opened.pointee.tracker = nil
    tracker.abandon()
    let result = verneuil_linux_xClose(file)
    tracker.didClose()
    return result
}

// MARK: - Changes

@c
package func verneuil_replicated_xWrite(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ buffer: UnsafeRawPointer?, _ amount: Int32, _ offset: sqlite3_int64
) -> Int32 {
    let opened = linuxFile(file)
    let fd = opened.pointee.fd
    let isExclusive = opened.pointee.lock == SQLITE_LOCK_EXCLUSIVE
    withTracker(opened) { tracker in
        tracker.willChange(fd, holdsExclusive: isExclusive)
        // Marked before the write: one that fails may have changed something as well.
        tracker.willWrite(offset: offset, count: Int(amount))
    }
    return verneuil_linux_xWrite(file, buffer, amount, offset)
}

@c
package func verneuil_replicated_xTruncate(_ file: UnsafeMutablePointer<sqlite3_file>?, _ size: sqlite3_int64) -> Int32 {
    let opened = linuxFile(file)
    let fd = opened.pointee.fd
    let isExclusive = opened.pointee.lock == SQLITE_LOCK_EXCLUSIVE
    withTracker(opened) { tracker in
        tracker.willChange(fd, holdsExclusive: isExclusive)
        tracker.willTruncate(to: size)
    }
    return verneuil_linux_xTruncate(file, size)
}

// MARK: - Locks

@c
package func verneuil_replicated_xLock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let result = verneuil_linux_xLock(file, level)
    if result == SQLITE_OK && level == SQLITE_LOCK_SHARED {
        let opened = linuxFile(file)
        let fd = opened.pointee.fd
        withTracker(opened) { $0.didLockShared(fd) }
    }
    return result
}

/// Where a write transaction ends: on the way from EXCLUSIVE down, whether to
/// SHARED or to nothing, SHARED is held while the tracker stages what was committed.
@c
package func verneuil_replicated_xUnlock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let opened = linuxFile(file)
    guard opened.pointee.lock > SQLITE_LOCK_SHARED else { return verneuil_linux_xUnlock(file, level) }
    let result = verneuil_linux_xUnlock(file, SQLITE_LOCK_SHARED)
    let fd = opened.pointee.fd
    if result == SQLITE_OK {
        withTracker(opened) { $0.didDowngrade(fd) }
    } else {
        withTracker(opened) { $0.abandon() }
    }
    if level >= SQLITE_LOCK_SHARED || fd < 0 { return result }
    return verneuil_linux_xUnlock(file, level)
}

// MARK: - File controls

@c
package func verneuil_replicated_xFileControl(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ operation: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    let opened = linuxFile(file)
    let fd = opened.pointee.fd
    switch operation {
    case SQLITE_FCNTL_COMMIT_PHASETWO:
        let isExclusive = opened.pointee.lock == SQLITE_LOCK_EXCLUSIVE
        withTracker(opened) { $0.didCommit(fd, holdsExclusive: isExclusive) }
    case SQLITE_FCNTL_SIZE_HINT where opened.pointee.chunk_size > 0:
        // Makes the file longer. A hint outside a write transaction would change the file under a reader's lock: SQLite gives none.
        let isExclusive = opened.pointee.lock == SQLITE_LOCK_EXCLUSIVE
        withTracker(opened) { $0.willChange(fd, holdsExclusive: isExclusive) }
    case SQLITE_FCNTL_PDB:
        if let argument { join(opened, argument.load(as: OpaquePointer?.self)) }
    case SQLITE_FCNTL_PRAGMA:
        if let argument {
            let words = argument.assumingMemoryBound(to: UnsafeMutablePointer<CChar>?.self)
            if let answer = pragma(opened, words) {
                words[0] = vrn_sqlite3_strdup(answer)
                return SQLITE_OK
            }
        }
    default: break
    }
    return verneuil_linux_xFileControl(file, operation, argument)
}

/// The answer to a pragma of ours; nil for all others.
private func pragma(
    _ file: UnsafeMutablePointer<vrn_file>, _ words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
) -> String? {
    guard let name = words[1].map({ String(cString: $0).lowercased() }) else { return nil }
    let value = words[2].map { String(cString: $0).lowercased() }
    switch name {
    case "locking_mode":
        if let value, value == "exclusive" || value == "normal" { setLockingMode(file, exclusive: value == "exclusive") }
        return nil
    case "journal_mode":
        // Under locking_mode=EXCLUSIVE SQLite would enter WAL mode even without shared memory; it answers with
        // the mode in force where it can't, and so do we.
        return withTracker(file) { tracker in
            if value == "wal" { return tracker.isExclusive ? tracker.journalMode : nil }
            if let value, ["delete", "truncate", "persist", "memory", "off"].contains(value) { tracker.journalMode = value }
            return nil
        }
    case "verneuil_flush_replication_data":
        let (fd, holdsLock) = (file.pointee.fd, file.pointee.lock > SQLITE_LOCK_SHARED)
        return withTracker(file) { tracker in
            switch value {
            case nil, "now", "force", "2": return tracker.flush(fd, holdsLock: holdsLock) ? "1" : "0"
            case "1", "on", "true", "yes": return tracker.setFlushOnClose(true) ? "1" : "0"
            case "0", "off", "false", "no": return tracker.setFlushOnClose(false) ? "1" : "0"
            default: return nil
            }
        }
    default: return nil
    }
}
