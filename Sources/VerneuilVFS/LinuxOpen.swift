import CVerneuil

/// Opens a file for SQLite; `path` is NULL for a temporary file that needs no
/// name. Where it fails, `pMethods` is NULL, so that SQLite doesn't call xClose.
@c
package func verneuil_linux_vfs_xOpen(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?,
    _ file: UnsafeMutablePointer<sqlite3_file>?, _ flags: Int32, _ outFlags: UnsafeMutablePointer<Int32>?
) -> Int32 {
    reseedAfterFork()
    let file = linuxFile(file)
    file.initialize(to: vrn_file())
    file.pointee.fd = -1
    file.pointee.path = path
    file.pointee.vfs = UnsafePointer(vfs)

    var granted = flags
    let result: Int32
    if let path {
        result = openNamed(file, path, &granted)
    } else {
        result = openTemporary(file)
    }
    guard result == SQLITE_OK else { return result }

    if granted & SQLITE_OPEN_READONLY != 0 { file.set(VRN_FILE_READONLY) }
    if granted & SQLITE_OPEN_MAIN_DB != 0 {
        let prepared = prepareDatabase(file, granted)
        guard prepared == SQLITE_OK else {
            let errno = vrn_errno()
            _ = vrn_close(file.pointee.fd)
            vrn_set_errno(errno)
            return prepared
        }
        file.pointee.base.pMethods = LinuxVFS.databaseMethods
    } else {
        file.set(VRN_FILE_POWERSAFE_OVERWRITE)
        file.pointee.base.pMethods = LinuxVFS.auxiliaryMethods
    }
    outFlags?.pointee = granted
    return SQLITE_OK
}

/// In a new process SQLite's generator goes on with what it had before fork(2): two children would draw the same. Its own VFSs
/// make it begin afresh when they open a file.
@inline(__always)
func reseedAfterFork() {
    if vrn_take_reseed() != 0 { vrn_sqlite3_randomness(0, nil) }
}

/// `flags` become what was granted: a file that can't be written is opened for reading.
private func openNamed(
    _ file: UnsafeMutablePointer<vrn_file>, _ path: UnsafePointer<CChar>, _ flags: inout Int32
) -> Int32 {
    let create = flags & SQLITE_OPEN_CREATE != 0
    let exclusive = flags & SQLITE_OPEN_EXCLUSIVE != 0
    let journals = SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL
    let newJournal = create && flags & journals != 0

    var owner = FileOwner()
    let found = owner.find(path, flags)
    guard found == SQLITE_OK else { return found }

    // The path came out of xFullPathname, so a link in it was put there since, by somebody else.
    var how = O_NOFOLLOW
    if create { how |= O_CREAT }
    if exclusive { how |= O_EXCL }
    let mode = owner.mode ?? defaultPermissions
    var fd = vrn_open(path, how | (flags & SQLITE_OPEN_READWRITE != 0 ? O_RDWR : O_RDONLY), mode)
    var code = SQLITE_CANTOPEN
    if fd < 0 {
        if newJournal, fd == -EACCES, vrn_access(path, F_OK) < 0 {
            // The file could be opened, were it there: it is the directory that can't be written.
            code = VRN_READONLY_DIRECTORY
            fd = -EACCES
        } else if fd != -EISDIR, flags & SQLITE_OPEN_READWRITE != 0 {
            flags = flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) | SQLITE_OPEN_READONLY
            fd = vrn_open(path, how & ~(O_CREAT | O_EXCL), 0)
        }
    }
    guard fd >= 0 else {
        logFailure(code, "open", String(cString: path), errno: -fd)
        return file.failed(code, errno: -fd)
    }

    owner.apply(fd, flags)
    if flags & SQLITE_OPEN_DELETEONCLOSE != 0 {
        _ = vrn_unlink(path)
        file.set(VRN_FILE_DELETE_ON_CLOSE)
    }
    if newJournal { file.set(VRN_FILE_SYNC_DIRECTORY) }
    file.pointee.fd = fd
    return SQLITE_OK
}

/// Before the umask.
private let defaultPermissions: UInt32 = 0o644

