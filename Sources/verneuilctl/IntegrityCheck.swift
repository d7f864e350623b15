import CSQLite
import CVerneuil
import VerneuilReplica
import VerneuilSystem
import VerneuilVerify

/// SQLite's own opinion of a stored database.
enum IntegrityCheck {
    /// Restores to a temporary file, and has SQLite look at that.
    /// - Returns: nil where it is fine.
    ///
    /// The copy is this user's alone, and is gone whatever ends the program but SIGKILL.
    /// - Parameter signals: blocked since before any thread was started.
    static func run(_ restore: Restore, directory: String?, _ signals: StopSignals) throws -> Verification.Finding? {
        let own = Files.temporaryName(beside: "\(directory ?? "/var/tmp")/verify")
        try Files.makeDirectories(own)
        defer { try? Files.removeTree(own) }
        // The restore goes on meanwhile, and may make a file once more.
        try signals.beforeTheEnd { for _ in 0..<10 where (try? Files.removeTree(own)) == nil { Threads.pause(microseconds: 1000) } }
        let path = "\(own)/db"
        _ = try restore.write(to: path)
        guard let complaints = complaints(about: path) else { return nil }
        return .init(
            .bad, "the restored database", expected: "\"ok\" from PRAGMA integrity_check", found: complaints)
    }

    /// What `PRAGMA integrity_check` says of a file that nobody has open; nil where that is "ok".
    static func complaints(about path: String) -> String? {
        var db: OpaquePointer?
        defer { sqlite3_close(db) }
        var lines: [String] = []
        var code = sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, nil)
        if code == SQLITE_OK {
            var statement: OpaquePointer?
            code = sqlite3_prepare_v2(db, "PRAGMA integrity_check(10)", -1, &statement, nil)
            while code == SQLITE_OK || code == SQLITE_ROW {
                code = sqlite3_step(statement)
                if code == SQLITE_ROW, let text = sqlite3_column_text(statement, 0) { lines.append(String(cString: text)) }
            }
            sqlite3_finalize(statement)
        }
        if code != SQLITE_DONE { lines.append(String(cString: sqlite3_errmsg(db))) }
        return lines == ["ok"] ? nil : lines.joined(separator: "; ")
    }
}
