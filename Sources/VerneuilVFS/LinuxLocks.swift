import CVerneuil

// Locking. What it promises: connections through this VFS and through SQLite's
// unix VFS, in this process and in others, exclude one another as SQLite's
// documentation says (https://www.sqlite.org/lockingv3.html).
//
// The locks are on byte ranges beyond 1 GiB, which SQLite keeps free of data:
//
//      level       holds
//      SHARED      read lock on SHARED (510 bytes)
//      RESERVED    that, and a write lock on RESERVED (1 byte): one writer prepares
//      PENDING     that, and a write lock on PENDING (1 byte): no new readers
//      EXCLUSIVE   write locks on all of it
//
// To get SHARED one holds a read lock on PENDING for a moment. EXCLUSIVE is
// reached from RESERVED by way of PENDING, where it stays if readers are left;
// and directly from SHARED by whoever rolls back a hot journal: without
// RESERVED, so that others still see the journal as hot, and without PENDING,
// since there are no readers to wait for but others who want to do the same.
// (So does the unix VFS from 3.41 on; earlier ones take PENDING on that way too.)
//
// The unix VFS takes POSIX locks, which a process loses when it closes any
// descriptor of the file. These are open file description locks: they conflict
// with POSIX locks and with each other, but belong to the descriptor that
// xOpen got. So connections of one process exclude one another through the
// kernel, there is no table of open files beside it, and a lock lasts until it
// is given up. vrn_file.c says what becomes of them in a forked child.

private let pendingByte: Int64 = 0x4000_0000
private let reservedByte = pendingByte + 1
private let sharedFirst = pendingByte + 2
private let sharedSize: Int64 = 510

// F_RDLCK and the others are Int32 here and short in struct flock.
private let readLock = Int16(F_RDLCK)
private let writeLock = Int16(F_WRLCK)
private let noLock = Int16(F_UNLCK)

/// Raises the lock to `level`. SQLITE_BUSY where another connection is in the
/// way, after SQLITE_FCNTL_LOCK_TIMEOUT; SQLITE_MISUSE for a step that
/// SQLite never makes: to anything but SHARED from NONE, to PENDING from SHARED.
@c
package func verneuil_linux_xLock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let file = linuxFile(file)
    if file.pointee.lock >= level { return SQLITE_OK }
    let result = tryLock(file, level)
    if result != SQLITE_BUSY || file.pointee.lock_timeout <= 0 { return result }
    return waitForLock(file, level)
}

/// One attempt. Where it fails, what was held before is still held, and
/// nothing more but PENDING on the way from RESERVED to EXCLUSIVE.
private func tryLock(_ file: UnsafeMutablePointer<vrn_file>, _ level: Int32) -> Int32 {
    switch (file.pointee.lock, level) {
    case (SQLITE_LOCK_NONE, SQLITE_LOCK_SHARED):
        return lockShared(file)
    case (SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED):
        return raise(file, to: level, reservedByte, 1)
    case (SQLITE_LOCK_RESERVED, SQLITE_LOCK_PENDING):
        return raise(file, to: level, pendingByte, 1)
    case (SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE):
        let result = raise(file, to: SQLITE_LOCK_PENDING, pendingByte, 1)
        if result != SQLITE_OK { return result }
        return raise(file, to: level, sharedFirst, sharedSize)
    case (SQLITE_LOCK_SHARED, SQLITE_LOCK_EXCLUSIVE), (SQLITE_LOCK_PENDING, SQLITE_LOCK_EXCLUSIVE):
        return raise(file, to: level, sharedFirst, sharedSize)
    default:
        return SQLITE_MISUSE
    }
}

@inline(__always)
private func raise(
    _ file: UnsafeMutablePointer<vrn_file>, to level: Int32, _ start: Int64, _ length: Int64
) -> Int32 {
    let result = vrn_ofd_lock(file.pointee.fd, writeLock, start, length)
    if result < 0 { return lockFailure(file, -result) }
    file.pointee.lock = level
    return SQLITE_OK
}

