/// A defect of some versions of SQLite itself (3.40.1 has it, 3.54.1 hasn't), on any VFS.
///
/// In a database with auto_vacuum, without secure_delete: a table is made on a page that was free, and then, within a
/// savepoint, a table with a smaller root page is dropped. The new table's root moves into the gap. After ROLLBACK TO the moved
/// page is right in the cache, but isn't written by COMMIT: the file keeps what the page held while it was free.
enum SQLiteDefect {
    /// Whether the SQLite that is linked has it: tried on a file at `path`, through SQLite's own VFS.
    static func isPresent(_ path: String) throws -> Bool {
        let connection = try Connection(path, vfs: "unix")
        try connection.rows("PRAGMA secure_delete=0; PRAGMA auto_vacuum=2; PRAGMA synchronous=0")
        for table in ["t3", "t2", "t1", "t0"] { try connection.rows("CREATE TABLE \(table)(k INTEGER PRIMARY KEY, a)") }
        for table in ["t3", "t2", "t1", "t0"] {
            try connection.rows(
                """
                WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<=100)
                INSERT INTO \(table)(a) SELECT zeroblob(700) FROM n
                """)
        }
        try connection.rows("DROP TABLE t3; DROP TABLE t0")
        try connection.rows("BEGIN; CREATE TABLE t0(k INTEGER PRIMARY KEY, a); SAVEPOINT s; DROP TABLE t2; ROLLBACK TO s; COMMIT")
        return try Connection(path, vfs: "unix").rows("PRAGMA integrity_check") != [["ok"]]
    }
}
