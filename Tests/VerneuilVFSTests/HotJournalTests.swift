import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// A process that writes through one VFS is killed at each system call that changes a file; another process opens what it
// left through the other VFS, and finds a whole transaction or none of it.

@Suite struct HotJournals {
    private static let transaction = """
        PRAGMA cache_size=3; BEGIN; UPDATE t SET n=n+1; INSERT INTO t SELECT i+1000, n, x FROM t; \
        UPDATE t SET x=zeroblob(700); COMMIT
        """

    @Test(
        arguments: ["linux", "unix"], ["linux", "unix"])
    func `What a killed writer leaves is rolled back by whoever comes next`(_ writer: String, _ reader: String) throws {
        let scratch = try ScratchDirectory("hot")
        let faultio = try FaultIO.build(in: scratch.path)
        let original = scratch.file("original.db")
        let maker = Connection(original, vfs: "unix")
        #expect(
            maker.execute(
                """
                PRAGMA page_size=1024; CREATE TABLE t(i INTEGER PRIMARY KEY, n, x);
                WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<15)
                INSERT INTO t SELECT i, 1, zeroblob(400) FROM c
                """
            ).code == SQLITE_OK)
        maker.close()
        let bytes = try #require(try Files.read(original))

        var seen: Set<[String]> = []
        var point = 1
        var hot = 0
        while true {
            let path = scratch.file("\(point).db")
            try Files.writeAtomically(bytes, to: path, mode: 0o644)
            let calls = "pwrite,ftruncate,fdatasync,fsync,unlink,lock"
            let tool = try ToolProcess(environment: [
                "LD_PRELOAD": faultio, "FAULTIO": "calls=\(calls);path=\(path);at=\(point);kill=before",
            ])
            do {
                try tool.ask("sql-open", "a", writer, path, "6")
                #expect(try tool.ask("sql", "a", Self.transaction)[0] == "0")
                #expect(try tool.ask("sql-close", "a") == ["0"])
                break
            } catch let gone as ToolProcess.Gone {
                #expect(gone.status == SIGKILL)
            }
            if vrn_access("\(path)-journal", F_OK) == 0 { hot += 1 }
            let next = Connection(path, vfs: reader)
            let result = next.execute("PRAGMA integrity_check; SELECT count(*), min(n), max(n), max(length(x)) FROM t")
            #expect(result.code == SQLITE_OK)
            seen.insert(result.rows)
            #expect(next.execute("UPDATE t SET n=9").code == SQLITE_OK)
            #expect(vrn_access("\(path)-journal", F_OK) == -ENOENT)
            next.close()
            point += 1
        }
        #expect(seen == [["ok", "15|1|1|400"], ["ok", "30|2|2|700"]])
        #expect(point > 50)
        #expect(hot > 30)
    }
}
