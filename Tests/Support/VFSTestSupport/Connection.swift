import CSQLite

/// A SQLite connection, as thin as it can be: result codes are what the tests are about.
public final class Connection {
    private var db: OpaquePointer?
    /// Of sqlite3_open_v2.
    public let openCode: Int32

    public init(
        _ name: String, vfs: String? = nil,
        flags: Int32 = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI
    ) {
        precondition(LinuxVFSInstallation.isDone)
        openCode = sqlite3_open_v2(name, &db, flags, vfs)
        sqlite3_extended_result_codes(db, 1)
    }

    @discardableResult
    public func close() -> Int32 {
        let code = sqlite3_close(db)
        db = nil
        return code
    }

    deinit { sqlite3_close_v2(db) }

    public struct Outcome: Equatable, Sendable {
        /// The extended code; SQLITE_OK where all statements ran to their end.
        public var code: Int32
        /// A row is its columns joined by `|`.
        public var rows: [String]
    }

    @discardableResult
    public func execute(_ sql: String) -> Outcome {
        final class Rows { var rows: [String] = [] }
        let collected = Rows()
        let code = sqlite3_exec(
            db, sql,
            { context, count, values, _ in
                let rows = Unmanaged<Rows>.fromOpaque(context!).takeUnretainedValue()
                rows.rows.append((0..<Int(count)).map { values?[$0].map { String(cString: $0) } ?? "NULL" }.joined(separator: "|"))
                return 0
            }, Unmanaged.passUnretained(collected).toOpaque(), nil)
        return Outcome(code: code, rows: collected.rows)
    }

    public func setBusyTimeout(milliseconds: Int32) { sqlite3_busy_timeout(db, milliseconds) }
    public func control(_ operation: Int32, _ argument: UnsafeMutableRawPointer?, schema: String = "main") -> Int32 {
        sqlite3_file_control(db, schema, operation, argument)
    }
}
