import CVerneuil
import VerneuilSystem

/// The file that a restore makes: `PATH.partial` until all of it is there, then PATH.
///
/// What it promises, and why:
/// - *PATH is all of the old file or all of the new one*, also after a power
///   failure: the new one is synced before it is renamed, the directory after.
/// - *A database in use is left alone.* Whoever reads or writes PATH with
///   SQLite holds one of its lock bytes (all 512 are tried, against both kinds
///   of locks); while a restore is about to replace the file it holds them all,
///   so that nobody begins. A connection without a transaction holds none, and
///   is not noticed (unless the database is in WAL mode).
/// - *What came to PATH while the restore ran is left alone*: an application may have been started again meanwhile.
/// - *No journal meets a database that it isn't of*: a non-empty one beside
///   PATH means that the database was not closed, and SQLite would roll it back
///   into the new file. With `force` it is removed before the rename.
/// - *A file that is neither empty nor a database is somebody's text, key or archive*: it is left alone, unless forced.
/// - *Two restores to one PATH don't mix*: PATH.partial is locked with flock(2).
/// - What is left of an interrupted restore is PATH.partial and nothing else.
struct RestoreTarget: ~Copyable {
    /// Absolute, without links.
    let path: String
    let partial: Descriptor
    /// Bytes that an earlier restore has left in the partial file.
    let found: Int64
    /// The file to be replaced, locked.
    private let old: Descriptor?
    private let force: Bool

    static func partialPath(_ path: String) -> String { "\(path).partial" }
    /// SQLite's PENDING, RESERVED and 510 SHARED bytes.
    private static let lockBytes: (start: Int64, count: Int64) = (0x4000_0000, 512)
    private static let journals = ["-journal", "-wal"]

    /// - Parameter force: replaces a database that is in use, or has a journal, and a file that is no database.
    static func open(_ name: String, force: Bool) throws(ReplicaError) -> RestoreTarget {
        guard let path = Files.canonical(name) else {
            throw .refused("\(name): can't be restored to: there is no such directory")
        }
        let foreign: String?
        do throws(SystemError) {
            let old = try lockExisting(path, force: force)
            foreign = force ? nil : try foreignContent(old)
            if foreign == nil { return try RestoreTarget(path, old, force) }
        } catch {
            throw explain(error, path)
        }
        throw .refused("\(path) is no SQLite database (\(foreign ?? "")), and is not replaced: restore to another file, or force it")
    }

    private init(_ path: String, _ old: consuming Descriptor?, _ force: Bool) throws(SystemError) {
        if !force { try Self.refuseJournals(path) }
        let partial = try Self.openPartial(Self.partialPath(path))
        try Self.inheritPermissions(from: old, to: partial)
        found = try partial.status().size
        self.path = path
        self.force = force
        self.old = old
        self.partial = partial
    }

    /// Puts the finished file in its place.
    consuming func publish() throws(ReplicaError) {
        do throws(SystemError) {
            try partial.sync()
            let isVacant = force ? false : try isStillVacant()
            for journal in Self.journals {
                // What came there meanwhile is somebody's who has the old file open.
                if !force { try Self.refuseJournals(path) }
                try Files.remove(path + journal)
            }
            if isVacant {
                try SystemError.check(vrn_rename_new(Self.partialPath(path), path), "rename", path)
            } else {
                try Files.rename(Self.partialPath(path), to: path)
            }
            try Files.syncDirectory(of: path)
        } catch {
            throw Self.explain(error, path)
        }
    }

    /// Whether there is nothing at PATH; false: the file that was there at the beginning, unused. Throws EEXIST for anything else.
    private borrowing func isStillVacant() throws(SystemError) -> Bool {
        guard let now = try Files.status(path) else { return true }
        switch old {
        case .none: throw SystemError("rename", path, EEXIST)
        case .some(let old):
            let then = try old.status()
            guard now.device == then.device, now.inode == then.inode else { throw SystemError("rename", path, EEXIST) }
            // Where it could not be locked, being read-only, somebody may have begun.
            let result = vrn_ofd_test(old.fd, Int16(F_WRLCK), Self.lockBytes.start, Self.lockBytes.count)
            guard result == 0 else { throw SystemError("lock", path, result > 0 ? EBUSY : -result) }
            return false
        }
    }

