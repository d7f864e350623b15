import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem
import VerneuilVFS

// Reading, writing, sizes, file controls, temporary files.

@Suite struct OpenFiles {
    @Test func `What lies behind the end reads as zeros and is reported`() throws {
        let scratch = try ScratchDirectory("files")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        #expect(file.write([1, 2, 3, 4, 5], at: 10) == SQLITE_OK)
        #expect(file.read(4, at: 11) == (SQLITE_OK, [2, 3, 4, 5]))
        #expect(file.read(6, at: 12) == (VRN_IOERR_SHORT_READ, [3, 4, 5, 0, 0, 0]))
        #expect(file.read(3, at: 15) == (VRN_IOERR_SHORT_READ, [0, 0, 0]))
        #expect(file.read(3, at: 1 << 40) == (VRN_IOERR_SHORT_READ, [0, 0, 0]))
        #expect(file.size() == (SQLITE_OK, 15))
        #expect(file.truncate(12) == SQLITE_OK)
        #expect(file.read(6, at: 8) == (VRN_IOERR_SHORT_READ, [0, 0, 1, 2, 0, 0]))
    }

    @Test func `Offsets beyond 4 GiB are kept whole`() throws {
        let scratch = try ScratchDirectory("files")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        let far: Int64 = 5 << 30
        #expect(file.write([9], at: far) == SQLITE_OK)
        #expect(file.size() == (SQLITE_OK, far + 1))
        #expect(file.read(2, at: far - 1) == (SQLITE_OK, [0, 9]))
        #expect(file.truncate(far - 1) == SQLITE_OK)
        #expect(file.size() == (SQLITE_OK, far - 1))
    }

    @Test func `A database of more than 2 GiB works`() throws {
        let scratch = try ScratchDirectory("files")
        let path = scratch.file("a.db")
        let connection = Connection(path, vfs: "linux")
        #expect(connection.execute("PRAGMA page_size=65536; CREATE TABLE t(a)").code == SQLITE_OK)
        connection.close()
        // A database whose free pages are a hole: the header says how many pages there are, and none is in the free list.
        let pages = 40_000
        let file = try Descriptor(path, O_RDWR)
        try file.truncate(to: Int64(pages) * 65536)
        try file.write((0..<4).map { UInt8(truncatingIfNeeded: pages >> (24 - 8 * $0)) }, at: 28)
        try file.close()
        let grown = Connection(path, vfs: "linux")
        #expect(grown.execute("PRAGMA page_count").rows == ["\(pages)"])
        #expect(grown.execute("INSERT INTO t VALUES(zeroblob(200000))").code == SQLITE_OK)
        #expect(grown.execute("PRAGMA page_count; SELECT length(a) FROM t").rows == ["\(pages + 3)", "200000"])
        grown.close()
        #expect(Connection(path, vfs: "unix").execute("SELECT length(a) FROM t").rows == ["200000"])
    }

    @Test(arguments: ["linux", "unix"])
    func `A file of one byte counts as empty`(_ vfs: String) throws {
        let scratch = try ScratchDirectory("files")
        try Files.writeAtomically([83], to: scratch.file("a.db"), mode: 0o644)
        #expect(try RawFile(vfs: vfs, path: scratch.file("a.db")).size() == (SQLITE_OK, 0))
    }

    @Test func `Device characteristics and sector size are the unix VFS's, and psow can be chosen`() throws {
        let scratch = try ScratchDirectory("files")
        let mine = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        let theirs = try RawFile(vfs: "unix", path: scratch.file("a.db"))
        #expect(mine.sectorSize == theirs.sectorSize)
        // Beside SQLITE_IOCAP_SUBPAGE_READ, which SQLite's own has from 3.48 on.
        #expect(mine.characteristics & ~0x8000 == theirs.characteristics & ~0x8000)
        #expect(mine.characteristics & SQLITE_IOCAP_POWERSAFE_OVERWRITE != 0)

        for (value, expected) in [(-1, 1), (0, 0), (-1, 0), (1, 1), (-1, 1)] as [(Int32, Int32)] {
            var argument = value
            #expect(mine.control(SQLITE_FCNTL_POWERSAFE_OVERWRITE, value: &argument) == SQLITE_OK)
            #expect(argument == expected)
            #expect((mine.characteristics & SQLITE_IOCAP_POWERSAFE_OVERWRITE != 0) == (expected == 1))
        }

        let connection = Connection("file:\(scratch.file("a.db"))?psow=0", vfs: "linux")
        var value: Int32 = -1
        #expect(connection.control(SQLITE_FCNTL_POWERSAFE_OVERWRITE, &value) == SQLITE_OK)
        #expect(value == 0)
    }

