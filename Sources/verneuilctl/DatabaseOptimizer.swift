import CSQLite

/// `sync --optimize`: one page is one chunk, and free pages are gone.
enum DatabaseOptimizer {
    static func run(_ path: String) throws {
        var db: OpaquePointer?
        defer { sqlite3_close(db) }
        try check(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, nil), db, path)
        sqlite3_busy_timeout(db, 10_000)
        if try text("PRAGMA journal_mode", db, path) == "wal" {
            // Neither a new page size nor replication works there.
            throw Failure("\(path) is in WAL mode: run \"PRAGMA journal_mode=DELETE\" on it first")
        }
        try check(sqlite3_exec(db, "PRAGMA page_size=65536; VACUUM", nil, nil, nil), db, path)
    }

    private static func text(_ sql: String, _ db: OpaquePointer?, _ path: String) throws -> String {
        var statement: OpaquePointer?
        defer { sqlite3_finalize(statement) }
        try check(sqlite3_prepare_v2(db, sql, -1, &statement, nil), db, path)
        guard sqlite3_step(statement) == SQLITE_ROW, let value = sqlite3_column_text(statement, 0) else {
            try check(sqlite3_errcode(db), db, path)
            return ""
        }
        return String(cString: value)
    }

    private static func check(_ code: Int32, _ db: OpaquePointer?, _ path: String) throws {
        if code != SQLITE_OK, code != SQLITE_ROW, code != SQLITE_DONE {
            throw Failure("\(path): \(String(cString: sqlite3_errmsg(db)))")
        }
    }
}
