import CSQLite
import Foundation

/// Databases made with SQLite itself.
public enum Databases {
    /// The file's bytes.
    public static func bytes(_ path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    /// A table `t(id, k, body)` of `rows` rows with an index on `k`, at least
    /// `rowBytes` each, and a table `state(version)`.
    /// - Parameter indexFirst: makes the index before the rows, so that its pages are scattered.
    public static func make(
        _ path: String, rows: Int, rowBytes: Int = 500, pageSize: Int = 4096, version: Int = 1,
        indexFirst: Bool = false
    ) throws {
        let index = "CREATE INDEX by_k ON t(k);"
        let db = try SQLiteConnection(path)
        try db.rows(
            """
            PRAGMA page_size=\(pageSize); PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;
            BEGIN;
            CREATE TABLE state(version INTEGER);
            INSERT INTO state VALUES(\(version));
            CREATE TABLE t(id INTEGER PRIMARY KEY, k TEXT, body BLOB); \(indexFirst ? index : "")
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(rows))
            INSERT INTO t SELECT i, printf('key %d', i * 7919 % \(max(rows, 1) * 3 + 1)), randomblob(\(rowBytes)) FROM n;
            \(indexFirst ? "" : index)
            COMMIT;
            """)
    }

    /// A checksum over all of `t`, in the order of the row id.
    public static let checksum = "SELECT count(*), sum(id), sum(length(body)), sum(unicode(hex(body))), max(k) FROM t"
}
