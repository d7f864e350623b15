import Foundation
import ProductSupport
import Testing

/// What the extension must not do to the process that loads it.
@Suite struct HostLimitTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private func python(_ script: String, _ arguments: String..., config: String) throws -> Program {
        try Program.run(
            ["timeout", "-s", "KILL", "60", "/usr/bin/python3", "-c", script, Products.extension()] + arguments,
            environment: ["VERNEUIL_CONFIG": config], directory: here.path)
    }

    /// Standard error is a pipe whose reader is gone, one that nobody reads, a socket that nobody reads; and nothing can be spooled.
    @Test(arguments: ["gone", "full", "socket", "closed"]) func aLogThatNobodyReadsNeitherKillsNorStopsIt(what: String) throws {
        try here.write([], to: "spool")
        let program = try python(
            """
            import fcntl, os, signal, socket, sqlite3, sys
            what = sys.argv[2]
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            reader, writer = os.pipe()
            if what == "socket":
                ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                reader, writer = ends[0].fileno(), ends[1].fileno()
            os.dup2(writer, 2)
            if what == "gone":
                os.close(reader)
            elif what == "closed":
                os.close(2)
            else:
                os.set_blocking(2, False)
                for size in (65536, 1):
                    try:
                        while True: os.write(2, b"x" * size)
                    except BlockingIOError:
                        pass
                os.set_blocking(2, True)
            loader = sqlite3.connect(":memory:")
            loader.enable_load_extension(True)
            loader.load_extension(sys.argv[1])
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True, isolation_level=None)
            app.execute("CREATE TABLE t(x)")
            app.execute("INSERT INTO t VALUES (1)")
            flush = lambda: app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0]
            print(flush(), app.execute("SELECT count(*) FROM t").fetchone()[0], signal.SIGPIPE in signal.sigpending())
            if what in ("full", "socket"):
                os.set_blocking(reader, False)
                def read():
                    text = b""
                    try:
                        while True: text += os.read(reader, 65536)
                    except BlockingIOError:
                        return text
                assert set(read()) == set(b"x")
                flush()
                print(read().decode().strip())
            """, what, config: here.configuration(spool: true))
        let lines = program.text.split(separator: "\n")
        #expect(program.status == 0 && lines.first == "0 1 False", "\(program)")
        if what == "full" || what == "socket" {
            // The next that gets through says how many did not.
            #expect(program.text.contains("not everything is stored") && lines.dropFirst().first?.contains(/dropped-before=[1-9]/) == true, "\(program)")
        }
    }

    /// A pipe takes lines up to that length in one piece: longer ones are cut, at a character's end.
    @Test func aLineIsNoLongerThanAPipeTakesInOnePiece() throws {
        let names = (0..<15).map { _ in String(repeating: "é", count: 120) }.joined(separator: "/")
        let program = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t(x)", config: here.configuration(spool: true).replacing(here.file("spool"), with: "/dev/null/\(names)"))
        let lines = program.errors.split(separator: "\n")
        #expect(program.status == 0 && lines.count >= 2, "\(program)")
        #expect(lines.allSatisfy { $0.utf8.count < 4096 && !$0.contains("\u{FFFD}") }, "\(lines.map(\.utf8.count))")
        #expect(lines.contains { $0.hasSuffix("é…") && $0.utf8.count > 4080 })
    }

    /// Python's module and another library that brings a SQLite of its own, in one process.
    @Test func aSecondSQLiteOfTheProcessIsRefusedAndTheFirstGoesOn() throws {
        let program = try python(
            """
            import ctypes, ctypes.util, os, shutil, sqlite3, sys
            found = next(line.split()[-1] for line in open("/proc/self/maps") if "libsqlite3" in line)
            shutil.copy(found, "libother.so")
            loader = sqlite3.connect(":memory:")
            loader.enable_load_extension(True)
            loader.load_extension(sys.argv[1])
            other = ctypes.CDLL(os.path.abspath("libother.so"))
            db, message = ctypes.c_void_p(), ctypes.c_char_p()
            other.sqlite3_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p)]
            other.sqlite3_enable_load_extension.argtypes = [ctypes.c_void_p, ctypes.c_int]
            other.sqlite3_load_extension.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p)]
            other.sqlite3_free.argtypes = [ctypes.c_void_p]
            assert other.sqlite3_open(b":memory:", ctypes.byref(db)) == 0
            assert other.sqlite3_enable_load_extension(db, 1) == 0
            print(other.sqlite3_load_extension(db, sys.argv[1].encode(), None, ctypes.byref(message)))
            print(message.value.decode() if message.value else None)
            other.sqlite3_free(message)
            # Once more is still fine for the first.
            loader.load_extension(sys.argv[1])
            app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True)
            app.execute("CREATE TABLE t(x)")
            app.execute("INSERT INTO t VALUES (1)")
            app.commit()
            print(app.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
            """, config: here.configuration(spool: true))
        let lines = program.text.split(separator: "\n")
        #expect(program.status == 0 && lines.count == 3, "\(program)")
        #expect(lines.first == "1" && lines.last == "1", "\(program)")
        #expect(lines.dropFirst().first?.contains("another SQLite of this process has loaded the extension already") == true, "\(program)")
    }
}
