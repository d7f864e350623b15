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

    /// Whether the journal beside the database holds a transaction that was
    /// not finished: while one is under way, and after a crash (SQLite's "hot
    /// journal"). A journal without content, or whose header is zeroed
    /// (journal_mode TRUNCATE and PERSIST), is none.
    public static func hasLiveJournal(_ path: String) throws(SystemError) -> Bool {
        let journal = path + "-journal"
        var st = stat()
        let r = vrn_stat(journal, &st)
        if r == -ENOENT { return false }
        try SystemError.check(r, "stat", journal)
        if st.st_size == 0 { return false }
        let fd = vrn_open(journal, O_RDONLY, 0)
        if fd == -ENOENT { return false }
        let file = Descriptor(owning: try SystemError.check(fd, "open", journal), path: journal)
        return try file.read(count: 8, at: 0).contains { $0 != 0 }
    }
}
