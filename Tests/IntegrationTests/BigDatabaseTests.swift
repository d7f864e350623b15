import Foundation
import Testing

/// Databases larger than what a mapping per chunk can hold.
@Suite struct BigDatabaseTests {
    /// `ulimit -d`, in KiB: the kernel refuses private writable memory, thread stacks included, beyond it.
    static let memory = 300 * 1024

    /// Six GiB, 98,304 chunks, all different: replicated, restored and read as a
    /// replica by processes that can't have more than 300 MiB of anonymous memory.
    @Test(.enabled(if: !isQuick), .timeLimit(.minutes(10)))
    func sixGibibytesWithin300MebibytesOfMemory() throws {
        // In memory where there is room: the restored file alone takes six GiB.
        let attributes = try FileManager.default.attributesOfFileSystem(forPath: "/dev/shm")
        let free = (attributes[.systemFreeSize] as? NSNumber)?.int64Value ?? 0
        let scratch = try ScratchDirectory(in: free > 12 << 30 ? "/dev/shm" : "/var/tmp")
        let database = "\(scratch.path)/big.db"
        let environment = ["VERNEUIL_CONFIG": scratch.configuration]

        // A database of a few pages, stretched: SQLite takes its size from the header (SQLite file format, 1.3.8).
        // Each chunk gets some bytes of its own, in pages that no table refers to.
        let made = try Products.shell(
            """
            sqlite3 '\(database)' "PRAGMA page_size=4096; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT);
              WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, 'note ' || i FROM n;"
            python3 - '\(database)' <<'PYTHON'
            import os, struct, sys
            size = 6 << 30
            f = os.open(sys.argv[1], os.O_RDWR)
            os.truncate(f, size)
            for i in range(4, size >> 16):
                os.pwrite(f, b'chunk %d' % i, i << 16)
            os.pwrite(f, struct.pack('>I', size >> 12), 28)
            PYTHON
            sqlite3 '\(database)' "INSERT INTO t(note) VALUES('after'); SELECT count(*) FROM t"
            """, seconds: 200)
        #expect(made.status == 0 && made.output == "1001\n", "\(made)")

        func limited(_ command: String, seconds: Int = 300) throws -> Products.Result {
            try Products.shell("ulimit -d \(Self.memory); \(command)", environment: environment, seconds: seconds)
        }
        let synced = try limited("'\(Products.tool)' sync '\(database)'")
        #expect(synced.status == 0, "\(synced)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(scratch.path)/store/chunks").count > 98_000)

        // A transaction through the extension builds on that snapshot.
        let written = try limited(
            """
            sqlite3 -bail -cmd '.load \(Products.ext)' -cmd '.open file:\(database)?vfs=verneuil' :memory: \
              "INSERT INTO t(note) VALUES('replicated'); PRAGMA verneuil_flush_replication_data;"
            """)
        #expect(written.status == 0 && written.output.hasSuffix("1\n"), "\(written)")

        let read = try limited(
            """
            sqlite3 -bail -cmd '.load \(Products.ext)' -cmd ".open 'file:verneuil://\(database)?vfs=verneuil_snapshot'" :memory: \
              "SELECT count(*), max(note) FROM t; PRAGMA page_count;"
            """)
        #expect(read.status == 0 && read.output == "1002|replicated\n1572864\n", "\(read)")

        let restored = try limited("'\(Products.tool)' restore --source-path '\(database)' --out '\(scratch.path)/restored.db'")
        #expect(restored.status == 0, "\(restored)")
        #expect(try Products.shell("cmp '\(database)' '\(scratch.path)/restored.db'").status == 0)
    }
}
