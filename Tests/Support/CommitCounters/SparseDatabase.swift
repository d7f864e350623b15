import CSQLite
import CVerneuil
import VerneuilSystem

/// Databases of any size, of which only the beginning takes room.
public enum SparseDatabase {
    /// One MiB of tables (`log`, of small rows, in the middle of it; `filler`), then nothing up to `mebibytes`: pages that
    /// no table refers to. SQLite takes its size from the header (SQLite file format, 1.3.8).
    ///
    /// - Parameter realMebibytes: so much of the rest has content: bytes that differ from chunk to chunk.
    public static func make(_ path: String, mebibytes: Int, realMebibytes: Int = 0) throws {
        do {
            let db = try CountedConnection(path, vfs: "unix")
            try db.run("PRAGMA page_size=4096")
            try db.run("PRAGMA journal_mode=OFF")
            try db.run("PRAGMA synchronous=OFF")
            try db.run("CREATE TABLE filler(id INTEGER PRIMARY KEY, data BLOB)")
            try db.run(fill("1", "100"))
            try db.run("CREATE TABLE log(id INTEGER PRIMARY KEY, note TEXT)")
            try db.run(
                """
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50)
                INSERT INTO log SELECT i, 'a note of some fifty bytes, as in a log of events' FROM n
                """)
            try db.run(fill("101", "240"))
        }
        let file = try Descriptor(path, O_RDWR)
        let size = Int64(mebibytes) << 20
        try file.truncate(to: size)
        let pages = UInt32(size >> 12)
        try file.write([UInt8(pages >> 24 & 255), UInt8(pages >> 16 & 255), UInt8(pages >> 8 & 255), UInt8(pages & 255)], at: 28)
        var chunk = [UInt8](repeating: 0x55, count: 65536)
        for i in 0..<min(realMebibytes, mebibytes - 1) * 16 {
            for j in 0..<512 { chunk[j * 128] = UInt8(truncatingIfNeeded: i &* 31 &+ j) }
            chunk[0] = UInt8(i & 255)
            chunk[1] = UInt8(i >> 8 & 255)
            try file.write(chunk, at: 1 << 20 + Int64(i) << 16)
        }
    }

    private static func fill(_ first: String, _ last: String) -> String {
        """
        WITH RECURSIVE n(i) AS (SELECT \(first) UNION ALL SELECT i + 1 FROM n WHERE i < \(last))
        INSERT INTO filler SELECT i, randomblob(3900) FROM n
        """
    }
}

/// As much of SQLite as counting takes.
public final class CountedConnection {
    private var db: OpaquePointer?

    public init(_ path: String, vfs: String?) throws {
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
        guard sqlite3_open_v2(path, &db, flags, vfs) == SQLITE_OK else { throw failure(path) }
    }
    deinit { sqlite3_close_v2(db) }

    private func failure(_ what: String) -> CommitCounters.Failure {
        CommitCounters.Failure("\(what): \(String(cString: sqlite3_errmsg(db)))")
    }

    public func load(_ ext: String) throws {
        sqlite3_enable_load_extension(db, 1)
        var message: UnsafeMutablePointer<CChar>?
        guard sqlite3_load_extension(db, ext, "sqlite3_verneuilvfs_init", &message) == SQLITE_OK else {
            throw CommitCounters.Failure("\(ext): \(message.map { String(cString: $0) } ?? "?")")
        }
    }

    public func prepare(_ sql: String) throws -> OpaquePointer {
        var statement: OpaquePointer?
        guard sqlite3_prepare_v3(db, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil) == SQLITE_OK, let statement
        else { throw failure(sql) }
        return statement
    }

    /// One run of a statement that answers nothing, with a number for its parameter.
    public func step(_ statement: OpaquePointer, _ value: Int64) throws {
        sqlite3_bind_int64(statement, 1, value)
        let code = sqlite3_step(statement)
        sqlite3_reset(statement)
        guard code == SQLITE_DONE else { throw failure("step") }
    }

    /// Answers the last row's first column.
    @discardableResult
    public func run(_ sql: String) throws -> String {
        let statement = try prepare(sql)
        defer { sqlite3_finalize(statement) }
        var answer = ""
        while true {
            switch sqlite3_step(statement) {
            case SQLITE_ROW: answer = sqlite3_column_text(statement, 0).map { String(cString: $0) } ?? ""
            case SQLITE_DONE: return answer
            default: throw failure(sql)
            }
        }
    }
}
