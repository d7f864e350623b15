import CVerneuil
import VerneuilSystem

/// Removes a file, and makes that durable where `sync` says so.
/// SQLITE_IOERR_DELETE_NOENT where it isn't there.
@c
package func verneuil_linux_vfs_xDelete(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ sync: Int32
) -> Int32 {
    let path = path.unsafelyUnwrapped
    let result = vrn_unlink(path)
    if result == -ENOENT {
        vrn_set_errno(ENOENT)
        return VRN_IOERR_DELETE_NOENT
    }
    if result < 0 {
        logFailure(VRN_IOERR_DELETE, "unlink", String(cString: path), errno: -result)
        return VRN_IOERR_DELETE
    }
    return sync & 1 != 0 ? syncDirectoryIfPossible(of: path) : SQLITE_OK
}

/// Makes what happened to the names in `path`'s directory durable.
/// A directory that can't be opened (no permission to read it) is passed over.
@discardableResult
func syncDirectoryIfPossible(of path: UnsafePointer<CChar>) -> Int32 {
    let fd = vrn_open_directory_of(path)
    if fd < 0 {
        logFailure(SQLITE_CANTOPEN, "open", Files.directory(of: String(cString: path)), errno: -fd)
        return SQLITE_OK
    }
    let result = vrn_fsync(fd)
    _ = vrn_close(fd)
    if result < 0 {
        logFailure(VRN_IOERR_DIR_FSYNC, "fsync", Files.directory(of: String(cString: path)), errno: -result)
        return VRN_IOERR_DIR_FSYNC
    }
    return SQLITE_OK
}

/// Whether a file is there, or may be read and written. A file without content isn't
/// there: an empty journal is none.
@c
package func verneuil_linux_vfs_xAccess(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ flags: Int32,
    _ answer: UnsafeMutablePointer<Int32>?
) -> Int32 {
    let path = path.unsafelyUnwrapped
    let holds: Bool
    switch flags {
    case SQLITE_ACCESS_EXISTS:
        var st = stat()
        holds = vrn_stat(path, &st) == 0 && (!FileStatus(st).isRegularFile || st.st_size > 0)
    case SQLITE_ACCESS_READWRITE:
        holds = vrn_access(path, R_OK | W_OK) == 0
    default:
        holds = vrn_access(path, R_OK) == 0
    }
    answer.unsafelyUnwrapped.pointee = holds ? 1 : 0
    return SQLITE_OK
}

/// The absolute path without links, `.` and `..`. SQLITE_OK_SYMLINK where there
/// was a link: SQLite then refuses a connection that asked for SQLITE_OPEN_NOFOLLOW.
/// What isn't there yet is taken as it is.
@c
package func verneuil_linux_vfs_xFullPathname(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?, _ size: Int32,
    _ out: UnsafeMutablePointer<CChar>?
) -> Int32 {
    let path = path.unsafelyUnwrapped
    var resolver = PathResolver(limit: Int(size) - 1)
    let result = resolver.resolve(UnsafeRawBufferPointer(start: path, count: strlen(path)))
    guard result == SQLITE_OK else { return result }
    UnsafeMutableRawBufferPointer(start: out, count: Int(size)).copyBytes(from: resolver.resolved + [0])
    // Before 3.31 any code but SQLITE_OK is an error.
    return resolver.links > 0 && vrn_sqlite3_libversion_number() >= 3_031_000 ? VRN_OK_SYMLINK : SQLITE_OK
}

/// Resolves a path component by component. (realpath(3) neither tells whether it
/// met a link nor resolves a path whose end isn't there yet.)
private struct PathResolver {
    /// Absolute and without links so far; without a slash at its end.
    var resolved: [UInt8] = []
    var links = 0
    /// Bytes that the result may have.
    let limit: Int
    private static let slash = UInt8(ascii: "/")
    private static let dot = UInt8(ascii: ".")
    /// As in the unix VFS (SQLITE_MAX_SYMLINK).
    private static let mostLinks = 200

    init(limit: Int) { self.limit = limit }

    mutating func resolve(_ path: UnsafeRawBufferPointer) -> Int32 {
        if path.first != Self.slash {
            let result = startFromWorkingDirectory()
            guard result == SQLITE_OK else { return result }
        }
        // Components to come, the next one last.
        var pending = Self.components(Array(path))
        while let component = pending.popLast() {
            if component == [Self.dot] { continue }
            if component == [Self.dot, Self.dot] {
                removeLast()
                continue
            }
            resolved.append(Self.slash)
            resolved += component
            guard resolved.count <= limit else { return SQLITE_CANTOPEN }
            switch readLink() {
            case .none: break
            case .failed(let code): return code
            case .link(let target):
                links += 1
                guard links <= Self.mostLinks else { return SQLITE_CANTOPEN }
                if target.first == Self.slash { resolved.removeAll() } else { removeLast() }
                pending += Self.components(target)
            }
        }
        // The root is no database.
        return resolved.isEmpty ? SQLITE_CANTOPEN : SQLITE_OK
    }

    private static func components(_ path: [UInt8]) -> [[UInt8]] {
        path.split(separator: slash).reversed().map(Array.init)
    }

    private mutating func removeLast() {
        while let last = resolved.popLast(), last != Self.slash {}
    }

    private mutating func startFromWorkingDirectory() -> Int32 {
        guard let directory = getcwd(nil, 0) else {
            logFailure(SQLITE_CANTOPEN, "getcwd", ".", errno: vrn_errno())
            return SQLITE_CANTOPEN
        }
        defer { free(directory) }
        resolved = Array(UnsafeRawBufferPointer(start: directory, count: strlen(directory)))
        if resolved == [Self.slash] { resolved = [] }
        return SQLITE_OK
    }

    private enum Link {
        case none
        case link([UInt8])
        case failed(Int32)
    }

    /// Whether `resolved` is a link, and to what.
    private func readLink() -> Link {
        (resolved + [0]).withUnsafeBytes { bytes in
            let path = bytes.assumingMemoryBound(to: CChar.self).baseAddress.unsafelyUnwrapped
            var st = stat()
            let status = vrn_lstat(path, &st)
            if status == -ENOENT { return .none }
            if status < 0 {
                logFailure(SQLITE_CANTOPEN, "lstat", String(cString: path), errno: -status)
                return .failed(SQLITE_CANTOPEN)
            }
            guard FileStatus(st).isSymbolicLink else { return .none }
            return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
                let count = readlink(path, buffer.baseAddress.unsafelyUnwrapped, buffer.count)
                // One that fills the buffer may have been cut.
                guard count > 0, count < buffer.count else {
                    logFailure(SQLITE_CANTOPEN, "readlink", String(cString: path), errno: vrn_errno())
                    return .failed(SQLITE_CANTOPEN)
                }
                return .link(Array(UnsafeRawBufferPointer(buffer)[..<count]))
            }
        }
    }
}
