import CVerneuil

/// The file controls that SQLite and applications use with the unix VFS;
/// SQLITE_NOTFOUND for all others. Memory mapping and the write-ahead log are not offered.
@c
package func verneuil_linux_xFileControl(
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ operation: Int32, _ argument: UnsafeMutableRawPointer?
) -> Int32 {
    let file = linuxFile(file)
    guard let argument else { return SQLITE_NOTFOUND }
    switch operation {
    case SQLITE_FCNTL_LOCKSTATE:
        argument.storeBytes(of: file.pointee.lock, as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_LAST_ERRNO:
        argument.storeBytes(of: file.pointee.last_errno, as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_CHUNK_SIZE:
        file.pointee.chunk_size = argument.load(as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_SIZE_HINT:
        return allocate(file, argument.load(as: Int64.self))
    case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
        // Negative asks, others set.
        let value = argument.load(as: Int32.self)
        if value < 0 {
            argument.storeBytes(of: file.has(VRN_FILE_POWERSAFE_OVERWRITE) ? 1 : 0, as: Int32.self)
        } else if value == 0 {
            file.clear(VRN_FILE_POWERSAFE_OVERWRITE)
        } else {
            file.set(VRN_FILE_POWERSAFE_OVERWRITE)
        }
        return SQLITE_OK
    case SQLITE_FCNTL_LOCK_TIMEOUT:
        let old = file.pointee.lock_timeout
        file.pointee.lock_timeout = argument.load(as: Int32.self)
        argument.storeBytes(of: old, as: Int32.self)
        return SQLITE_OK
    case SQLITE_FCNTL_VFSNAME:
        guard let name = file.pointee.vfs?.pointee.zName else { return SQLITE_NOTFOUND }
        argument.storeBytes(of: vrn_sqlite3_strdup(name), as: UnsafeMutablePointer<CChar>?.self)
        return SQLITE_OK
    case SQLITE_FCNTL_TEMPFILENAME:
        guard let directory = LinuxVFS.findTemporaryDirectory() else { return VRN_IOERR_GETTEMPPATH }
        guard let name = LinuxVFS.temporaryName(in: directory) else { return SQLITE_ERROR }
        guard let copy = vrn_sqlite3_strdup(name) else { return SQLITE_NOMEM }
        argument.storeBytes(of: copy, as: UnsafeMutablePointer<CChar>?.self)
        return SQLITE_OK
    case SQLITE_FCNTL_HAS_MOVED:
        argument.storeBytes(of: hasMoved(file) ? 1 : 0, as: Int32.self)
        return SQLITE_OK
    default:
        return SQLITE_NOTFOUND
    }
}

/// Whether the database's name leads elsewhere by now. Where it does, a journal
/// would be found beside the wrong file, and SQLite refuses to write.
private func hasMoved(_ file: UnsafeMutablePointer<vrn_file>) -> Bool {
    guard file.has(VRN_FILE_DATABASE), let path = file.pointee.path else { return false }
    var st = stat()
    if vrn_stat(path, &st) < 0 { return true }
    return UInt64(st.st_ino) != file.pointee.inode
        || UInt64(truncatingIfNeeded: st.st_dev) != file.pointee.device
}

/// The file is about to grow to `size` bytes. Only a file with a chunk size is
/// grown ahead, by whole chunks whose blocks are allocated now.
private func allocate(_ file: UnsafeMutablePointer<vrn_file>, _ size: Int64) -> Int32 {
    guard file.pointee.chunk_size > 0 else { return SQLITE_OK }
    let fd = file.pointee.fd
    var st = stat()
    let result = vrn_fstat(fd, &st)
    if result < 0 { return file.failed(VRN_IOERR_FSTAT, errno: -result) }
    let old = Int64(st.st_size)
    let new = roundedToChunk(size, file.pointee.chunk_size)
    guard new > old else { return SQLITE_OK }
    #if os(Linux)
    let allocated = vrn_fallocate(fd, old, new - old)
    if allocated == 0 { return SQLITE_OK }
    if allocated != -EOPNOTSUPP && allocated != -EINVAL {
        return file.failed(VRN_IOERR_WRITE, errno: -allocated)
    }
    #endif
    // One byte in each block makes the file system allocate it.
    let block = max(512, Int64(st.st_blksize))
    var end = (old / block + 1) * block
    while true {
        var zero: UInt8 = 0
        let put = vrn_pwrite(fd, &zero, 1, min(end, new) - 1)
        if put != 1 { return file.failed(VRN_IOERR_WRITE, errno: put < 0 ? Int32(-put) : ENOSPC) }
        if end >= new { return SQLITE_OK }
        end += block
    }
}
