import CVerneuil

/// Operations on files by name.
public enum Files {
    /// nil where there is no such file.
    public static func status(_ path: String, followLinks: Bool = true) throws(SystemError) -> FileStatus? {
        var st = stat()
        let r = followLinks ? vrn_stat(path, &st) : vrn_lstat(path, &st)
        if r == -ENOENT || r == -ENOTDIR { return nil }
        try SystemError.check(r, "stat", path)
        return FileStatus(st)
    }

    /// The whole file; nil where there is none. Fails with EFBIG beyond `limit` bytes.
    public static func read(_ path: String, limit: Int = 1 << 30) throws(SystemError) -> [UInt8]? {
        let fd = vrn_open(path, O_RDONLY, 0)
        if fd == -ENOENT || fd == -ENOTDIR { return nil }
        let file = Descriptor(owning: try SystemError.check(fd, "open", path), path: path)
        let size = try file.status().size
        if size > Int64(limit) { throw SystemError("read", path, EFBIG) }
        var bytes = try file.read(count: Int(size), at: 0)
        // Files in /proc have no size, and others may grow.
        while true {
            let more = try file.read(count: 4096, at: Int64(bytes.count))
            if more.isEmpty { return bytes }
            bytes += more
            if bytes.count > limit { throw SystemError("read", path, EFBIG) }
        }
    }

    /// The first bytes of a file; fewer where it is shorter, none where there is no file.
    public static func read(_ path: String, prefix count: Int) throws(SystemError) -> [UInt8] {
        guard try status(path)?.isRegularFile == true else { return [] }
        return try Descriptor(path, O_RDONLY).read(count: count, at: 0)
    }

    /// Publishes `bytes` under `path`: whoever opens that name sees all of the
    /// old file or all of the new one. With `sync`, also after a power failure.
    ///
    /// - Parameters:
    ///   - isOnlyWriter: a lock keeps all others from writing to `path`:
    ///     the new file then has the same temporary name each time, so that a crash leaves at most that one.
    ///   - adapt: called with the new file before anything is in it.
    public static func writeAtomically(
        _ bytes: [UInt8], to path: String, mode: UInt32 = 0o600, sync: Bool = false, isOnlyWriter: Bool = false,
        adapt: (borrowing Descriptor) -> Void = { _ in }
    ) throws(SystemError) {
        let temporary = isOnlyWriter ? path + ".new" : temporaryName(beside: path)
        do throws(SystemError) {
            let file = try Descriptor(temporary, O_WRONLY | O_CREAT | (isOnlyWriter ? O_TRUNC | O_NOFOLLOW : O_EXCL), mode: mode)
            adapt(file)
            try file.write(bytes, at: 0)
            if sync { try file.sync() }
            try file.close()
            try rename(temporary, to: path)
        } catch {
            _ = vrn_unlink(temporary)
            throw error
        }
        if sync { try syncDirectory(of: path) }
    }

    /// A name in the same directory that nobody else uses. Begins with `.tmp.`.
    public static func temporaryName(beside path: String) -> String {
        var r: UInt64 = 0
        _ = withUnsafeMutableBytes(of: &r) { vrn_getrandom($0.baseAddress, $0.count) }
        return "\(directory(of: path))/.tmp.\(getpid()).\(String(r, radix: 16))"
    }

    public static func rename(_ from: String, to: String) throws(SystemError) {
        try SystemError.check(vrn_rename(from, to), "rename", to)
    }

    /// Removes a file; one that is not there is fine.
    public static func remove(_ path: String) throws(SystemError) {
        let r = vrn_unlink(path)
        if r != -ENOENT { try SystemError.check(r, "unlink", path) }
    }

    /// Removes a directory and what is in it, without following links. Unlinking what is large takes long: a process in which
    /// a thread of ours does it may fork meanwhile.
    public static func removeTree(_ path: String) throws(SystemError) {
        guard let status = try status(path, followLinks: false) else { return }
        if status.isDirectory {
            for name in try list(path) { try removeTree("\(path)/\(name)") }
            let r = vrn_rmdir(path)
            if r != -ENOENT { try SystemError.check(r, "rmdir", path) }
        } else {
            vrn_gate_leave()
            defer { vrn_gate_enter() }
            try remove(path)
        }
    }

    /// Makes a directory, but none above it. An existing one is fine.
    public static func makeDirectory(_ path: String, mode: UInt32 = 0o700) throws(SystemError) {
        let r = vrn_mkdir(path, mode)
        if r == -EEXIST {
            if try status(path)?.isDirectory == true { return }
            throw SystemError("mkdir", path, ENOTDIR)
        }
        try SystemError.check(r, "mkdir", path)
    }

    /// Makes a directory and those above it. An existing one is fine.
    public static func makeDirectories(_ path: String, mode: UInt32 = 0o700) throws(SystemError) {
        do throws(SystemError) { try makeDirectory(path, mode: mode) } catch {
            let parent = directory(of: path)
            guard error.code == ENOENT, path != "/", !path.isEmpty, parent != path, parent != "." else { throw error }
            try makeDirectories(parent, mode: mode)
            try makeDirectory(path, mode: mode)
        }
    }

    /// Names in a directory, without `.` and `..`, in no order; none where it isn't there.
    public static func list(_ path: String) throws(SystemError) -> [String] {
        guard let dir = opendir(path) else {
            let code = vrn_errno()
            if code == ENOENT { return [] }
            throw SystemError("opendir", path, code)
        }
        defer { closedir(dir) }
        var names: [String] = []
        var code: Int32 = 0
        while let entry = vrn_readdir(dir, &code) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        if code != 0 { throw SystemError("readdir", path, code) }
        return names
    }

    /// Makes what happened to the names in `path`'s directory durable.
    public static func syncDirectory(of path: String) throws(SystemError) {
        let dir = try Descriptor(directory(of: path), O_RDONLY | O_DIRECTORY)
        try dir.sync()
    }

    public static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    public static func lastComponent(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return path }
        return String(path[path.index(after: slash)...])
    }

    /// What a file that nobody expected holds, for a message: `9000 bytes that begin with "%PDF-1.7..........."`.
    ///
    /// - Parameter start: the first bytes; those that aren't printable ASCII are shown as dots.
    public static func describe(start: [UInt8], size: Int64) -> String {
        let text = String(decoding: start.map { (0x20..<0x7F).contains($0) ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
        return "\(size) bytes that begin with \"\(text)\""
    }

    /// The absolute path without links, `.` or `..`. Where the last component
    /// doesn't exist, its directory is resolved and the name kept (of a link that
    /// leads nowhere, where it would lead to); nil where that doesn't exist either.
    public static func canonical(_ path: String) -> String? { canonical(path, links: 40) }

    private static func canonical(_ path: String, links: Int) -> String? {
        if let resolved = realpath(path, nil) {
            defer { free(resolved) }
            return String(cString: resolved)
        }
        let name = lastComponent(of: path)
        guard vrn_errno() == ENOENT, !name.isEmpty, name != ".", name != "..",
            let parent = realpath(directory(of: path), nil)
        else { return nil }
        defer { free(parent) }
        let base = String(cString: parent)
        var target = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let length = readlink(path, &target, target.count)
        if length > 0 {
            let name = String(decoding: target[..<length], as: UTF8.self)
            return links > 0 ? canonical(name.hasPrefix("/") ? name : "\(base)/\(name)", links: links - 1) : nil
        }
        return base == "/" ? "/\(name)" : "\(base)/\(name)"
    }
}
