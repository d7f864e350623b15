import CVerneuil

/// The `linux` VFS: SQLite's layer over the operating system, complete for
/// rollback-journal databases and compatible, on disk and in locking, with
/// SQLite's own unix VFS. docs/VFS.md says what it does where SQLite's
/// documentation leaves a choice.
public enum LinuxVFS {
    public static let name = "linux"

    /// Makes the VFS known to SQLite; doing it again is fine, and so is another `makeDefault` then.
    ///
    /// - Parameter makeDefault: whether connections that name no VFS use this one.
    /// - Returns: SQLITE_OK, SQLITE_MISUSE where SQLite's function table is not set
    ///   (`vrn_sqlite3_set_api`), or what sqlite3_vfs_register answers.
    ///
    /// Safe from any thread.
    public static func register(makeDefault: Bool) -> Int32 {
        guard vrn_sqlite3_has_api() != 0 else { return SQLITE_MISUSE }
        _ = otherTemporaryDirectories
        _ = vrn_fork_prepare()
        return vrn_sqlite3_vfs_register(shared, makeDefault ? 1 : 0)
    }

    // SQLite keeps pointers to these as long as the process runs, so they are never freed.
    private nonisolated(unsafe) static let shared = makeVFS(named: name)

    /// A VFS under another name whose methods are all this one's: what a layer
    /// above starts from. Never freed, as SQLite may hold on to it.
    package static func makeVFS(named name: String) -> UnsafeMutablePointer<sqlite3_vfs> {
        var vfs = sqlite3_vfs()
        vfs.iVersion = 3
        vfs.szOsFile = Int32(MemoryLayout<vrn_file>.stride)
        vfs.mxPathname = longestPath
        vfs.zName = UnsafePointer(strdup(name))
        vfs.xOpen = verneuil_linux_vfs_xOpen
        vfs.xDelete = verneuil_linux_vfs_xDelete
        vfs.xAccess = verneuil_linux_vfs_xAccess
        vfs.xFullPathname = verneuil_linux_vfs_xFullPathname
        vfs.xDlOpen = verneuil_linux_vfs_xDlOpen
        vfs.xDlError = verneuil_linux_vfs_xDlError
        vfs.xDlSym = verneuil_linux_vfs_xDlSym
        vfs.xDlClose = verneuil_linux_vfs_xDlClose
        vfs.xRandomness = verneuil_linux_vfs_xRandomness
        vfs.xSleep = verneuil_linux_vfs_xSleep
        vfs.xCurrentTime = verneuil_linux_vfs_xCurrentTime
        vfs.xGetLastError = verneuil_linux_vfs_xGetLastError
        vfs.xCurrentTimeInt64 = verneuil_linux_vfs_xCurrentTimeInt64
        vfs.xSetSystemCall = verneuil_linux_vfs_xSetSystemCall
        vfs.xGetSystemCall = verneuil_linux_vfs_xGetSystemCall
        vfs.xNextSystemCall = verneuil_linux_vfs_xNextSystemCall
        let pointer = UnsafeMutablePointer<sqlite3_vfs>.allocate(capacity: 1)
        pointer.initialize(to: vfs)
        return pointer
    }

    /// SQLite asks for room for the names of journals by itself.
    static let longestPath = Int32(PATH_MAX)

    /// The methods of database files. Version 1: no shared memory, so no
    /// write-ahead log, and no memory mapping.
    package nonisolated(unsafe) static let databaseMethods = makeMethods { table in
        table.xLock = verneuil_linux_xLock
        table.xUnlock = verneuil_linux_xUnlock
        table.xCheckReservedLock = verneuil_linux_xCheckReservedLock
    }

    /// The methods of journals and temporary files: nobody else has them open,
    /// or the database's lock guards them, so locking does nothing.
    package nonisolated(unsafe) static let auxiliaryMethods = makeMethods { table in
        table.xLock = { _, _ in SQLITE_OK }
        table.xUnlock = { _, _ in SQLITE_OK }
        table.xCheckReservedLock = { _, reserved in
            reserved?.pointee = 0
            return SQLITE_OK
        }
    }

    private static func makeMethods(
        _ setLocking: (inout sqlite3_io_methods) -> Void
    ) -> UnsafePointer<sqlite3_io_methods> {
        var table = sqlite3_io_methods()
        table.iVersion = 1
        table.xClose = verneuil_linux_xClose
        table.xRead = verneuil_linux_xRead
        table.xWrite = verneuil_linux_xWrite
        table.xTruncate = verneuil_linux_xTruncate
        table.xSync = verneuil_linux_xSync
        table.xFileSize = verneuil_linux_xFileSize
        table.xFileControl = verneuil_linux_xFileControl
        table.xSectorSize = verneuil_linux_xSectorSize
        table.xDeviceCharacteristics = verneuil_linux_xDeviceCharacteristics
        setLocking(&table)
        let pointer = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)
        pointer.initialize(to: table)
        return UnsafePointer(pointer)
    }
}

/// What SQLite passes to every method, as what it is: the memory that xOpen
/// filled. SQLite never passes NULL.
@inline(__always)
func linuxFile(_ file: UnsafeMutablePointer<sqlite3_file>?) -> UnsafeMutablePointer<vrn_file> {
    UnsafeMutableRawPointer(file.unsafelyUnwrapped).assumingMemoryBound(to: vrn_file.self)
}

extension UnsafeMutablePointer<vrn_file> {
    /// Remembers why a call failed and answers `code`. errno is set again,
    /// for sqlite3_system_errno(): SQLite reads it through xGetLastError.
    @inline(never)
    func failed(_ code: Int32, errno: Int32) -> Int32 {
        pointee.last_errno = errno
        vrn_set_errno(errno)
        return code
    }

    /// For messages.
    var pathForMessages: String { pointee.path.map { String(cString: $0) } ?? "(temporary file)" }
}

/// To the application's error log, in the manner of SQLite's own VFS: which call, on what, and why.
/// Leaves `errno` as it was in the call that failed.
@inline(never)
func logFailure(_ code: Int32, _ call: StaticString, _ path: String, errno: Int32) {
    let reason = String(cString: strerror(errno))
    vrn_sqlite3_log(code, "linux VFS: (\(errno)) \(call)(\(path)) - \(reason)")
    vrn_set_errno(errno)
}
