import CSQLite
import CVerneuil
import VerneuilSystem

/// A fixed set of transactions that goes through everything a VFS does for a rollback-journal database, to be run
/// while a system call fails: journals of three kinds, a cache that spills, temporary files, two attached
/// databases with a super-journal, VACUUM, chunked growth, a hot journal, links, relative names.
///
/// Each change is a transaction that sets `state.n`, and every row that it leaves carries that number, so that a look
/// at the file says which transaction it shows, and whether it shows it whole.
public enum FaultWorkload {
    /// Names of the steps, in order.
    public static var steps: [String] { script.map(\.name) }

    private struct Step: Sendable {
        let name: String
        let sql: String
        /// What `state.n` is after it; nil where it changes nothing.
        var becomes: Int?
        var connection = "a"
    }

    /// Runs it on a fresh database in `directory` (which it makes and removes) with `plan` for faultio in force; what
    /// the plan logs is divided by calls of access(2) on `/step/NAME`. SQLITE_TMPDIR, where the process was started
    /// with it, should be above `directory`, so that its files are looked at too.
    ///
    /// - Returns: for each step, the code that SQLite gave; then `ok`, or what is wrong with the database or
    ///   this process afterwards.
    public static func run(vfs: String, in directory: String, plan: String) -> [String] {
        do {
            try Files.makeDirectories(directory, mode: 0o755)
            defer { try? Files.removeTree(directory) }
            guard chdir(directory) == 0 else { return ["can't enter \(directory)"] }
            defer { _ = chdir("/") }
            try prepareHotJournal()
            if vfs == "verneuil" { try ReplicationInstallation.empty() }
            let before = openDescriptors(under: directory)
            FaultIO.configure(plan)
            var (codes, least, most) = perform(vfs: vfs)
            let matched = FaultIO.count
            FaultIO.configure("")
            var state = verify(vfs, directory, least: least, most: most, before: before)
            if state == "ok" && vfs == "verneuil" { state = ReplicationInstallation.goesOn("main.db") }
            let at = plan.split(separator: ";").compactMap { $0.hasPrefix("at=") ? Int($0.dropFirst(3)) : nil }.last
            if state == "ok", let at, matched < at { state = "the plan did not act: \(matched) calls matched" }
            codes.append(state)
            return codes
        } catch {
            FaultIO.configure("")
            return ["\(error)"]
        }
    }

    // state(n): one row. data: every row carries n too.
    private static let script: [Step] = [
        Step(name: "open", sql: "PRAGMA main.cache_size=4; PRAGMA temp_store=FILE"),
        Step(name: "create", sql: """
            PRAGMA page_size=1024; BEGIN; CREATE TABLE state(n); CREATE TABLE data(i INTEGER PRIMARY KEY, n, x);
            CREATE TABLE history(n); INSERT INTO state VALUES(1); COMMIT
            """, becomes: 1),
        Step(name: "insert", sql: """
            BEGIN; UPDATE state SET n=2;
            WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<9)
            INSERT INTO data SELECT i, 2, zeroblob(300) FROM c; COMMIT
            """, becomes: 2),
        Step(name: "spill", sql: "BEGIN; UPDATE state SET n=3; UPDATE data SET n=3, x=zeroblob(310); COMMIT", becomes: 3),
        Step(name: "read", sql: "SELECT count(*), sum(n) FROM data", connection: "b"),
        Step(name: "truncate-journal", sql: """
            PRAGMA journal_mode=TRUNCATE; BEGIN; UPDATE state SET n=4; UPDATE data SET n=4; COMMIT
            """, becomes: 4),
        Step(name: "persist-journal", sql: """
            PRAGMA journal_mode=PERSIST; BEGIN; UPDATE state SET n=5; UPDATE data SET n=5; COMMIT
            """, becomes: 5),
        Step(name: "rollback", sql: """
            PRAGMA journal_mode=DELETE; BEGIN; UPDATE state SET n=99; UPDATE data SET n=99, x=zeroblob(320); ROLLBACK
            """),
        Step(name: "statement-journal", sql: """
            BEGIN; UPDATE state SET n=6; INSERT OR IGNORE INTO data SELECT i, 6, x FROM data; UPDATE data SET n=6;
            COMMIT
            """, becomes: 6),
        Step(name: "temporary", sql: """
            PRAGMA temp.cache_size=4;
            CREATE TEMP TABLE t AS SELECT d.i, e.i AS j, zeroblob(900) AS x FROM data d, data e WHERE e.i<3;
            SELECT count(*) FROM (SELECT * FROM t ORDER BY j DESC, i LIMIT -1 OFFSET 1); UPDATE t SET x=1; DROP TABLE t
            """),
        Step(name: "vacuum", sql: "VACUUM"),
        Step(name: "attach", sql: """
            ATTACH 'other.db' AS other; CREATE TABLE other.state(n); INSERT INTO other.state VALUES(6);
            BEGIN; UPDATE main.state SET n=7; UPDATE data SET n=7; UPDATE other.state SET n=7; INSERT INTO history VALUES(7);
            COMMIT
            """, becomes: 7),
        Step(name: "shrink", sql: """
            DETACH other; BEGIN; UPDATE state SET n=8; DELETE FROM data WHERE i>3; UPDATE data SET n=8; COMMIT; VACUUM
            """, becomes: 8),
        Step(name: "chunks", sql: """
            BEGIN; UPDATE state SET n=9; UPDATE data SET n=9;
            INSERT INTO data VALUES(1000, 9, zeroblob(9000)); COMMIT
            """, becomes: 9),
        Step(name: "exclusive", sql: """
            PRAGMA locking_mode=EXCLUSIVE; BEGIN; UPDATE state SET n=10; UPDATE data SET n=10; COMMIT;
            PRAGMA locking_mode=NORMAL; SELECT n FROM state
            """, becomes: 10),
        Step(name: "link", sql: "SELECT n FROM state", connection: "link"),
        Step(name: "hot-journal", sql: "SELECT n FROM state", connection: "hot"),
        Step(name: "close", sql: ""),
    ]