    @Test func `File controls answer as SQLite's own, and unknown ones say so`() throws {
        let scratch = try ScratchDirectory("files")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        #expect(file.version == 1)
        #expect(file.string(SQLITE_FCNTL_VFSNAME) == (SQLITE_OK, "linux"))
        let temporary = file.string(SQLITE_FCNTL_TEMPFILENAME)
        #expect(temporary.code == SQLITE_OK)
        let name = try #require(temporary.text)
        #expect(name.hasPrefix("/") && name.contains("/etilqs_"))
        #expect(vrn_access(name, F_OK) == -ENOENT)
        for operation in [
            SQLITE_FCNTL_PERSIST_WAL, SQLITE_FCNTL_MMAP_SIZE, SQLITE_FCNTL_SYNC, SQLITE_FCNTL_COMMIT_PHASETWO,
            SQLITE_FCNTL_BUSYHANDLER, SQLITE_FCNTL_PRAGMA, SQLITE_FCNTL_OVERWRITE, SQLITE_FCNTL_BEGIN_ATOMIC_WRITE, 4711,
        ] {
            var value: Int64 = -1
            #expect(file.control(operation, value: &value) == SQLITE_NOTFOUND)
            #expect(value == -1)
        }
        var moved: Int32 = -1
        #expect(file.control(SQLITE_FCNTL_HAS_MOVED, value: &moved) == SQLITE_OK)
        #expect(moved == 0)
        try Files.rename(scratch.file("a.db"), to: scratch.file("b.db"))
        #expect(file.control(SQLITE_FCNTL_HAS_MOVED, value: &moved) == SQLITE_OK)
        #expect(moved == 1)
    }

    @Test(arguments: ["linux", "unix"])
    func `With a chunk size the file grows by whole chunks whose blocks are there`(_ vfs: String) throws {
        let scratch = try ScratchDirectory("files")
        let path = scratch.file("a.db")
        let file = try RawFile(vfs: vfs, path: path)
        var chunk: Int32 = 100_000
        #expect(file.control(SQLITE_FCNTL_CHUNK_SIZE, value: &chunk) == SQLITE_OK)
        var hint: Int64 = 250_000
        #expect(file.control(SQLITE_FCNTL_SIZE_HINT, value: &hint) == SQLITE_OK)
        #expect(file.size() == (SQLITE_OK, 300_000))
        #expect(try #require(try Files.status(path)).allocated >= 300_000)
        #expect(file.truncate(150_001) == SQLITE_OK)
        #expect(file.size() == (SQLITE_OK, 200_000))
    }

    @Test func `Without a chunk size a hint changes nothing`() throws {
        let scratch = try ScratchDirectory("files")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        var hint: Int64 = 250_000
        #expect(file.control(SQLITE_FCNTL_SIZE_HINT, value: &hint) == SQLITE_OK)
        #expect(file.size() == (SQLITE_OK, 0))
    }

    @Test func `Temporary files have no name and go where the application said`() throws {
        let scratch = try ScratchDirectory("files")
        let tool = try ToolProcess(environment: ["SQLITE_TMPDIR": scratch.path])
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_EXCLUSIVE | SQLITE_OPEN_DELETEONCLOSE
        #expect(try tool.ask("sql-open", "a", "linux", "", "\(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)") == ["0"])
        let fill = "PRAGMA cache_size=2; CREATE TABLE t AS SELECT zeroblob(20000) AS x; INSERT INTO t SELECT x FROM t"
        #expect(try tool.ask("sql", "a", fill) == ["0"])
        #expect(try tool.ask("descriptors", scratch.path) == ["1"])
        #expect(try Files.list(scratch.path) == [])
        #expect(try tool.ask("sql-close", "a") == ["0"])
        #expect(try tool.ask("descriptors", scratch.path) == ["0"])

        let file = try RawFile(vfs: "linux", path: nil, flags: flags | SQLITE_OPEN_TEMP_DB)
        #expect(file.write([1, 2, 3], at: 0) == SQLITE_OK)
        #expect(file.read(3, at: 0) == (SQLITE_OK, [1, 2, 3]))
        #expect(file.lock(SQLITE_LOCK_EXCLUSIVE) == SQLITE_OK)
        #expect(file.checkReserved() == (SQLITE_OK, false))
    }

