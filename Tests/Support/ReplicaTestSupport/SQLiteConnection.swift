import CSQLite
import CVerneuil

/// Gives the core SQLite's function table, as a program that links SQLite gets
/// it: an extension entry point that runs when a connection is opened.
public enum SQLiteTable {
    public static func install() { _ = installed }

    private static let installed: Bool = {
        typealias EntryPoint = @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, OpaquePointer?
        ) -> Int32
        let entry: EntryPoint = { _, _, table in
            vrn_sqlite3_set_api(UnsafePointer<CVerneuil.sqlite3_api_routines>(table))
            return SQLITE_OK
        }
        let plain = unsafeBitCast(entry, to: (@convention(c) () -> Void).self)
        sqlite3_auto_extension(plain)
        var connection: OpaquePointer?
        sqlite3_open(":memory:", &connection)
        sqlite3_close(connection)
        sqlite3_cancel_auto_extension(plain)
        return vrn_sqlite3_has_api() != 0
    }()
}

public struct SQLiteError: Error, CustomStringConvertible {
    /// The extended result code.
    public var code: Int32
    public var message: String
    public var primary: Int32 { code & 0xFF }
    public var description: String { "SQLite error \(code): \(message)" }
}

/// A connection, for one thread at a time.
public final class SQLiteConnection: @unchecked Sendable {
    public let handle: OpaquePointer?

    /// - Parameter name: a path, or a URI that begins with `file:`.
    public init(_ name: String, vfs: String? = nil, flags: Int32 = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE) throws {
        var opened: OpaquePointer?
        let code = sqlite3_open_v2(name, &opened, flags | SQLITE_OPEN_URI, vfs)
        handle = opened
        if code != SQLITE_OK {
            let error = SQLiteError(code: sqlite3_extended_errcode(opened), message: String(cString: sqlite3_errmsg(opened)))
            throw error
        }
        sqlite3_extended_result_codes(opened, 1)
    }

    deinit { sqlite3_close_v2(handle) }

    private var error: SQLiteError {
        SQLiteError(code: sqlite3_extended_errcode(handle), message: String(cString: sqlite3_errmsg(handle)))
    }

    /// Runs statements and answers the rows of them all, as text; NULL is "NULL".
    @discardableResult
    public func rows(_ sql: String) throws -> [[String]] {
        var rows: [[String]] = []
        var text = sql
        while !text.isEmpty {
            var statement: OpaquePointer?
            var consumed = 0
            let code = text.withCString { start in
                var tail: UnsafePointer<CChar>?
                let code = sqlite3_prepare_v2(handle, start, -1, &statement, &tail)
                consumed = tail.map { $0 - start } ?? text.utf8.count
                return code
            }
            guard code == SQLITE_OK else { throw error }
            text = String(text.utf8.dropFirst(consumed)) ?? ""
            defer { sqlite3_finalize(statement) }
            guard statement != nil else { continue }
            while true {
                let step = sqlite3_step(statement)
                if step == SQLITE_DONE { break }
                guard step == SQLITE_ROW else { throw error }
                rows.append(
                    (0..<sqlite3_column_count(statement)).map { i in
                        sqlite3_column_text(statement, i).map { String(cString: $0) } ?? "NULL"
                    })
            }
        }
        return rows
    }

    /// The first column of the first row.
    @discardableResult
    public func value(_ sql: String) throws -> String {
        try rows(sql).first?.first ?? "(no row)"
    }
}
