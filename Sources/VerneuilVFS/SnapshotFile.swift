import CVerneuil
import VerneuilReplica

// The methods of an open replica. A page of a loaded chunk costs a look into a
// table and a copy, or with xFetch no copy: no allocation, no reference
// counting, no lock, no system call. All else is SnapshotConnection's.

/// What SQLite passes to every method, as what it is: the memory that xOpen
/// filled. SQLite never passes NULL.
@inline(__always)
func snapshotFile(_ file: UnsafeMutablePointer<sqlite3_file>?) -> UnsafeMutablePointer<vrn_snapshot_file> {
    UnsafeMutableRawPointer(file.unsafelyUnwrapped).assumingMemoryBound(to: vrn_snapshot_file.self)
}

extension UnsafeMutablePointer<vrn_snapshot_file> {
    /// Where the bytes at `offset` are, if that needs no more than looking: they
    /// lie within one loaded chunk, are shown as they are, and ask for no read-ahead.
    @inline(__always)
    fileprivate func address(_ offset: Int64, _ amount: Int32) -> UnsafeRawPointer? {
        let chunk = UInt64(bitPattern: offset) &>> 16
        let within = Int(offset & 0xFFFF)
        guard offset >= pointee.patched, offset &+ Int64(amount) <= pointee.length,
            within &+ Int(amount) <= 65_536, chunk &- pointee.ahead >= pointee.ahead_count
        else { return nil }
        let address = vrn_slot_load(pointee.slots + Int(truncatingIfNeeded: chunk))
        return UnsafeRawPointer(bitPattern: address).map { $0 + within }
    }

    fileprivate var connection: SnapshotConnection {
        Unmanaged<SnapshotConnection>.fromOpaque(pointee.connection).takeUnretainedValue()
    }
}

@c
package func verneuil_snapshot_xRead(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ buffer: UnsafeMutableRawPointer?, _ amount: Int32,
    _ offset: sqlite3_int64
) -> Int32 {
    let file = snapshotFile(file)
    if let address = file.address(offset, amount) {
        memcpy(buffer.unsafelyUnwrapped, address, Int(amount))
        return SQLITE_OK
    }
    return readSlowly(file, buffer.unsafelyUnwrapped, amount, offset)
}

@inline(never)
private func readSlowly(
    _ file: UnsafeMutablePointer<vrn_snapshot_file>, _ buffer: UnsafeMutableRawPointer, _ amount: Int32,
    _ offset: Int64
) -> Int32 {
    guard offset >= 0, amount >= 0 else { return VRN_IOERR_READ }
    return file.connection.read(
        UnsafeMutableRawBufferPointer(start: buffer, count: Int(amount)), at: UInt64(offset), for: file)
}

/// A page straight from the mapping, which stays as it is until xUnfetch:
/// the connection keeps the snapshot meanwhile.
@c
package func verneuil_snapshot_xFetch(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ offset: sqlite3_int64, _ amount: Int32,
    _ page: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> Int32 {
    let file = snapshotFile(file)
    // NULL makes SQLite read the page instead, which loads the chunk.
    var found: UnsafeRawPointer?
    if offset &+ Int64(amount) <= file.pointee.mmap_limit, let address = file.address(offset, amount) {
        found = address
        file.pointee.fetched &+= 1
    }
    // SQLite doesn't write to pages of a database that can't be written.
    page.unsafelyUnwrapped.pointee = UnsafeMutableRawPointer(mutating: found)
    return SQLITE_OK
}

/// A NULL page asks to drop the mapping: there is none of this connection's own.
@c
package func verneuil_snapshot_xUnfetch(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ offset: sqlite3_int64, _ page: UnsafeMutableRawPointer?
) -> Int32 {
    if page != nil { snapshotFile(file).pointee.fetched &-= 1 }
    return SQLITE_OK
}

@c
package func verneuil_snapshot_xFileSize(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ size: UnsafeMutablePointer<sqlite3_int64>?
) -> Int32 {
    size.unsafelyUnwrapped.pointee = snapshotFile(file).pointee.length
    return SQLITE_OK
}

/// SHARED begins a transaction: now, and at no other time, what the connection sees may change.
@c
package func verneuil_snapshot_xLock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let file = snapshotFile(file)
    guard level <= SQLITE_LOCK_SHARED else { return SQLITE_READONLY }
    guard file.pointee.lock == SQLITE_LOCK_NONE, level == SQLITE_LOCK_SHARED else { return SQLITE_OK }
    guard file.pointee.pid == getpid() else {
        SnapshotVFS.report(VRN_IOERR_LOCK, "a connection that was opened before fork(2) can't be used after it")
        return VRN_IOERR_LOCK
    }
    let result = file.connection.beginTransaction(for: file)
    if result == SQLITE_OK { file.pointee.lock = level }
    return result
}

@c
package func verneuil_snapshot_xUnlock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let file = snapshotFile(file)
    if level < file.pointee.lock { file.pointee.lock = level }
    return SQLITE_OK
}

/// Somebody is always about to write: the source.
@c
package func verneuil_snapshot_xCheckReservedLock(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ reserved: UnsafeMutablePointer<Int32>?
) -> Int32 {
    reserved.unsafelyUnwrapped.pointee = 1
    return SQLITE_OK
}

@c
package func verneuil_snapshot_xClose(_ file: UnsafeMutablePointer<sqlite3_file>?) -> Int32 {
    let file = snapshotFile(file)
    // In a forked child the connection is left alone: its locks may be held by threads that only the parent has.
    if let connection = file.pointee.connection, file.pointee.pid == getpid() {
        Unmanaged<SnapshotConnection>.fromOpaque(connection).release()
    }
    file.pointee.connection = nil
    file.pointee.base.pMethods = nil
    return SQLITE_OK
}

@c
package func verneuil_snapshot_xFileControl(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ operation: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    let file = snapshotFile(file)
    guard let argument else { return SQLITE_NOTFOUND }
    switch operation {
    case SQLITE_FCNTL_PRAGMA:
        return file.connection.pragma(
            argument.assumingMemoryBound(to: UnsafeMutablePointer<CChar>?.self), for: file)
    case SQLITE_FCNTL_LOCKSTATE:
        argument.storeBytes(of: file.pointee.lock, as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_LAST_ERRNO, SQLITE_FCNTL_HAS_MOVED:
        argument.storeBytes(of: 0, as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_MMAP_SIZE:
        // Negative asks, others set. Whatever the limit, all that is loaded is mapped already.
        let limit = argument.load(as: Int64.self)
        argument.storeBytes(of: file.pointee.mmap_limit, as: Int64.self)
        if limit >= 0 { file.pointee.mmap_limit = limit }
        return SQLITE_OK
    case SQLITE_FCNTL_VFSNAME:
        guard let name = vrn_sqlite3_strdup(SnapshotVFS.name) else { return SQLITE_NOMEM }
        argument.storeBytes(of: name, as: UnsafeMutablePointer<CChar>?.self)
        return SQLITE_OK
    default:
        return SQLITE_NOTFOUND
    }
}
