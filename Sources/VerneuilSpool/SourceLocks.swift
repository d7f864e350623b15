import CVerneuil
import VerneuilSystem

/// Who is at work on a database, found out without taking any lock: asking
/// must never make a writer see SQLITE_BUSY.
public enum SourceLocks {
    // SQLite file format, lock bytes: PENDING, RESERVED, then 510 SHARED bytes.
    static let pending: Int64 = 0x4000_0000
    static let reserved = pending + 1
    static let shared = pending + 2
    static let sharedBytes: Int64 = 510

    /// Whether somebody may write to the file just now: holds EXCLUSIVE.
    public static func isBeingWritten(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> Bool {
        try SystemError.check(vrn_ofd_test(fd, Int16(F_RDLCK), shared, sharedBytes), "fcntl", path()) != 0
    }

    /// Whether somebody has a write transaction, perhaps without having written yet: holds RESERVED.
    public static func isReserved(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> Bool {
        try SystemError.check(vrn_ofd_test(fd, Int16(F_RDLCK), reserved, 1), "fcntl", path()) != 0
    }

    /// Whether the journal beside the database holds a transaction that was
    /// not finished: while one is under way, and after a crash (SQLite's "hot
    /// journal"). A journal without content, or whose header is zeroed
    /// (journal_mode TRUNCATE and PERSIST), is none.
    public static func hasLiveJournal(_ path: String) throws(SystemError) -> Bool {
        try isLive(journal: journal(path))
    }

    /// The path of the journal of the database at `path`.
    public static func journal(_ path: String) -> String { path + "-journal" }

    /// The same, where the journal's path is at hand: on the way of a commit, which makes no strings.
    public static func isLive(journal: String) throws(SystemError) -> Bool {
        var st = stat()
        // Not `vrn_stat(journal, …)`: that copies the string to the heap.
        let r = journal.withCString { vrn_stat($0, &st) }
        if r == -ENOENT { return false }
        try SystemError.check(r, "stat", journal)
        if st.st_size == 0 { return false }
        let fd = journal.withCString { vrn_open($0, O_RDONLY, 0) }
        if fd == -ENOENT { return false }
        let file = Descriptor(owning: try SystemError.check(fd, "open", journal), path: journal)
        var magic: UInt64 = 0
        let n = withUnsafeMutableBytes(of: &magic) { vrn_pread(file.fd, $0.baseAddress, 8, 0) }
        try SystemError.check(n, "pread", journal)
        return magic != 0
    }
}
