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
            ctypes.memset(ctypes.byref(info), 0xA5, ctypes.sizeof(Info))
            print(lib.verneuil_replication_info_for_db(ctypes.byref(info), None, b"main"), bytes(info) == bytes(ctypes.sizeof(Info)))
            """, config: here.configuration(spool: true))
        let lines = program.text.split(separator: "\n")
        try #require(lines.count == 9, "\(program)")
        #expect(lines[0] == "12" && lines[1] == "0" && lines[3] == "0" && lines[5] == "12" && lines[7] == "12", "\(program)")
        // Zeroed, whatever was in it.
        #expect(lines[8] == "21 True", "\(program)")
        let manifest = try #require(here.files("store/manifests").first)
        #expect(lines[2].hasPrefix("\(manifest) ") && lines[2] == lines[4], "\(program)")
        #expect(lines[2].hasSuffix(" \(try here.bytes("store/manifests/\(manifest)").count)"), "\(program)")
    }
}
