import CSQLite
import VerneuilReplica

/// SQLite's own opinion of a stored database.
package enum IntegrityCheck {
    /// As `Restore.Options.inspect`.
    package static func inspect(_ path: String) throws(ReplicaError) {
        guard let complaints = complaints(about: path) else { return }
        throw .refused("the database is as it was stored, but SQLite's integrity check says: \(complaints); it is left in \(path)")
    }

    /// What `PRAGMA integrity_check` says of a file that nobody has open; nil where that is "ok".
    package static func complaints(about path: String) -> String? {
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
