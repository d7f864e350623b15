import Foundation
import ProductSupport
import Testing

/// libverneuil_vfs.so in programs that nobody here made: the sqlite3 shell and Python.
@Suite struct LoadingTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    /// Debian's Python; another one first on PATH may be built without extensions.
    private func python(_ script: String, config: String? = nil) throws -> Program {
        try Program.run(
            ["/usr/bin/python3", "-c", script, Products.extension()],
            environment: ["VERNEUIL_CONFIG": config ?? here.configuration(spool: true)], directory: here.path)
    }

    @Test func itContainsWhatItNeedsAndExportsWhatItMust() throws {
        let check = try Program.run(["\(Products.package)/scripts/check-extension", Products.extension()])
        #expect(check.status == 0, "\(check)")
    }

    @Test func theShellWritesReplicatesAndReads() throws {
        let written = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t(x)", "INSERT INTO t SELECT value FROM generate_series(1, 1000)",
            "PRAGMA verneuil_flush_replication_data")
        #expect(written.status == 0 && written.text == "1", "\(written)")
        #expect(written.errors.isEmpty, "\(written)")
        let read = try here.extended("file:verneuil://\(here.path)/app.db?vfs=verneuil_snapshot", "SELECT count(*), sum(x) FROM t")
        #expect(read.status == 0 && read.text == "1000|500500", "\(read)")
    }

    @Test func pythonWritesReplicatesAndReads() throws {
        let program = try python(
            """
            import os, sqlite3, sys
            db = sqlite3.connect(":memory:")
            db.enable_load_extension(True)
            db.load_extension(sys.argv[1])
            db.load_extension(sys.argv[1])
            db.close()
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            app.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(1000)])
            app.commit()
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            replica = sqlite3.connect("file:verneuil://" + os.getcwd() + "/app.db?vfs=verneuil_snapshot", uri=True)
            print(*replica.execute("SELECT count(*), sum(x) FROM t").fetchone())
            """)
        #expect(program.status == 0 && program.text == "1\n1000 499500", "\(program)")
    }

    @Test func withoutConfigurationItIsAnOrdinaryVFS() throws {
        let program = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)", "SELECT count(*) FROM t", config: "")
        #expect(program.status == 0 && program.text == "1", "\(program)")
        #expect(program.errors.isEmpty, "\(program)")
        #expect(try here.sqlite("app.db", "PRAGMA integrity_check").text == "ok")
    }

    @Test(
        "a configuration that can't be used fails the load with its message",
        arguments: [
            ("{\"tempdir\": 3}", "VERNEUIL_CONFIG:1:13: tempdir: found the number 3, expected a path"),
            ("@/nonexistent", "VERNEUIL_CONFIG: there is no configuration file \"/nonexistent\""),
            ("{\"replication_targets\": [{\"s3\": {\"region\": \"\"}}]}", "replication_targets[0].s3.region"),
        ])
    func badConfiguration(config: String, message: String) throws {
        let shell = try here.extended("file:app.db?vfs=verneuil", "CREATE TABLE t(x)", config: config)
        #expect(shell.status != 0 && shell.errors.contains(message), "\(shell)")
        #expect(!here.exists("app.db"))
        let python = try python(
            """
            import os, sqlite3, sys
            db = sqlite3.connect(":memory:")
            db.enable_load_extension(True)
            for config in (None, "{}"):
                if config: os.environ["VERNEUIL_CONFIG"] = config
                try:
                    db.load_extension(sys.argv[1])
                    print("loaded")
                except sqlite3.OperationalError as error:
                    print(error)
            print(db.execute("SELECT 1").fetchone()[0])
            """, config: config)
        // The host goes on, and may try again with a better one.
        let lines = python.text.split(separator: "\n")
        #expect(python.status == 0 && lines.count == 3, "\(python)")
        #expect(lines.first?.contains(message) == true && lines.dropFirst() == ["loaded", "1"], "\(python)")
    }

    @Test func makeDefaultIsForConnectionsThatNameNoVFS() throws {
        let config = here.configuration(spool: true).replacing("{\"replication_spooling", with: "{\"make_default\": true, \"replication_spooling")
        let program = try here.extended("app.db", "CREATE TABLE t(x)", ".vfsname main", "PRAGMA verneuil_flush_replication_data", config: config)
        #expect(program.status == 0 && program.text == "verneuil\n1", "\(program)")
        #expect(here.files("store/manifests").count == 1)
    }

    /// What a copier sends is in the cache before it is wanted. Large enough for a base chunk.
    @Test func copiersFillTheLocalCache() throws {
        let config = here.configuration(spool: true).replacing(
            "\"replication_targets\": [",
            with: "\"replication_targets\": [{\"local\": {\"directory\": \"\(here.file("cache"))\", \"num_shards\": 4, \"capacity\": 2000}}, ")
        let written = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t(x)", "INSERT INTO t SELECT randomblob(1000000) FROM generate_series(1, 20)",
            "PRAGMA verneuil_flush_replication_data", config: config)
        #expect(written.status == 0 && written.text == "1", "\(written)")
        let stored = here.files("store/chunks")
        #expect(stored.count > 300)
        for name in stored { try FileManager.default.removeItem(atPath: here.file("store/chunks/\(name)")) }

        let replica = "file:verneuil://\(here.path)/app.db?vfs=verneuil_snapshot"
        func read() throws -> Program { try here.extended(replica, "PRAGMA integrity_check", "SELECT sum(length(x)) FROM t", config: config) }
        let found = try read()
        #expect(found.status == 0 && found.text == "ok\n20000000", "\(found)")
        // It was the cache.
        try FileManager.default.removeItem(atPath: here.file("cache"))
        #expect(try read().status != 0)
    }
}