    @Test func `PRAGMA temp_store_directory is obeyed, and a directory that can't be used passed over`() throws {
        let scratch = try ScratchDirectory("files")
        try Files.makeDirectories(scratch.file("chosen"))
        let tool = try ToolProcess(environment: ["SQLITE_TMPDIR": scratch.file("missing"), "TMPDIR": scratch.path])
        let fill = "PRAGMA cache_size=2; CREATE TABLE t AS SELECT zeroblob(20000) AS x; INSERT INTO t SELECT x FROM t"
        let flags = "\(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)"
        try tool.ask("sql-open", "a", "linux", "", flags)
        #expect(try tool.ask("sql", "a", fill) == ["0"])
        #expect(try tool.ask("descriptors", "\(scratch.path)/#") == ["1"])
        let chosen = scratch.file("chosen")
        #expect(try tool.ask("sql", "a", "PRAGMA temp_store_directory='\(chosen)'") == ["0"])
        try tool.ask("sql-open", "b", "linux", "", flags)
        #expect(try tool.ask("sql", "b", fill) == ["0"])
        #expect(try tool.ask("descriptors", chosen) == ["1"])
    }

    @Test func `A named file that is to be deleted on close is gone at once`() throws {
        let scratch = try ScratchDirectory("files")
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_DELETEONCLOSE | SQLITE_OPEN_TRANSIENT_DB
        let file = try RawFile(vfs: "linux", path: scratch.file("t"), flags: flags)
        #expect(try Files.list(scratch.path) == [])
        #expect(file.write([1], at: 0) == SQLITE_OK)
        #expect(file.read(1, at: 0) == (SQLITE_OK, [1]))
    }

    @Test func `EXCLUSIVE creates or fails, and a failed open leaves no methods`() throws {
        let scratch = try ScratchDirectory("files")
        let flags = RawFile.defaultFlags | SQLITE_OPEN_EXCLUSIVE
        let first = try RawFile(vfs: "linux", path: scratch.file("a.db"), flags: flags)
        #expect(first.outFlags == flags)
        #expect(throws: RawFile.Failure.self) { try RawFile(vfs: "linux", path: scratch.path) }
        #expect(throws: RawFile.Failure.self) { try RawFile(vfs: "linux", path: scratch.file("none/a.db")) }
        let readOnly = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB
        #expect(try RawFile(vfs: "linux", path: scratch.file("a.db"), flags: readOnly).outFlags == readOnly)
        #expect(throws: RawFile.Failure.self) { try RawFile(vfs: "linux", path: scratch.file("b.db"), flags: readOnly) }
    }

    @Test func `Descriptors 0 to 2 are never used for files`() throws {
        let scratch = try ScratchDirectory("files")
        let tool = try ToolProcess(environment: ["SQLITE_TMPDIR": scratch.path], withoutStandardError: true)
        let temporary = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_DELETEONCLOSE | SQLITE_OPEN_TEMP_DB
        #expect(try tool.ask("open", "a", "linux", scratch.file("a.db"), "\(RawFile.defaultFlags)")[0] == "0")
        #expect(try tool.ask("open", "b", "linux", "", "\(temporary)")[0] == "0")
        #expect(try tool.ask("descriptors", scratch.path) == ["2"])
        for fd in 0...2 {
            let target = Files.canonical("/proc/\(tool.pid)/fd/\(fd)")
            #expect(target?.hasPrefix(scratch.path) != true)
        }
    }

    @Test func `Registering again is fine and changes the default`() throws {
        #expect(LinuxVFSInstallation.isDone)
        #expect(LinuxVFS.register(makeDefault: false) == SQLITE_OK)
        let vfs = try #require(sqlite3_vfs_find("linux"))
        #expect(String(cString: vfs.pointee.zName) == "linux")
        #expect(vfs.pointee.mxPathname == 4096)
    }

    @Test func `Randomness, time and sleep are sane`() throws {
        let vfs = try #require(LinuxVFSInstallation.isDone ? sqlite3_vfs_find("linux") : nil)
        var one = [CChar](repeating: 0, count: 300)
        var two = one
        #expect(vfs.pointee.xRandomness(vfs, 300, &one) == 300)
        #expect(vfs.pointee.xRandomness(vfs, 300, &two) == 300)
        #expect(one != two)
        #expect(Set(one).count > 50)
        var mine: sqlite3_int64 = 0
        var theirs: sqlite3_int64 = 0
        let unix = try #require(sqlite3_vfs_find("unix"))
        #expect(vfs.pointee.xCurrentTimeInt64(vfs, &mine) == SQLITE_OK)
        #expect(unix.pointee.xCurrentTimeInt64(unix, &theirs) == SQLITE_OK)
        #expect(abs(mine - theirs) < 5000)
        var days = 0.0
        #expect(vfs.pointee.xCurrentTime(vfs, &days) == SQLITE_OK)
        #expect(abs(days - Double(theirs) / 86_400_000) < 0.001)
        let start = MonotonicTime.now
        #expect(vfs.pointee.xSleep(vfs, 30_000) == 30_000)
        let slept = MonotonicTime.now.seconds(since: start)
        #expect(slept >= 0.03 && slept < 10)
    }
}
