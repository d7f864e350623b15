import CVerneuil
import VerneuilSystem

// Temporary files. SQLite asks for them without a name and never needs one, so
// they get none: nothing is left behind by a process that dies.

extension LinuxVFS {
    /// Where temporary files go from now on, before any other choice (`tempdir` in the configuration); nil: where SQLite would put them.
    /// Those that are open stay where they are. The directory need not exist: one that can't be used is passed over.
    ///
    /// Safe from any thread.
    public static func setTemporaryDirectory(_ path: String?) {
        temporaryDirectory.lock.withLock { temporaryDirectory.path = path }
    }

    private final class Override: @unchecked Sendable {
        let lock = Lock()
        var path: String?
    }
    private static let temporaryDirectory = Override()

    /// The first directory that can be used of those that the unix VFS would
    /// try, in its order; nil where there is none.
    static func findTemporaryDirectory() -> String? {
        if let path = temporaryDirectory.lock.withLock({ temporaryDirectory.path }), isUsable(path) { return path }
        if let path = applicationsTemporaryDirectory(), isUsable(path) { return path }
        return otherTemporaryDirectories.first(where: isUsable)
    }

    /// The environment as it was when the VFS was registered, as with the unix
    /// VFS: getenv must not run beside a setenv in another thread of the host.
    static let otherTemporaryDirectories: [String] = {
        let variables = ["SQLITE_TMPDIR", "TMPDIR"]
        let values = variables.compactMap { name in getenv(name).map { String(cString: $0) } }
        return values + ["/var/tmp", "/usr/tmp", "/tmp", "."]
    }()

    private static func applicationsTemporaryDirectory() -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            guard let start = buffer.baseAddress, vrn_sqlite3_temp_directory(start, PATH_MAX) > 0 else { return nil }
            return String(cString: start)
        }
    }

    private static func isUsable(_ path: String) -> Bool {
        var st = stat()
        return vrn_stat(path, &st) == 0 && FileStatus(st).isDirectory && vrn_access(path, W_OK | X_OK) == 0
    }

    /// A name in `directory` that nobody has. nil where none is found, or it would be too long.
    static func temporaryName(in directory: String) -> String? {
        for _ in 0..<10 {
            var random: UInt64 = 0
            vrn_sqlite3_randomness(Int32(MemoryLayout<UInt64>.size), &random)
            // The prefix is the unix VFS's: scripts that clean up know it.
            let name = "\(directory)/etilqs_\(String(random, radix: 16))"
            if name.utf8.count >= longestPath { return nil }
            if vrn_access(name, F_OK) < 0 { return name }
        }
        return nil
    }
}

/// Opens a file that has no name, or none any more.
func openTemporary(_ file: UnsafeMutablePointer<vrn_file>) -> Int32 {
    guard let directory = LinuxVFS.findTemporaryDirectory() else {
        return file.failed(VRN_IOERR_GETTEMPPATH, errno: ENOENT)
    }
    #if os(Linux)
    // O_EXCL: can't be given a name later either.
    let unnamed = vrn_open(directory, O_TMPFILE | O_RDWR | O_EXCL, 0o600)
    if unnamed >= 0 {
        file.pointee.fd = unnamed
        file.set(VRN_FILE_DELETE_ON_CLOSE)
        return SQLITE_OK
    }
    // What old kernels and some file systems answer where they can't do this.
    guard [-EOPNOTSUPP, -EISDIR, -EINVAL, -ENOENT, -ENOSYS].contains(unnamed) else {
        logFailure(SQLITE_CANTOPEN, "open", directory, errno: -unnamed)
        return file.failed(SQLITE_CANTOPEN, errno: -unnamed)
    }
    #endif
    guard let name = LinuxVFS.temporaryName(in: directory) else { return file.failed(SQLITE_ERROR, errno: EEXIST) }
    let named = vrn_open(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    if named < 0 {
        logFailure(SQLITE_CANTOPEN, "open", name, errno: -named)
        return file.failed(SQLITE_CANTOPEN, errno: -named)
    }
    _ = vrn_unlink(name)
    file.pointee.fd = named
    file.set(VRN_FILE_DELETE_ON_CLOSE)
    return SQLITE_OK
}
