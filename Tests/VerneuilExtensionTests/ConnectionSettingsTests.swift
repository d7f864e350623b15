import Foundation
import ProductSupport
import Testing

/// Settings in a database's file name: over the process's configuration, for that connection.
@Suite struct ConnectionSettingsTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private static let prelude = """
        import ctypes, json, os, sqlite3, sys, threading
        from urllib.parse import quote
        def load():
            db = sqlite3.connect(":memory:")
            db.enable_load_extension(True)
            db.load_extension(sys.argv[1])
        def connect(name, vfs="verneuil", **settings):
            query = "".join("&verneuil_%s=%s" % (k, quote(v)) for k, v in settings.items())
            return sqlite3.connect("file:%s?vfs=%s%s" % (quote(name), vfs, query), uri=True)
        def replica(name, **settings):
            return connect("verneuil://%s/%s" % (os.getcwd(), name), "verneuil_snapshot", **settings)
        def flush(db): return int(db.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
        def directory(name): return "directory:%s/%s" % (os.getcwd(), name)
        load()
        """

    private func python(_ script: String, config: String? = nil) throws -> Program {
        try Program.run(
            ["/usr/bin/python3", "-c", Self.prelude + "\n" + script, Products.extension()],
            environment: ["VERNEUIL_CONFIG": config ?? here.configuration(spool: true)], directory: here.path)
    }

    @Test func databasesOfOneProcessGoToDifferentTargets() throws {
        let program = try python(
            """
            plain = connect("plain.db")
            plain.execute("CREATE TABLE t AS SELECT 'plain' AS x")
            own = dict(spooling_dir=os.getcwd() + "/spool2", target=directory("store2"))
            other = connect("other.db", **own)
            other.execute("CREATE TABLE t AS SELECT 'other' AS x")
            # An attached one, to two stores, one of them in long form.
            both = json.dumps([directory("store3"), {"directory": {"path": os.getcwd() + "/store4"}}])
            third = dict(spooling_dir="spool3", target=both)
            other.execute("ATTACH 'file:third.db?vfs=verneuil&verneuil_spooling_dir=spool3&verneuil_target=%s' AS third" % quote(both))
            other.execute("CREATE TABLE third.t AS SELECT 'third' AS x")
            print(flush(plain), flush(other), other.execute("PRAGMA third.verneuil_flush_replication_data").fetchone()[0])
            print(*[replica(n, **s).execute("SELECT x FROM t").fetchone()[0] for n, s in (("plain.db", {}), ("other.db", own), ("third.db", third))])
            print(replica("other.db", target=own["target"]).execute("SELECT x FROM t").fetchone()[0])
            try: replica("other.db")
            except sqlite3.OperationalError as error: print(error)
            """)
        #expect(
            program.text == "1 1 1\nplain other third\nother\nunable to open database file" && program.status == 0, "\(program)")
        let stores = ["store", "store2", "store3", "store4"].map { here.files("\($0)/manifests").map { $0.suffix(8) } }
        #expect(stores == [["plain.db"], ["other.db"], ["third.db"], ["third.db"]], "\(stores)")
    }

    @Test func closingFlushesAndTheCInterfaceAnswersForEachConnectionsOwnStore() throws {
        let program = try python(
            """
            class Info(ctypes.Structure):
                _fields_ = [("blob_name", ctypes.c_char_p), ("words", ctypes.c_uint64 * 5), ("ctime_ns", ctypes.c_uint32),
                            ("num_bytes", ctypes.c_size_t), ("bytes", ctypes.c_void_p)]
            lib = ctypes.CDLL(sys.argv[1])
            lib.verneuil_replication_info_for_db.argtypes = [ctypes.POINTER(Info), ctypes.c_void_p, ctypes.c_char_p]
            def handle(db): return ctypes.c_void_p.from_address(id(db) + object.__basicsize__).value
            db = connect("a.db", spooling_dir="spool", target=directory("store"))
            db.execute("CREATE TABLE t(x)")
            info = Info()
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(db), b"main"))
            flush(db)
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(db), b"main"), info.blob_name.decode())
            db.execute("PRAGMA verneuil_flush_replication_data=1")
            db.execute("INSERT INTO t VALUES (1)")
            db.commit()
            db.close()
            print(replica("a.db", target=directory("store")).execute("SELECT count(*) FROM t").fetchone()[0])
            """, config: "")
        let manifest = try #require(here.files("store/manifests").first, "\(program)")
        #expect(program.text == "12\n0 \(manifest)\n1" && program.status == 0, "\(program)")
    }

    @Test(
        "what can't be used fails the open, says why, and makes no file",
        arguments: [
            ("verneuil_taget=directory:/x", "verneuil_taget: unknown parameter; did you mean verneuil_target?"),
            ("verneuil_target=directory:relative", "verneuil_target: expected directory:/PATH, s3:REGION/CHUNK_BUCKET/MANIFEST_BUCKET, or JSON"),
            ("verneuil_target=s3:us-east-1/chunks", "verneuil_target: expected directory:/PATH, s3:"),
            ("verneuil_target=%7B%22s3%22:", "verneuil_target: not JSON, at byte 6"),
            ("verneuil_target=%7B%22s3%22:%7B%7D%7D", "verneuil_target.s3.region: missing"),
            ("verneuil_target=%5B%5D", "there is no target that stores anything: give verneuil_target as well"),
            ("verneuil_target=directory:/nowhere/else", "the spooling directory"),
            ("verneuil_target=directory:/a&verneuil_target=directory:/b", "verneuil_target: given twice"),
            ("verneuil_spooling_dir=", "verneuil_spooling_dir: found nothing"),
            ("verneuil_spooling_dir_permissions=700", "verneuil_spooling_dir_permissions: found 700, expected permission bits"),
            ("verneuil_secret_access_key=wJalr", "verneuil_secret_access_key: credentials don't belong in a file's name"),
            (
                "verneuil_target=%7B%22s3%22:%7B%22region%22:%22a%22,%22chunk_bucket%22:%22b%22,%22manifest_bucket%22:%22c%22,"
                    + "%22secret_access_key%22:%22wJalr%22%7D%7D", "verneuil_target: credentials don't belong in a file's name"
            ),
            (
                "verneuil_target=%7B%22s3%22:%7B%22region%22:%22a%22,%22chunk_bucket%22:%22b%22,%22manifest_bucket%22:%22c%22,"
                    + "%22domain_adressing%22:true%7D%7D", "did you mean \"domain_addressing\"?"
            ),
        ])
    func refused(query: String, message: String) throws {
        let program = try python(
            """
            for name in ("bad.db?vfs=verneuil&\(query)", "good.db?vfs=verneuil"):
                try:
                    sqlite3.connect("file:" + name, uri=True).execute("CREATE TABLE t(x)")
                    print("opened")
                except sqlite3.OperationalError as error:
                    print(error)
            """)
        #expect(program.text == "unable to open database file\nopened" && program.status == 0, "\(program)")
        #expect(program.errors.contains(message), "\(program)")
        #expect(!program.errors.contains("wJalr"), "\(program)")
        #expect(!here.exists("bad.db") && here.exists("good.db"))
    }

    @Test func equalSettingsShareOneEngineAndThreadsAreBounded() throws {
        let program = try python(
            """
            def threads(): return len(os.listdir("/proc/self/task"))
            before = threads()
            open_ = []
            def fill(count, settings):
                for i in range(count):
                    db = connect("%d.db" % len(open_), **settings)
                    db.execute("PRAGMA synchronous=OFF")
                    db.execute("CREATE TABLE t(x)")
                    open_.append(db)
            fill(6, dict(spooling_dir="shared", target=directory("s")))
            fill(6, dict(target=directory("s"), spooling_dir="shared"))
            print(threads() - before <= 11)
            for n in range(20): fill(5, dict(spooling_dir="p%d" % n, target=directory("t%d" % n)))
            # A builder and a copier each, and 32 copiers for all together.
            print(threads() - before <= 2 * 21 + 32, [flush(db) for db in open_] == [1] * 112)
            """, config: "")
        #expect(program.text == "True\nTrue True" && program.status == 0, "\(program)")
        #expect(here.files("s/manifests").count == 12)
        #expect((0..<20).allSatisfy { here.files("t\($0)/manifests").count == 5 })
    }
}