/// Whose a new file is to be. A journal belongs to the owner of its database,
/// with the same permissions, umask or not: else a root process that dies
/// leaves a journal behind which the database's owner can't roll back.
private struct FileOwner {
    /// nil: the default, less the umask.
    var mode: UInt32?
    var user: uid_t = 0
    var group: gid_t = 0

    mutating func find(_ path: UnsafePointer<CChar>, _ flags: Int32) -> Int32 {
        if flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL) != 0 {
            // No strings here: with journal_mode=TRUNCATE and DELETE each commit opens its journal.
            guard let count = lengthOfDatabasePath(ofJournal: path) else { return SQLITE_OK }
            return take(from: path, count: count)
        }
        if flags & SQLITE_OPEN_DELETEONCLOSE != 0 {
            mode = 0o600
        } else if flags & SQLITE_OPEN_URI != 0, let model = vrn_sqlite3_uri_parameter(path, "modeof") {
            return take(from: model, count: strlen(model))
        }
        return SQLITE_OK
    }

    /// - Parameter model: of another file, `count` bytes.
    private mutating func take(from model: UnsafePointer<CChar>, count: Int) -> Int32 {
        var st = stat()
        let result = vrn_stat_prefix(model, count, &st)
        if result < 0 {
            vrn_set_errno(-result)
            return VRN_IOERR_FSTAT
        }
        mode = UInt32(st.st_mode) & 0o777
        user = st.st_uid
        group = st.st_gid
        return SQLITE_OK
    }

    /// `NAME-journal` is `NAME`'s. nil where the name isn't made like that, as
    /// with file names of eight and three characters.
    private func lengthOfDatabasePath(ofJournal path: UnsafePointer<CChar>) -> Int? {
        let bytes = UnsafeBufferPointer(start: path, count: strlen(path))
        guard let end = bytes.lastIndex(where: { $0 == CChar(UInt8(ascii: "-")) || $0 == CChar(UInt8(ascii: ".")) }),
            end > 0, bytes[end] == CChar(UInt8(ascii: "-"))
        else { return nil }
        return end
    }

    /// Errors are passed over: only root may give files away, and the file works as it is.
    func apply(_ fd: Int32, _ flags: Int32) {
        guard let mode else { return }
        var st = stat()
        // Only a file without content can have been created now.
        if vrn_fstat(fd, &st) == 0, st.st_size == 0, UInt32(st.st_mode) & 0o777 != mode {
            _ = vrn_fchmod(fd, mode)
        }
        if flags & (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_WAL) != 0, geteuid() == 0 {
            _ = vrn_fchown(fd, user, group)
        }
    }
}

/// What only databases need: their identity, against being moved or replaced
/// while they are open, and a place in the list that fork looks at.
private func prepareDatabase(_ file: UnsafeMutablePointer<vrn_file>, _ flags: Int32) -> Int32 {
    var st = stat()
    let result = vrn_fstat(file.pointee.fd, &st)
    if result < 0 { return file.failed(SQLITE_IOERR, errno: -result) }
    file.set(VRN_FILE_DATABASE)
    file.pointee.device = UInt64(truncatingIfNeeded: st.st_dev)
    file.pointee.inode = UInt64(st.st_ino)
    if st.st_nlink > 1 {
        // A process that opens it by another name looks for the journal under another name.
        vrn_sqlite3_log(SQLITE_WARNING, "linux VFS: multiple links to file: \(file.pathForMessages)")
    }
    let parameters = flags & SQLITE_OPEN_URI != 0 ? file.pointee.path : nil
    if vrn_sqlite3_uri_boolean(parameters, "psow", 1) != 0 { file.set(VRN_FILE_POWERSAFE_OVERWRITE) }
    let listed = vrn_file_list(file)
    return listed == 0 ? SQLITE_OK : file.failed(SQLITE_NOMEM, errno: listed)
}

extension UnsafeMutablePointer<vrn_file> {
    @inline(__always) func set(_ flag: Int) { pointee.flags |= UInt32(flag) }
    @inline(__always) func clear(_ flag: Int) { pointee.flags &= ~UInt32(flag) }
    @inline(__always) func has(_ flag: Int) -> Bool { pointee.flags & UInt32(flag) != 0 }
}