    private static let names = ["a": "main.db", "b": "main.db", "link": "link.db", "hot": "hot.db"]

    private static func perform(vfs: String) -> (codes: [String], least: Int, most: Int) {
        var codes: [String] = []
        // What is certain to be committed, and what may be.
        var least = 0
        var most = 0
        var connections: [String: Connection] = [:]
        for step in script {
            _ = vrn_access("/step/\(step.name)", F_OK)
            if step.name == "close" {
                let results = connections.keys.sorted().map { connections[$0]?.close() ?? 0 }
                codes.append("\(results.first { $0 != SQLITE_OK } ?? SQLITE_OK)")
                continue
            }
            if step.name == "link" { _ = vrn_symlink("main.db", "link.db") }
            let connection = connections[step.connection]
                ?? Connection(names[step.connection] ?? "", vfs: vfs)
            connections[step.connection] = connection
            if step.name == "chunks" {
                var chunk: Int32 = 8192
                _ = withUnsafeMutablePointer(to: &chunk) { connection.control(SQLITE_FCNTL_CHUNK_SIZE, $0) }
            }
            if connection.openCode != SQLITE_OK {
                codes.append("open \(connection.openCode)")
                continue
            }
            if let becomes = step.becomes { most = becomes }
            let outcome = connection.execute(step.sql)
            if outcome.code == SQLITE_OK {
                if let becomes = step.becomes { least = becomes }
            } else {
                // A failed COMMIT leaves the transaction open; the application's part is to roll back.
                connection.execute("ROLLBACK")
                connection.execute("PRAGMA locking_mode=NORMAL; SELECT 1 FROM sqlite_schema")
            }
            codes.append("\(outcome.code)")
        }
        return (codes, least, most)
    }

    /// `hot.db` and its journal, as a process that was killed in the middle of a commit leaves them.
    private static let hotFiles: [(suffix: String, bytes: [UInt8])] = {
        guard let scratch = try? ScratchDirectory("hot") else { return [] }
        let path = scratch.file("crashed.db")
        let writer = Connection(path, vfs: "unix")
        writer.execute("""
            PRAGMA page_size=1024; CREATE TABLE state(n); INSERT INTO state VALUES(1); CREATE TABLE data(x);
            INSERT INTO data VALUES(zeroblob(5000)); PRAGMA cache_size=2;
            BEGIN; UPDATE data SET x=zeroblob(9000); UPDATE state SET n=2
            """)
        return ["", "-journal"].map { ($0, (try? Files.read(path + $0)) ?? []) }
    }()

    private static func prepareHotJournal() throws {
        for (suffix, bytes) in hotFiles {
            guard !bytes.isEmpty else { throw SystemError("prepare", "hot.db\(suffix)", ENOENT) }
            try Files.writeAtomically(bytes, to: "hot.db\(suffix)", mode: 0o644)
        }
    }

    private static func verify(_ vfs: String, _ directory: String, least: Int, most: Int, before: [Int32: String]) -> String {
        var left = openDescriptors(under: directory).filter { before[$0.key] == nil }
        // Replication opens databases in the background, for a moment.
        for _ in 0..<200 where vfs == "verneuil" && !left.isEmpty {
            _ = usleep(20_000)
            left = openDescriptors(under: directory).filter { before[$0.key] == nil }
        }
        if !left.isEmpty { return "left open: \(left.values.sorted())" }
        // The other VFS reads it, with the same SQLite but none of our code.
        let check = Connection("main.db", vfs: "unix", flags: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
        defer { check.close() }
        let integrity = check.execute("PRAGMA integrity_check")
        guard integrity.code == SQLITE_OK, integrity.rows == ["ok"] else { return "damaged: \(integrity)" }
        if check.execute("SELECT 1 FROM sqlite_schema WHERE name='state'").rows.isEmpty {
            return least == 0 ? "ok" : "empty instead of \(least)"
        }
        let state = check.execute("SELECT n FROM state").rows
        guard state.count == 1, let n = Int(state[0]), n >= least, n <= most else {
            return "shows \(state) instead of \(least)...\(most)"
        }
        let foreign = check.execute("SELECT count(*) FROM data WHERE n<>\(n)").rows
        if foreign != ["0"] { return "mixes \(n) with others: \(foreign)" }
        let other = Connection("other.db", vfs: "unix")
        defer { other.close() }
        // One transaction in two files: in both or in none.
        let history = check.execute("SELECT n FROM history").rows
        let pair = other.execute("SELECT n FROM state WHERE n=7").rows
        if history != pair { return "main.db has \(history), other.db \(pair)" }
        let hot = Connection("hot.db", vfs: "unix")
        defer { hot.close() }
        let recovered = hot.execute("PRAGMA integrity_check; SELECT n FROM state")
        if recovered.rows != ["ok", "1"] { return "hot.db: \(recovered)" }
        return "ok"
    }
}
