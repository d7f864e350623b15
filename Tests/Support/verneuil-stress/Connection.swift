import CSQLite
import CVerneuil

struct SQLiteError: Error, CustomStringConvertible {
    /// The extended result code.
    let code: Int32
    let message: String
    let statement: String
    var primary: Int32 { code & 0xFF }
    var description: String { "SQLite error \(code) (\(message)) in: \(statement.prefix(200))" }
}

/// A SQLite connection; one thread's at a time.
final class Connection {
    let handle: OpaquePointer
    let name: String
    /// Commits that changed a database, as SQLite's commit hook counts them: attempts included that failed afterwards.
    private(set) var commits = 0
    /// Is given each text of statements before it is run.
    var trace: ((String) -> Void)?

    init(
        _ name: String, vfs: String, flags: Int32 = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI
    ) throws(SQLiteError) {
        var opened: OpaquePointer?
        let code = sqlite3_open_v2(name, &opened, flags, vfs)
        guard code == SQLITE_OK, let opened else {
            let error = SQLiteError(
                code: opened.map { sqlite3_extended_errcode($0) } ?? code,
                message: opened.map { String(cString: sqlite3_errmsg($0)) } ?? "no memory", statement: "open \(name)")
            sqlite3_close_v2(opened)
            throw error
        }
        handle = opened
        self.name = name
        sqlite3_extended_result_codes(handle, 1)
        _ = sqlite3_commit_hook(
            handle,
            { context in
                Unmanaged<Connection>.fromOpaque(context!).takeUnretainedValue().commits += 1
                return 0
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    deinit { sqlite3_close_v2(handle) }

    func waitForLocks(milliseconds: Int32) { sqlite3_busy_timeout(handle, milliseconds) }

    var isInTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

    /// Runs statements one after the other; blobs are bound to the parameters of each. Answers the rows of all, NULL as "NULL".
    @discardableResult
    func rows(_ sql: String, _ blobs: [[UInt8]] = []) throws(SQLiteError) -> [[String]] {
        var rows: [[String]] = []
        var failure: SQLiteError?
        trace?(blobs.isEmpty ? sql : "\(sql) -- \(blobs.map(\.count)) bytes")
        sql.withCString { start in
            var next: UnsafePointer<CChar>? = start
            while failure == nil, let text = next, text.pointee != 0 {
                var statement: OpaquePointer?
                if sqlite3_prepare_v2(handle, text, -1, &statement, &next) != SQLITE_OK {
                    failure = error(String(cString: text))
                    return
                }
                guard let statement else { return }
                defer { sqlite3_finalize(statement) }
                // SQLITE_STATIC would need the arrays pinned for the whole loop; a copy is simpler.
                let transient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
                for (i, blob) in blobs.enumerated() where i < Int(sqlite3_bind_parameter_count(statement)) {
                    sqlite3_bind_blob64(statement, Int32(i + 1), blob, sqlite3_uint64(blob.count), transient)
                }
                while true {
                    let code = sqlite3_step(statement)
                    if code == SQLITE_DONE { break }
                    guard code == SQLITE_ROW else {
                        failure = error(String(cString: text))
                        break
                    }
                    rows.append(
                        (0..<sqlite3_column_count(statement)).map { i in
                            sqlite3_column_text(statement, i).map { String(cString: $0) } ?? "NULL"
                        })
                }
            }
        }
        if let failure { throw failure }
        return rows
    }

    /// The first column of the first row.
    func value(_ sql: String) throws(SQLiteError) -> String { try rows(sql).first?.first ?? "" }
    func number(_ sql: String) throws(SQLiteError) -> Int64 { Int64(try value(sql)) ?? 0 }

    /// Takes back what a failed statement left open.
    func rollBack() { if isInTransaction { _ = try? rows("ROLLBACK") } }

    private func error(_ statement: String) -> SQLiteError {
        SQLiteError(
            code: sqlite3_extended_errcode(handle), message: String(cString: sqlite3_errmsg(handle)), statement: statement)
    }

    /// Pages written in the middle of transactions, since the cache was full.
    var spilledPages: Int {
        var current: Int32 = 0
        var peak: Int32 = 0
        sqlite3_db_status(handle, SQLITE_DBSTATUS_CACHE_SPILL, &current, &peak, 0)
        return Int(current)
    }

    /// SQLITE_FCNTL_CHUNK_SIZE: the file grows and shrinks by so many bytes.
    func setGrowth(bytes: Int32) {
        var bytes = bytes
        sqlite3_file_control(handle, "main", SQLITE_FCNTL_CHUNK_SIZE, &bytes)
    }

    /// The file's bytes as its VFS reads them. Call inside a read transaction.
    func fileBytes() throws(SQLiteError) -> [UInt8] {
        var file: UnsafeMutablePointer<sqlite3_file>?
        sqlite3_file_control(handle, "main", SQLITE_FCNTL_FILE_POINTER, &file)
        guard let file, let methods = file.pointee.pMethods else { throw error("SQLITE_FCNTL_FILE_POINTER") }
        var size: sqlite3_int64 = 0
        guard methods.pointee.xFileSize(file, &size) == SQLITE_OK else { throw error("xFileSize of \(name)") }
        // The empty array is one for all threads, and would be written to.
        if size == 0 { return [] }
        var code = SQLITE_OK
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, count in
            var at = 0
            while at < buffer.count, code == SQLITE_OK, let base = buffer.baseAddress {
                // Not a divisor of anything that a snapshot is made of.
                let n = min(24_571, buffer.count - at)
                code = methods.pointee.xRead(file, base + at, Int32(n), Int64(at))
                at += n
            }
            count = buffer.count
        }
        guard code == SQLITE_OK else {
            throw SQLiteError(code: code, message: "xRead", statement: "read of \(name)")
        }
        return bytes
    }

    /// sqlite3_backup: all of `source` into this database, in place, as one transaction.
    func copyAll(from source: Connection) throws(SQLiteError) {
        guard let backup = sqlite3_backup_init(handle, "main", source.handle, "main") else {
            throw error("sqlite3_backup_init")
        }
        sqlite3_backup_step(backup, -1)
        if sqlite3_backup_finish(backup) != SQLITE_OK { throw error("sqlite3_backup") }
    }
}
