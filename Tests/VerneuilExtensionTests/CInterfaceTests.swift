import Foundation
import FormatTestSupport
import ProductSupport
import Testing

/// verneuil.h's functions, called across the C ABI by Python's ctypes.
@Suite struct CInterfaceTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private static let prelude = """
        import ctypes, os, sqlite3, sys
        class Options(ctypes.Structure):
            _fields_ = [("make_default", ctypes.c_bool), ("tempdir", ctypes.c_char_p), ("replication_spooling_dir", ctypes.c_char_p),
                        ("replication_spooling_dir_permissions", ctypes.c_uint32), ("json_options", ctypes.c_char_p)]
        class Info(ctypes.Structure):
            _fields_ = [("blob_name", ctypes.c_char_p), ("header_fprint", ctypes.c_uint64 * 2), ("contents_fprint", ctypes.c_uint64 * 2),
                        ("ctime", ctypes.c_uint64), ("ctime_ns", ctypes.c_uint32), ("num_bytes", ctypes.c_size_t), ("bytes", ctypes.c_void_p)]
        lib = ctypes.CDLL(sys.argv[1])
        lib.verneuil_manifest_name_for_hostname_path.restype = ctypes.c_void_p
        lib.verneuil_manifest_name_for_hostname_path.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        lib.verneuil_manifest_name_destroy.argtypes = [ctypes.c_void_p]
        lib.verneuil_configure.argtypes = [ctypes.POINTER(Options)]
        lib.verneuil_replication_info_deinit.argtypes = [ctypes.POINTER(Info)]
        lib.verneuil_replication_info_for_manifest.argtypes = [ctypes.POINTER(Info), ctypes.c_char_p, ctypes.c_size_t]
        lib.verneuil_replication_info_for_db.argtypes = [ctypes.POINTER(Info), ctypes.c_void_p, ctypes.c_char_p]
        def name(host, path):
            p = lib.verneuil_manifest_name_for_hostname_path(host, path)
            s = ctypes.string_at(p).decode() if p else None
            lib.verneuil_manifest_name_destroy(p)
            return s
        def show(info):
            print(info.blob_name.decode() if info.blob_name else None, *("%016x" % w for w in info.header_fprint),
                  *("%016x" % w for w in info.contents_fprint), info.ctime, info.ctime_ns, info.num_bytes)
        """

    private func call(_ script: String, config: String = "", arguments: String...) throws -> Program {
        let program = try Program.run(
            ["/usr/bin/python3", "-c", Self.prelude + "\n" + script, Products.extension()] + arguments,
            environment: ["VERNEUIL_CONFIG": config], directory: here.path)
        try #require(program.status == 0, "\(program)")
        return program
    }

    @Test func manifestNames() throws {
        let golden = try #require(GoldenData.cases().first { $0.name == "odd-path" })
        let program = try call(
            """
            print(name(sys.argv[2].encode(), sys.argv[3].encode()))
            print(name(None, b""), name(b"h", None))
            print(name(None, b"/a/b.db") == name(b"", b"/a/b.db") == name(open("/etc/hostname").readline().strip().encode(), b"/a/b.db"))
            """, arguments: golden.hostname, golden.path)
        #expect(program.text == "\(golden.manifestKey)\nNone None\nTrue", "\(program)")
    }

    @Test func aManifestsInformation() throws {
        let golden = try #require(GoldenData.cases().first { $0.name == "big-base-chunk" })
        let version = try #require(golden.versions.last)
        let body = try golden.manifestBody(version)
        try here.write(body, to: "m")
        let program = try call(
            """
            body = open("m", "rb").read()
            info = Info()
            print(lib.verneuil_replication_info_for_manifest(ctypes.byref(info), body, len(body)))
            show(info)
            print(ctypes.string_at(info.bytes, info.num_bytes) == body)
            lib.verneuil_replication_info_deinit(ctypes.byref(info))
            lib.verneuil_replication_info_deinit(ctypes.byref(info))
            lib.verneuil_replication_info_deinit(None)
            print(bytes(info) == bytes(ctypes.sizeof(Info)))
            print(lib.verneuil_replication_info_for_manifest(ctypes.byref(info), b"no manifest", 11), bytes(info) == bytes(ctypes.sizeof(Info)))
            print(lib.verneuil_replication_info_for_manifest(ctypes.byref(info), None, 0))
            print(lib.verneuil_replication_info_for_manifest(None, body, len(body)))
            """)
        let expected = try golden.decoded(version)
        let facts = (expected.headerFprint + expected.contentsFprint).map { String(repeating: "0", count: 16 - $0.count) + $0 }
        #expect(
            program.text.split(separator: "\n") == [
                "0", "None \(facts.joined(separator: " ")) \(expected.ctime) \(expected.ctimeNs) \(body.count)", "True", "True",
                "11 True", "11", "21",
            ], "\(program)")
    }

    @Test func configuringReplacesTheEnvironmentAndHappensOnce() throws {
        let program = try call(
            """
            def configure(**settings):
                return lib.verneuil_configure(ctypes.byref(Options(**settings)))
            print(configure(json_options=b"{"), configure(tempdir=b""), configure(replication_spooling_dir_permissions=0o60))
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True); db.load_extension(sys.argv[1])
            print(lib.verneuil_configure(None))
            settings = dict(replication_spooling_dir=sys.argv[2].encode(), json_options=sys.argv[3].encode())
            print(configure(**settings), configure(**settings), lib.verneuil_configure(None), configure(json_options=b'{"tempdir": "/tmp"}'))
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            """, arguments: here.file("spool"), here.configuration())
        #expect(program.text == "-1 -1 -1\n0\n0 0 0 21\n1", "\(program)")
        #expect(program.errors.contains("json_options:1:2: not JSON"), "\(program)")
        #expect(here.files("store/manifests").count == 1)
    }

    @Test func whatHasBeenConfiguredWithoutReplicationIsReplaced() throws {
        let program = try call(
            """
            def configure(json, **settings):
                return lib.verneuil_configure(ctypes.byref(Options(json_options=json.encode(), **settings)))
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True); db.load_extension(sys.argv[1])
            stores = sys.argv[2]
            spool = sys.argv[3].encode()
            print(configure('{"tempdir": "/tmp"}', make_default=True), configure(stores), configure(stores.replace("store", "elsewhere")))
            print(configure(stores, replication_spooling_dir=spool, tempdir=b"/var/tmp"))
            # The VFS that was SQLite's default before is it again: it can do this.
            print(sqlite3.connect("plain.db").execute("PRAGMA journal_mode=WAL").fetchone()[0])
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            # A key that nobody knows is no other configuration.
            print(configure(stores[:-1] + ', "colour": 1}', replication_spooling_dir=spool, tempdir=b"/var/tmp"), configure('{"colour": 1}'))
            for other in (dict(), dict(replication_spooling_dir=spool), dict(replication_spooling_dir=sys.argv[2].encode(), tempdir=b"/var/tmp")):
                print(configure(stores, **other))
            """, arguments: here.configuration(), here.file("spool"))
        #expect(program.text == "0 0 0\n0\nwal\n1\n0 0\n21\n21\n21", "\(program)")
        let refusals = program.errors.split(separator: "\n").filter { $0.contains("replicates with other settings already, through \(here.file("spool"))") }
        #expect(refusals.count == 3, "\(program)")
        #expect(here.files("store/manifests").count == 1 && !here.exists("elsewhere"))
    }

    @Test func loadingItOnceMoreSaysThatChangedSettingsAreNotTaken() throws {
        let program = try call(
            """
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True); db.load_extension(sys.argv[1])
            for config in ("", os.environ["VERNEUIL_CONFIG"], sys.argv[2]):
                os.environ["VERNEUIL_CONFIG"] = config
                print(config == sys.argv[2], file=sys.stderr, flush=True)
                db.load_extension(sys.argv[1])
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            """, config: here.configuration(spool: true), arguments: here.configuration(spool: true, store: "other"))
        #expect(program.text == "1", "\(program)")
        let lines = program.errors.split(separator: "\n")
        #expect(lines.prefix(3) == ["False", "False", "True"] && lines.count == 4, "\(program)")
        #expect(lines.last?.contains("VERNEUIL_CONFIG has changed, and is not looked at") == true, "\(program)")
        #expect(here.files("store/manifests").count == 1 && !here.exists("other"))
    }

    /// What sqlite3_initialize answers is what a program without replication has in its hands.
    @Test func whereSQLiteRefusesConfiguringFailsWithItsCode() throws {
        let program = try call(
            """
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True); db.load_extension(sys.argv[1])
            db.close()
            sqlite = ctypes.CDLL("libsqlite3.so.0")
            sqlite.sqlite3_config.argtypes = [ctypes.c_int, ctypes.c_void_p]
            methods = (ctypes.c_void_p * 8)()
            sqlite.sqlite3_shutdown()
            GETMALLOC, MALLOC = 5, 4
            print(sqlite.sqlite3_config(GETMALLOC, ctypes.byref(methods)))
            refusing = (ctypes.c_void_p * 8)(*methods)
            Init = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
            refuse = Init(lambda data: 7)
            refusing[5] = ctypes.cast(refuse, ctypes.c_void_p)
            print(sqlite.sqlite3_config(MALLOC, ctypes.byref(refusing)))
            options = Options(replication_spooling_dir=sys.argv[2].encode(), json_options=sys.argv[3].encode())
            print(lib.verneuil_configure(ctypes.byref(options)))
            print(sqlite.sqlite3_config(MALLOC, ctypes.byref(methods)))
            print(lib.verneuil_configure(ctypes.byref(options)))
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            """, arguments: here.file("spool"), here.configuration())
        #expect(program.text == "0\n0\n7\n0\n0\n1", "\(program)")
        #expect(program.errors.contains("verneuil_configure: configuration: SQLite refuses the VFS linux: sqlite3_vfs_register answers 7"), "\(program)")
    }

    /// A name that can't be read for the moment isn't a machine without one.
    @Test func withoutADescriptorForTheMachinesNameNothingIsReplicatedUnderAnother() throws {
        let program = try call(
            """
            import resource
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True)
            free = os.open("/", os.O_RDONLY); os.close(free)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                db.load_extension(sys.argv[1])
                print("loaded")
            except sqlite3.OperationalError as error:
                print(error)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            db.load_extension(sys.argv[1])
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            print(name(None, os.getcwd().encode() + b"/app.db"))
            """, config: here.configuration(spool: true))
        let lines = program.text.split(separator: "\n")
        try #require(lines.count == 3, "\(program)")
        #expect(lines[0].contains("this machine's name can't be read: open /etc/hostname: Too many open files"), "\(program)")
        #expect(lines[1] == "1" && here.files("store/manifests") == [String(lines[2])] && !lines[2].contains("no.hostname"), "\(program)")
    }

    @Test func aDatabasesInformationIsThatOfItsStoredManifest() throws {
        // sqlite3* out of Python's connection object: the first field after the object's header.
        let program = try call(
            """
            db = sqlite3.connect(":memory:"); db.enable_load_extension(True); db.load_extension(sys.argv[1])
            handle = lambda connection: ctypes.c_void_p.from_address(id(connection) + 16)
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            info = Info()
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(app), b"main"))
            app.execute("CREATE TABLE t(x)")
            app.execute("PRAGMA verneuil_flush_replication_data").fetchone()
            for name in (b"main", None, b"nothing"):
                print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(app), name))
                show(info)
                lib.verneuil_replication_info_deinit(ctypes.byref(info))
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(db), b"main"))
            odd = sqlite3.connect("file:odd.db?verneuil_target=nonsense", uri=True)
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), handle(odd), b"main"))
            ctypes.memset(ctypes.byref(info), 0xA5, ctypes.sizeof(Info))
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), None, b"main"), bytes(info) == bytes(ctypes.sizeof(Info)))
            """, config: here.configuration(spool: true))
        let lines = program.text.split(separator: "\n")
        try #require(lines.count == 10, "\(program)")
        #expect(lines[0] == "12" && lines[1] == "0" && lines[3] == "0" && lines[5] == "12" && lines[7] == "12", "\(program)")
        // Not "not found" without a word: nobody can tell who would replicate it.
        #expect(lines[8] == "-1" && program.errors.contains("verneuil_target: expected directory:/PATH"), "\(program)")
        // Zeroed, whatever was in it.
        #expect(lines[9] == "21 True", "\(program)")
        let manifest = try #require(here.files("store/manifests").first)
        #expect(lines[2].hasPrefix("\(manifest) ") && lines[2] == lines[4], "\(program)")
        #expect(lines[2].hasSuffix(" \(try here.bytes("store/manifests/\(manifest)").count)"), "\(program)")
    }
}
