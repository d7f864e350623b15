import Foundation
import ProductSupport
import Testing

/// Databases on a file system without extended attributes, where nothing but SQLite's header tells one state of a file from
/// another (docs/SPOOL.md).
@Suite struct NoAttributesTests {
    @Test(arguments: ["NORMAL", "EXCLUSIVE"])
    func replicationNeedsNoExtendedAttributes(lockingMode: String) throws {
        let here = try Workspace()
        let shim = here.file("faultio.so")
        let compiled = try Program.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, "\(Products.package)/Tests/Support/faultio/faultio.c", "-ldl"])
        try #require(compiled.status == 0, "\(compiled)")
        let log = here.file("calls")
        let environment = [
            "LD_PRELOAD": shim, "VERNEUIL_PARANOID": "1",
            "FAULTIO": "calls=fgetxattr,fsetxattr,fremovexattr;at=1;times=0;errno=EOPNOTSUPP;log=\(log)",
        ]
        // SQLite's own VFS, in another process: no lock of ours is seen by it, nor it by us.
        let foreign = ".system env -u LD_PRELOAD sqlite3 app.db \"UPDATE t SET b = randomblob(3000) WHERE a = 190\""
        let mode = "PRAGMA locking_mode=\(lockingMode)"
        let flush = "PRAGMA verneuil_flush_replication_data"
        let isExclusive = lockingMode == "EXCLUSIVE"
        func isRestored() throws -> Bool {
            let restored = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "r.db", "--force", environment: environment)
            #expect(restored.status == 0, "\(restored)")
            return try here.bytes("r.db") == here.bytes("app.db")
        }

        // 200 rows of 3,000 bytes: some ten chunks.
        let made = try here.extended(
            "file:app.db?vfs=verneuil", mode, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
            "INSERT INTO t SELECT value, randomblob(3000) FROM generate_series(1, 200)", "UPDATE t SET b = randomblob(3000) WHERE a = 100",
            flush, environment: environment)
        #expect(made.status == 0 && made.text.hasSuffix("1"), "\(made)")
        #expect(try isRestored())
        // Under EXCLUSIVE nobody else gets in between, but before it and after it.
        let before = isExclusive ? try here.sqlite("app.db", "UPDATE t SET b = randomblob(3000) WHERE a = 150") : nil
        #expect(before?.status ?? 0 == 0, "\(String(describing: before))")
        let between = isExclusive ? "SELECT 1" : foreign
        let changed = try here.extended(
            "file:app.db?vfs=verneuil", mode, "UPDATE t SET b = randomblob(3000) WHERE a = 1", between,
            "UPDATE t SET b = randomblob(3000) WHERE a = 2", flush, environment: environment)
        #expect(changed.status == 0 && changed.text.hasSuffix("1"), "\(changed)")
        #expect(try isRestored())
        let after = try here.sqlite("app.db", "UPDATE t SET b = randomblob(3000) WHERE a = 50")
        #expect(after.status == 0, "\(after)")
        let last = try here.extended(
            "file:app.db?vfs=verneuil", mode, "UPDATE t SET b = 3 WHERE a = 3", flush, environment: environment)
        #expect(last.status == 0 && last.text.hasSuffix("1"), "\(last)")
        #expect(try isRestored())

        let calls = String(decoding: try here.bytes("calls"), as: UTF8.self)
        for name in ["fgetxattr", "fsetxattr"] {
            #expect(calls.split(separator: "\n").contains { $0.contains(" \(name) ") && $0.contains("app.db") && $0.hasSuffix(" EOPNOTSUPP !") })
        }
    }
}
