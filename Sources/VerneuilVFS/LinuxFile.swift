import CVerneuil

// The methods of an open file. The path of every page goes through xRead and
// xWrite: one system call, no allocation, no reference counting, no lock.

/// Reads `amount` bytes at `offset`. What lies behind the end of the file
/// reads as zeros, and SQLITE_IOERR_SHORT_READ says so.
@c
package func verneuil_linux_xRead(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ buffer: UnsafeMutableRawPointer?, _ amount: Int32,
    _ offset: sqlite3_int64
) -> Int32 {
    let file = linuxFile(file)
    let got = vrn_pread(file.pointee.fd, buffer, Int(amount), offset)
    if got == Int(amount) { return SQLITE_OK }
    return completeRead(file, buffer.unsafelyUnwrapped, Int(amount), offset, got)
}

/// The rest of a read of which the first call gave `first` bytes, or -errno.
@inline(never)
private func completeRead(
    _ file: UnsafeMutablePointer<vrn_file>, _ buffer: UnsafeMutableRawPointer, _ amount: Int, _ offset: Int64,
    _ first: Int
) -> Int32 {
    var done = 0
    var got = first
    while got > 0 {
        done += got
        if done == amount { return SQLITE_OK }
        got = vrn_pread(file.pointee.fd, buffer + done, amount - done, offset + Int64(done))
    }
    if got < 0 {
        let errno = Int32(-got)
        switch errno {
        // The device, not the request: SQLite tells these apart.
        case EIO, ERANGE, ENXIO: return file.failed(VRN_IOERR_CORRUPTFS, errno: errno)
        default: return file.failed(VRN_IOERR_READ, errno: errno)
        }
    }
    memset(buffer + done, 0, amount - done)
    file.pointee.last_errno = 0
    return VRN_IOERR_SHORT_READ
}

@c
package func verneuil_linux_xWrite(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ buffer: UnsafeRawPointer?, _ amount: Int32,
    _ offset: sqlite3_int64
) -> Int32 {
    let file = linuxFile(file)
    let put = vrn_pwrite(file.pointee.fd, buffer, Int(amount), offset)
    if put == Int(amount) { return SQLITE_OK }
    return completeWrite(file, buffer.unsafelyUnwrapped, Int(amount), offset, put)
}

/// The rest of a write of which the first call took `first` bytes, or -errno.
@inline(never)
private func completeWrite(
    _ file: UnsafeMutablePointer<vrn_file>, _ buffer: UnsafeRawPointer, _ amount: Int, _ offset: Int64,
    _ first: Int
) -> Int32 {
    var done = 0
    var put = first
    while put > 0 {
        done += put
        if done == amount { return SQLITE_OK }
        put = vrn_pwrite(file.pointee.fd, buffer + done, amount - done, offset + Int64(done))
    }
    let errno = Int32(-put)
    // A device that takes nothing and gives no reason is full, too.
    if errno == 0 || errno == ENOSPC {
        file.pointee.last_errno = 0
        vrn_set_errno(ENOSPC)
        return SQLITE_FULL
    }
    return file.failed(VRN_IOERR_WRITE, errno: errno)
}

@c
package func verneuil_linux_xTruncate(_ file: UnsafeMutablePointer<sqlite3_file>?, _ size: sqlite3_int64) -> Int32 {
    let file = linuxFile(file)
    let result = vrn_ftruncate(file.pointee.fd, roundedToChunk(size, file.pointee.chunk_size))
    if result < 0 {
        logFailure(VRN_IOERR_TRUNCATE, "ftruncate", file.pathForMessages, errno: -result)
        return file.failed(VRN_IOERR_TRUNCATE, errno: -result)
    }
    return SQLITE_OK
}

/// `size` rounded up to a multiple of SQLITE_FCNTL_CHUNK_SIZE, where that is set.
@inline(__always)
func roundedToChunk(_ size: Int64, _ chunk: Int32) -> Int64 {
    guard chunk > 0 else { return size }
    let chunk = Int64(chunk)
    let (sum, overflow) = size.addingReportingOverflow(chunk - 1)
    return overflow ? size : sum / chunk * chunk
}