private func lockShared(_ file: UnsafeMutablePointer<vrn_file>) -> Int32 {
    let fd = file.pointee.fd
    let pending = vrn_ofd_lock(fd, readLock, pendingByte, 1)
    if pending < 0 { return lockFailure(file, -pending) }
    let shared = vrn_ofd_lock(fd, readLock, sharedFirst, sharedSize)
    let release = vrn_ofd_lock(fd, noLock, pendingByte, 1)
    if shared < 0 { return lockFailure(file, -shared) }
    if release < 0 {
        // A PENDING that stays would keep every writer away.
        _ = vrn_ofd_lock(fd, noLock, 0, 0)
        return file.failed(VRN_IOERR_UNLOCK, errno: -release)
    }
    file.pointee.lock = SQLITE_LOCK_SHARED
    return SQLITE_OK
}

/// The unix VFS's reading of errno: what may pass is SQLITE_BUSY, a lack of
/// kernel memory for locks included.
private func lockFailure(_ file: UnsafeMutablePointer<vrn_file>, _ errno: Int32) -> Int32 {
    switch errno {
    case EAGAIN, EACCES, EBUSY, EINTR, ENOLCK, ETIMEDOUT: return SQLITE_BUSY
    case EPERM: return file.failed(SQLITE_PERM, errno: errno)
    default: return file.failed(VRN_IOERR_LOCK, errno: errno)
    }
}

/// Tries again until the file's time-out is over. Polls, since F_OFD_SETLKW has
/// no time-out of its own and a signal's handler is not ours to use.
@inline(never)
private func waitForLock(_ file: UnsafeMutablePointer<vrn_file>, _ level: Int32) -> Int32 {
    var left = Int64(file.pointee.lock_timeout) * 1000  // microseconds
    var pause: Int64 = 100
    while left > 0 {
        // Whoever holds PENDING waits for readers to go, and this connection is
        // one: waiting for it here would be waiting for each other.
        if level == SQLITE_LOCK_RESERVED, vrn_ofd_test(file.pointee.fd, readLock, pendingByte, 1) == 1 {
            return SQLITE_BUSY
        }
        let step = min(pause, left)
        sleepMicroseconds(step)
        left -= step
        pause = min(pause * 2, 5000)
        let result = tryLock(file, level)
        if result != SQLITE_BUSY { return result }
    }
    return SQLITE_BUSY
}

/// Lowers the lock to SHARED or NONE.
@c
package func verneuil_linux_xUnlock(_ file: UnsafeMutablePointer<sqlite3_file>?, _ level: Int32) -> Int32 {
    let file = linuxFile(file)
    let held = file.pointee.lock
    if held <= level { return SQLITE_OK }
    let fd = file.pointee.fd
    if level == SQLITE_LOCK_NONE {
        file.pointee.lock = SQLITE_LOCK_NONE
        // A forked child without a description of its own has no lock to give up.
        if fd < 0 { return SQLITE_OK }
        var result = vrn_ofd_lock(fd, noLock, 0, 0)
        // SQLite takes the lock for gone whatever it hears. Unlike the unix VFS's,
        // which other connections of the process would give up with theirs, this one
        // would be in everybody's way until this connection is used again.
        if result < 0 { result = vrn_ofd_lock(fd, noLock, 0, 0) }
        return result < 0 ? file.failed(VRN_IOERR_UNLOCK, errno: -result) : SQLITE_OK
    }
    guard level == SQLITE_LOCK_SHARED else { return SQLITE_MISUSE }
    // In this order: at no moment is the file without a lock of ours.
    if held == SQLITE_LOCK_EXCLUSIVE {
        let result = vrn_ofd_lock(fd, readLock, sharedFirst, sharedSize)
        if result < 0 { return file.failed(VRN_IOERR_RDLOCK, errno: -result) }
    }
    let result = vrn_ofd_lock(fd, noLock, pendingByte, 2)
    if result < 0 { return file.failed(VRN_IOERR_UNLOCK, errno: -result) }
    file.pointee.lock = SQLITE_LOCK_SHARED
    return SQLITE_OK
}

/// Whether any connection, this one included, holds RESERVED or more.
@c
package func verneuil_linux_xCheckReservedLock(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ reserved: UnsafeMutablePointer<Int32>?
) -> Int32 {
    let file = linuxFile(file)
    let reserved = reserved.unsafelyUnwrapped
    if file.pointee.lock > SQLITE_LOCK_SHARED {
        reserved.pointee = 1
        return SQLITE_OK
    }
    let result = vrn_ofd_test(file.pointee.fd, writeLock, reservedByte, 1)
    reserved.pointee = result > 0 ? 1 : 0
    return result < 0 ? file.failed(VRN_IOERR_CHECKRESERVEDLOCK, errno: -result) : SQLITE_OK
}
