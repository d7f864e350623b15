import CVerneuil
import VerneuilReplication

// A database that was in WAL mode when it was opened. SQLite is lazy: the
// connection's first statement fails, somebody sets another journal_mode with
// another program, and the application tries again on the same connection. From then on it is replicated.

extension ReplicatedVFS {
    /// The methods until then.
    nonisolated(unsafe) static let methodsInWALMode = table {
        $0.xClose = verneuil_replicated_xClose
        $0.xLock = verneuil_wal_xLock
        $0.xFileControl = verneuil_wal_xFileControl
    }
}

@c
package func verneuil_wal_xLock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let result = verneuil_linux_xLock(file, level)
    if result == SQLITE_OK && level == SQLITE_LOCK_SHARED { replicateOutsideWAL(linuxFile(file)) }
    return result
}

@c
package func verneuil_wal_xFileControl(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ operation: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    switch operation {
    case SQLITE_FCNTL_COMMIT_PHASETWO:
        // Under locking_mode=EXCLUSIVE this connection itself can leave WAL mode, and takes SHARED no more.
        replicateOutsideWAL(linuxFile(file))
    case SQLITE_FCNTL_PRAGMA:
        let name = argument?.assumingMemoryBound(to: UnsafePointer<CChar>?.self)[1]
        // What is answered to that one is true outside of WAL mode.
        if let name, strcasecmp(name, "journal_mode") != 0 { return verneuil_replicated_xFileControl(file, operation, argument) }
    case SQLITE_FCNTL_PDB: return verneuil_replicated_xFileControl(file, operation, argument)
    default: break
    }
    return verneuil_linux_xFileControl(file, operation, argument)
}

private func replicateOutsideWAL(_ file: UnsafeMutablePointer<vrn_file>) {
    let fd = file.pointee.fd
    if isInWALMode(fd) { return }
    file.pointee.base.pMethods = ReplicatedVFS.methods
    withTracker(file) { $0.didLockShared(fd) }
}