    // MARK: The file that is there

    private static func lockExisting(_ path: String, force: Bool) throws(SystemError) -> Descriptor? {
        guard let status = try Files.status(path) else { return nil }
        guard status.isRegularFile else { throw SystemError("restore", path, status.isDirectory ? EISDIR : EINVAL) }
        if force { return try? Descriptor(path, O_RDONLY) }
        var fd = vrn_open(path, O_RDWR, 0)
        let canWrite = fd >= 0
        if fd == -EACCES || fd == -EROFS { fd = vrn_open(path, O_RDONLY, 0) }
        try SystemError.check(fd, "open", path)
        let result =
            canWrite
            ? vrn_ofd_lock(fd, Int16(F_WRLCK), lockBytes.start, lockBytes.count)
            : vrn_ofd_test(fd, Int16(F_WRLCK), lockBytes.start, lockBytes.count)
        guard result != 0 else { return Descriptor(owning: fd, path: path) }
        // Left open: if it is this process whose SQLite has locked the file, by
        // POSIX locks, then closing any descriptor of the file would drop them.
        throw SystemError("lock", path, result == 1 || result == -EAGAIN ? EBUSY : -result)
    }

    /// What the file holds, where that is no database: "9000 bytes that begin with …"; nil where it may be replaced.
    private static func foreignContent(_ old: borrowing Descriptor?) throws(SystemError) -> String? {
        let header: [UInt8], size: Int64
        switch old {
        case .some(let old):
            header = try old.read(count: 16, at: 0)
            size = try old.status().size
        case .none: return nil
        }
        if header.isEmpty || header == Array("SQLite format 3\0".utf8) { return nil }
        return Files.describe(start: header, size: size)
    }

    private static func refuseJournals(_ path: String) throws(SystemError) {
        for journal in journals {
            guard let status = try Files.status(path + journal), status.size > 0 else { continue }
            // That of a transaction which is over, under journal_mode=PERSIST, begins with zeros (SQLite, pager.c: hasHotJournal).
            if journal == "-journal", try Files.read(path + journal, prefix: 1) == [0] { continue }
            throw SystemError("restore", path + journal, ENOTEMPTY)
        }
    }

    private static func explain(_ error: SystemError, _ path: String) -> ReplicaError {
        switch error.code {
        case EBUSY:
            .refused("\(path) is in use as a database: close it, restore to another file, or force it")
        case ENOTEMPTY:
            .refused(
                "\(error.path) is not empty: \(path) was not closed properly; open it once with SQLite, restore to another file, or force it"
            )
        case EEXIST where error.operation == "rename":
            .refused(
                "\(path) has come there since the restore began: restore to another file, or move it away and do it again, which takes little: \(partialPath(path)) is kept"
            )
        case EWOULDBLOCK: .refused("\(error.path): another restore is writing it")
        case EISDIR: .refused("\(error.path) is a directory")
        case EINVAL where error.operation != "lock": .refused("\(error.path) is not a regular file")
        default: .system(error)
        }
    }

    // MARK: The partial file

    private static func openPartial(_ path: String) throws(SystemError) -> Descriptor {
        while true {
            let file = try Descriptor(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, mode: 0o644)
            let status = try file.status()
            guard status.isRegularFile else { throw SystemError("open", path, EINVAL) }
            try SystemError.check(vrn_flock(file.fd, LOCK_EX | LOCK_NB), "flock", path)
            // Another restore may have finished, and renamed it away, before the lock was had.
            if let named = try Files.status(path, followLinks: false), named.inode == status.inode,
                named.device == status.device
            {
                return file
            }
        }
    }

    private static func inheritPermissions(from old: borrowing Descriptor?, to new: borrowing Descriptor) throws(SystemError) {
        switch old {
        case .some(let old):
            var st = stat()
            try SystemError.check(vrn_fstat(old.fd, &st), "fstat", old.path)
            // Only root may give files away; others keep what they make.
            _ = vrn_fchown(new.fd, st.st_uid, st.st_gid)
            try SystemError.check(vrn_fchmod(new.fd, UInt32(st.st_mode) & 0o777), "fchmod", new.path)
        case .none: break
        }
    }
}
