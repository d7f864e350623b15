import CVerneuil
import Logging
import VerneuilReplica
import VerneuilSystem

/// The `verneuil_snapshot` VFS: read replicas (docs/REPLICAS.md). Opens what a manifest
/// describes as a database that can't be written.
///
/// - The name is a manifest file's, or `verneuil://HOST/PATH`; both may stand in a URI.
/// - What a connection sees changes only between transactions, and only where
///   it asks for that (SnapshotPragmas.swift).
/// - Everything but main database files is the linux VFS's.
public enum SnapshotVFS {
    public static let name = "verneuil_snapshot"

    /// Makes the VFS known to SQLite, and sets where replicas come from. Doing
    /// it again replaces that for replicas that are opened from then on.
    ///
    /// - Returns: SQLITE_OK, SQLITE_MISUSE where SQLite's function table is not set
    ///   (`vrn_sqlite3_set_api`), or what sqlite3_vfs_register answers.
    ///
    /// Safe from any thread.
    public static func register(environment: ReplicaEnvironment) -> Int32 {
        guard vrn_sqlite3_has_api() != 0 else { return SQLITE_MISUSE }
        _ = vrn_fork_prepare()
        Replicas.configure(environment)
        return vrn_sqlite3_vfs_register(shared, 0)
    }

    // SQLite keeps pointers to these as long as the process runs, so they are never freed.
    private nonisolated(unsafe) static let shared: UnsafeMutablePointer<sqlite3_vfs> = {
        let vfs = LinuxVFS.makeVFS(named: name)
        vfs.pointee.szOsFile = Int32(max(MemoryLayout<vrn_file>.stride, MemoryLayout<vrn_snapshot_file>.stride))
        // A host's name in front of a path.
        vfs.pointee.mxPathname = LinuxVFS.longestPath + 512
        vfs.pointee.xOpen = verneuil_snapshot_vfs_xOpen
        vfs.pointee.xDelete = verneuil_snapshot_vfs_xDelete
        vfs.pointee.xAccess = verneuil_snapshot_vfs_xAccess
        vfs.pointee.xFullPathname = verneuil_snapshot_vfs_xFullPathname
        return vfs
    }()

    fileprivate nonisolated(unsafe) static let methods: UnsafePointer<sqlite3_io_methods> = {
        var table = sqlite3_io_methods()
        // For xFetch and xUnfetch. Without xShmMap there is no write-ahead log.
        table.iVersion = 3
        table.xClose = verneuil_snapshot_xClose
        table.xRead = verneuil_snapshot_xRead
        table.xWrite = { _, _, _, _ in SQLITE_READONLY }
        table.xTruncate = { _, _ in SQLITE_READONLY }
        table.xSync = { _, _ in SQLITE_OK }
        table.xFileSize = verneuil_snapshot_xFileSize
        table.xLock = verneuil_snapshot_xLock
        table.xUnlock = verneuil_snapshot_xUnlock
        table.xCheckReservedLock = verneuil_snapshot_xCheckReservedLock
        table.xFileControl = verneuil_snapshot_xFileControl
        table.xSectorSize = { _ in 4096 }
        // Not SQLITE_IOCAP_IMMUTABLE: then SQLite would never look whether the content has changed.
        table.xDeviceCharacteristics = { _ in 0 }
        table.xFetch = verneuil_snapshot_xFetch
        table.xUnfetch = verneuil_snapshot_xUnfetch
        let pointer = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)
        pointer.initialize(to: table)
        return UnsafePointer(pointer)
    }()

    private static let logger = Logger(label: "verneuil.snapshot")

    /// SQLite's codes say little: the reason goes to the application's error log and to ours.
    static func report(_ code: Int32, _ message: String) {
        // SQLite cuts a line of its log after 209 bytes.
        var rest = Substring(message)
        while !rest.isEmpty {
            let line = rest.prefix(150)
            vrn_sqlite3_log(code, "\(name): \(line)")
            rest = rest[line.endIndex...]
        }
        logger.warning("\(message)")
    }
}

@c
package func verneuil_snapshot_vfs_xOpen(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?,
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ flags: Int32, _ outFlags: UnsafeMutablePointer<Int32>?
) -> Int32 {
    reseedAfterFork()
    guard let path, flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL) != 0 else {
        return verneuil_linux_vfs_xOpen(vfs, path, file, flags, outFlags)
    }
    let file = snapshotFile(file)
    file.initialize(to: vrn_snapshot_file())
    // Replicas have neither.
    guard flags & SQLITE_OPEN_MAIN_DB != 0 else { return SQLITE_CANTOPEN }
    let name = String(cString: path)
    var registry = Replicas.registry
    if let parameters = ConnectionParameters(path) {
        do throws(ConnectionRefusal) {
            registry = try ConnectionSettings.answer(to: parameters, for: .reading, path: name).replicas
        } catch {
            return error.report(vfs: SnapshotVFS.name, path: path)
        }
    }
    do throws(ReplicaError) {
        let replica = registry.replica(at: try ReplicaLocation(name, host: registry.environment.hostName))
        let isFrozen =
            vrn_sqlite3_uri_boolean(path, "immutable", 0) != 0 || vrn_sqlite3_uri_boolean(path, "nolock", 0) != 0
        let connection = SnapshotConnection(replica, try replica.open(), name: name, isFrozen: isFrozen)
        file.pointee.connection = Unmanaged.passRetained(connection).toOpaque()
        file.pointee.pid = getpid()
        connection.publish(to: file)
    } catch {
        SnapshotVFS.report(SQLITE_CANTOPEN, "can't open \(name): \(error)")
        return SQLITE_CANTOPEN
    }
    file.pointee.base.pMethods = SnapshotVFS.methods
    outFlags?.pointee = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY
    return SQLITE_OK
}

/// `verneuil://…` is kept as it is; a manifest file's path is made absolute.
@c
package func verneuil_snapshot_vfs_xFullPathname(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ size: Int32,
    _ out: UnsafeMutablePointer<CChar>?
) -> Int32 {
    guard let path, let out, isReplicaName(path) else {
        return verneuil_linux_vfs_xFullPathname(vfs, path, size, out)
    }
    let length = strlen(path)
    guard length < Int(size) else { return SQLITE_CANTOPEN }
    memcpy(out, path, length + 1)
    return SQLITE_OK
}

/// A replica has no journal, whatever lies beside its manifest.
@c
package func verneuil_snapshot_vfs_xAccess(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ flags: Int32,
    _ answer: UnsafeMutablePointer<Int32>?
) -> Int32 {
    guard let path, isReplicaName(path) || hasSuffix(path, "-journal") || hasSuffix(path, "-wal") else {
        return verneuil_linux_vfs_xAccess(vfs, path, flags, answer)
    }
    answer?.pointee = 0
    return SQLITE_OK
}

@c
package func verneuil_snapshot_vfs_xDelete(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ sync: Int32
) -> Int32 {
    guard let path, isReplicaName(path) else { return verneuil_linux_vfs_xDelete(vfs, path, sync) }
    return VRN_IOERR_DELETE_NOENT
}

private func isReplicaName(_ path: UnsafePointer<CChar>) -> Bool {
    strncmp(path, ReplicaLocation.scheme, ReplicaLocation.scheme.utf8.count) == 0
}
private func hasSuffix(_ path: UnsafePointer<CChar>, _ suffix: String) -> Bool {
    let length = strlen(path)
    return length > suffix.utf8.count && strcmp(path + (length - suffix.utf8.count), suffix) == 0
}
