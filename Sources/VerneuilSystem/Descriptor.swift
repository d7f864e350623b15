import CVerneuil

/// An open file that is closed when its owner goes away. Calls are system
/// calls with short counts completed and errors typed; `path` is for messages.
public struct Descriptor: ~Copyable, Sendable {
    public private(set) var fd: Int32
    public let path: String

    /// Takes ownership of `fd`.
    public init(owning fd: Int32, path: String) {
        self.fd = fd
        self.path = path
    }

    /// Opens `path`; the descriptor is closed on exec and never 0, 1 or 2.
    public init(_ path: String, _ flags: Int32, mode: UInt32 = 0o600) throws(SystemError) {
        self.fd = try SystemError.check(vrn_open(path, flags, mode), "open", path)
        self.path = path
    }

    deinit { if fd >= 0 { _ = vrn_close(fd) } }

    /// Closes now, so that an error is seen.
    public consuming func close() throws(SystemError) {
        let r = vrn_close(fd)
        fd = -1
        try SystemError.check(r, "close", path)
    }

    /// Reads until `buffer` is full or the file ends; answers the count.
    public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            let n = vrn_pread(fd, buffer.baseAddress! + done, buffer.count - done, offset + Int64(done))
            if n == 0 { break }
            done += try SystemError.check(n, "pread", path)
        }
        return done
    }

    /// Reads up to `count` bytes at `offset`.
    public func read(count: Int, at offset: Int64) throws(SystemError) -> [UInt8] {
        guard count > 0 else { return [] }
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(SystemError) {
                initialized = try read(into: UnsafeMutableRawBufferPointer(buffer), at: offset)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Writes all of `buffer`.
    public func write(_ buffer: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        var done = 0
        while done < buffer.count {
            let n = vrn_pwrite(fd, buffer.baseAddress! + done, buffer.count - done, offset + Int64(done))
            if n == 0 { throw SystemError("pwrite", path, ENOSPC) }
            done += try SystemError.check(n, "pwrite", path)
        }
    }

    public func write(_ bytes: [UInt8], at offset: Int64) throws(SystemError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            do throws(SystemError) { try write(buffer, at: offset) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    public func truncate(to length: Int64) throws(SystemError) {
        try SystemError.check(vrn_ftruncate(fd, length), "ftruncate", path)
    }

    public func sync() throws(SystemError) {
        try SystemError.check(vrn_fsync(fd), "fsync", path)
    }

    public func status() throws(SystemError) -> FileStatus {
        var st = stat()
        try SystemError.check(vrn_fstat(fd, &st), "fstat", path)
        return FileStatus(st)
    }
}

/// What stat(2) says of a file, as far as this project looks.
public struct FileStatus: Hashable, Sendable {
    public var device: UInt64
    public var inode: UInt64
    public var mode: UInt32
    public var links: UInt64
    public var size: Int64
    /// Bytes that the file takes on disk.
    public var allocated: Int64
    public var modified: FileTime
    public var changed: FileTime

    public init(_ st: stat) {
        device = UInt64(truncatingIfNeeded: st.st_dev)
        inode = UInt64(st.st_ino)
        mode = UInt32(st.st_mode)
        links = UInt64(st.st_nlink)
        size = Int64(st.st_size)
        allocated = Int64(st.st_blocks) * 512
        modified = withUnsafePointer(to: st) { FileTime(vrn_stat_mtime($0)) }
        changed = withUnsafePointer(to: st) { FileTime(vrn_stat_ctime($0)) }
    }

    public var isDirectory: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFDIR) }
    public var isRegularFile: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFREG) }
    public var isSymbolicLink: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFLNK) }
}

/// A time stamp of a file: seconds since 1970 and nanoseconds.
public struct FileTime: Hashable, Comparable, Sendable {
    public var seconds: Int64
    public var nanoseconds: Int64

    public init(seconds: Int64, nanoseconds: Int64) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }
    public init(_ t: timespec) {
        seconds = Int64(t.tv_sec)
        nanoseconds = Int64(t.tv_nsec)
    }
    public static func < (a: FileTime, b: FileTime) -> Bool {
        (a.seconds, a.nanoseconds) < (b.seconds, b.nanoseconds)
    }

    /// Nanoseconds since 1970; the nearest that there is for a time before 1677 or after 2262. Anybody may give a file such a one.
    public var nanosecondsSince1970: Int64 {
        let (whole, isFar) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, isBeyond) = whole.addingReportingOverflow(nanoseconds)
        return isFar || isBeyond ? (seconds < 0 ? .min : .max) : sum
    }

    /// Whether it lies less than so many nanoseconds before `now`; what is later than that does not.
    public func isYounger(than nanoseconds: Int64, at now: FileTime) -> Bool {
        let (age, isFar) = now.nanosecondsSince1970.subtractingReportingOverflow(nanosecondsSince1970)
        return !isFar && age >= 0 && age < nanoseconds
    }
}