/// Makes the content durable. On Linux always fdatasync: it includes the size
/// and whatever else is needed to read the data back, and leaves out the
/// time stamps. The first sync of a new journal makes its name durable too:
/// a journal that is gone after a power failure can't be rolled back.
@c
package func verneuil_linux_xSync(_ file: UnsafeMutablePointer<sqlite3_file>?, _ flags: Int32) -> Int32 {
    let file = linuxFile(file)
    let result = syncFile(file.pointee.fd, flags)
    if result < 0 {
        logFailure(VRN_IOERR_FSYNC, "fdatasync", file.pathForMessages, errno: -result)
        return file.failed(VRN_IOERR_FSYNC, errno: -result)
    }
    if file.has(VRN_FILE_SYNC_DIRECTORY) {
        file.clear(VRN_FILE_SYNC_DIRECTORY)
        if let path = file.pointee.path { syncDirectoryIfPossible(of: path) }
    }
    return SQLITE_OK
}

private func syncFile(_ fd: Int32, _ flags: Int32) -> Int32 {
    #if os(Linux)
    return vrn_fdatasync(fd)
    #else
    // fsync there doesn't reach the platter; only a full sync does.
    if flags & 0x0F == SQLITE_SYNC_FULL, vrn_fcntl_int(fd, F_FULLFSYNC, 0) >= 0 { return 0 }
    return vrn_fsync(fd)
    #endif
}

@c
package func verneuil_linux_xFileSize(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ size: UnsafeMutablePointer<sqlite3_int64>?
) -> Int32 {
    let file = linuxFile(file)
    var st = stat()
    let result = vrn_fstat(file.pointee.fd, &st)
    if result < 0 { return file.failed(VRN_IOERR_FSTAT, errno: -result) }
    // The unix VFS takes a file of one byte for an empty one (it once wrote that
    // byte itself, against a defect of some file systems); so files must here.
    size.unsafelyUnwrapped.pointee = st.st_size == 1 ? 0 : Int64(st.st_size)
    return SQLITE_OK
}

/// SQLite's default: it journals whole sectors where writes aren't power-safe.
@c
package func verneuil_linux_xSectorSize(_ file: UnsafeMutablePointer<sqlite3_file>?) -> Int32 { 4096 }

@c
package func verneuil_linux_xDeviceCharacteristics(_ file: UnsafeMutablePointer<sqlite3_file>?) -> Int32 {
    let powersafe = linuxFile(file).has(VRN_FILE_POWERSAFE_OVERWRITE)
    return subpageRead | (powersafe ? SQLITE_IOCAP_POWERSAFE_OVERWRITE : 0)
}

/// SQLITE_IOCAP_SUBPAGE_READ of SQLite 3.48 and later, unknown to earlier ones:
/// parts of a page may be read. Any range may.
private let subpageRead: Int32 = 0x0000_8000

@c
package func verneuil_linux_xClose(_ file: UnsafeMutablePointer<sqlite3_file>?) -> Int32 {
    let file = linuxFile(file)
    if file.has(VRN_FILE_DATABASE) {
        // Not left to close(2): the lock lasts as long as any descriptor of the
        // description, and somebody may have passed on a duplicate.
        _ = verneuil_linux_xUnlock(file.base, SQLITE_LOCK_NONE)
        vrn_file_unlist(file)
    }
    if file.pointee.fd >= 0 {
        let result = vrn_close(file.pointee.fd)
        if result < 0 { logFailure(VRN_IOERR_CLOSE, "close", file.pathForMessages, errno: -result) }
        file.pointee.fd = -1
    }
    file.pointee.base.pMethods = nil
    return SQLITE_OK
}

extension UnsafeMutablePointer<vrn_file> {
    /// As SQLite knows it.
    var base: UnsafeMutablePointer<sqlite3_file> {
        UnsafeMutableRawPointer(self).assumingMemoryBound(to: sqlite3_file.self)
    }
}
