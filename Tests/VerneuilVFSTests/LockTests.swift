import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// What applications see of locks.

@Suite struct Locks {
    @Test(arguments: ["linux", "unix"])
    func `A lock is kept when another descriptor of the same file is closed`(_ other: String) throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let file = try RawFile(vfs: "linux", path: path)
        for level in [SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE] {
            #expect(file.lock(level) == SQLITE_OK)
        }
        // This is what drops the locks of a process that uses POSIX locks.
        _ = try Files.read(path)
        try RawFile(vfs: other, path: path).close()
        let tool = try ToolProcess()
        try tool.ask("open", "b", other, path, "\(RawFile.defaultFlags)")
        #expect(try tool.ask("lock", "b", "\(SQLITE_LOCK_SHARED)") == ["\(SQLITE_BUSY)", "0"])
        #expect(file.unlock(SQLITE_LOCK_NONE) == SQLITE_OK)
        #expect(try tool.ask("lock", "b", "\(SQLITE_LOCK_SHARED)") == ["0", "1"])
    }

    @Test func `Closing a file gives up its locks though a duplicate of the descriptor is open`() throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let file = try RawFile(vfs: "linux", path: path)
        let fd = try #require(openDescriptors(under: scratch.path).keys.first)
        let duplicate = Descriptor(owning: vrn_fcntl_int(fd, F_DUPFD_CLOEXEC, 3), path: path)
        #expect(file.lock(SQLITE_LOCK_SHARED) == SQLITE_OK)
        #expect(file.lock(SQLITE_LOCK_RESERVED) == SQLITE_OK)
        file.close()
        let other = try RawFile(vfs: "unix", path: path)
        #expect(other.lock(SQLITE_LOCK_SHARED) == SQLITE_OK)
        #expect(other.lock(SQLITE_LOCK_EXCLUSIVE) == SQLITE_OK)
        try duplicate.close()
    }

    @Test(arguments: ["linux", "unix"], ["linux", "unix"])
    func `A writer waits for another as long as its busy timeout says`(_ mine: String, _ theirs: String) throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let connection = Connection(path, vfs: mine)
        #expect(connection.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        let tool = try ToolProcess()
        let flags = "\(SQLITE_OPEN_READWRITE)"
        #expect(try tool.ask("sql-open", "b", theirs, path, flags) == ["0"])
        #expect(try tool.ask("sql", "b", "BEGIN IMMEDIATE; INSERT INTO t VALUES(1)") == ["0"])

        #expect(connection.execute("BEGIN IMMEDIATE").code == SQLITE_BUSY)
        connection.setBusyTimeout(milliseconds: 150)
        let start = MonotonicTime.now
        #expect(connection.execute("BEGIN IMMEDIATE").code == SQLITE_BUSY)
        #expect(MonotonicTime.now.seconds(since: start) >= 0.14)
        // Readers aren't in its way, until it commits.
        #expect(connection.execute("SELECT count(*) FROM t").rows == ["0"])
        #expect(try tool.ask("sql", "b", "COMMIT") == ["0"])
        #expect(connection.execute("INSERT INTO t VALUES(2); SELECT count(*) FROM t").rows == ["2"])
    }

    @Test func `LOCK_TIMEOUT makes a lock wait and answers the old setting`() throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let holder = try ToolProcess()
        try holder.ask("open", "a", "unix", path, "\(RawFile.defaultFlags)")
        for level in [SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE] {
            try holder.ask("lock", "a", "\(level)")
        }
        let waiter = try RawFile(vfs: "linux", path: path)
        var value: Int32 = 100
        #expect(waiter.control(SQLITE_FCNTL_LOCK_TIMEOUT, value: &value) == SQLITE_OK)
        #expect(value == 0)
        let start = MonotonicTime.now
        #expect(waiter.lock(SQLITE_LOCK_SHARED) == SQLITE_BUSY)
        let waited = MonotonicTime.now.seconds(since: start)
        #expect(waited >= 0.1 && waited < 5)
        value = 60_000
        #expect(waiter.control(SQLITE_FCNTL_LOCK_TIMEOUT, value: &value) == SQLITE_OK)
        #expect(value == 100)

        // Another process comes to wait; the lock is given up meanwhile.
        let second = try ToolProcess()
        try second.ask("open", "b", "linux", path, "\(RawFile.defaultFlags)")
        try second.ask("timeout", "b", "60000")
        try second.send(["lock", "b", "\(SQLITE_LOCK_SHARED)"])
        _ = usleep(50_000)
        try holder.ask("unlock", "a", "0")
        #expect(try second.receive() == ["0", "1"])
        #expect(waiter.lock(SQLITE_LOCK_SHARED) == SQLITE_OK)
    }

    @Test func `LOCK_TIMEOUT does not wait for a writer that waits for this reader`() throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let writer = try RawFile(vfs: "unix", path: path)
        let reader = try RawFile(vfs: "linux", path: path)
        #expect(reader.lock(SQLITE_LOCK_SHARED) == SQLITE_OK)
        #expect(writer.lock(SQLITE_LOCK_SHARED) == SQLITE_OK)
        #expect(writer.lock(SQLITE_LOCK_RESERVED) == SQLITE_OK)
        #expect(writer.lock(SQLITE_LOCK_EXCLUSIVE) == SQLITE_BUSY)
        #expect(writer.level == SQLITE_LOCK_PENDING)
        var value: Int32 = 60_000
        #expect(reader.control(SQLITE_FCNTL_LOCK_TIMEOUT, value: &value) == SQLITE_OK)
        let start = MonotonicTime.now
        #expect(reader.lock(SQLITE_LOCK_RESERVED) == SQLITE_BUSY)
        #expect(MonotonicTime.now.seconds(since: start) < 30)
    }

    @Test(arguments: ["linux", "unix"], ["linux", "unix"])
    func `A connection in exclusive mode keeps others out until it leaves it`(_ mine: String, _ theirs: String) throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let connection = Connection(path, vfs: mine)
        #expect(
            connection.execute("CREATE TABLE t(a); PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(1)").code
                == SQLITE_OK)
        let tool = try ToolProcess()
        #expect(try tool.ask("sql-open", "b", theirs, path, "\(SQLITE_OPEN_READWRITE)") == ["0"])
        #expect(try tool.ask("sql", "b", "SELECT * FROM t") == ["\(SQLITE_BUSY)"])
        #expect(connection.execute("PRAGMA locking_mode=NORMAL; SELECT * FROM t").rows == ["normal", "1"])
        #expect(try tool.ask("sql", "b", "SELECT * FROM t") == ["0", "1"])
        #expect(try tool.ask("sql", "b", "INSERT INTO t VALUES(2)") == ["0"])
    }

    @Test func `Processes through both VFSs that write without pause lose no update`() throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        #expect(Connection(path, vfs: "linux").execute("CREATE TABLE t(n); INSERT INTO t VALUES(0)").code == SQLITE_OK)
        let tools = try ["linux", "unix", "linux", "unix"].map { vfs in
            let tool = try ToolProcess()
            try tool.ask("sql-open", "c", vfs, path, "\(SQLITE_OPEN_READWRITE)")
            try tool.ask("sql-timeout", "c", "60000")
            return tool
        }
        let rounds = 50
        for _ in 0..<rounds {
            for tool in tools { try tool.send(["sql", "c", "BEGIN IMMEDIATE; UPDATE t SET n=n+1; COMMIT"]) }
        }
        for _ in 0..<rounds {
            for tool in tools { #expect(try tool.receive() == ["0"]) }
        }
        let check = Connection(path, vfs: "unix")
        #expect(check.execute("SELECT n FROM t; PRAGMA integrity_check").rows == ["\(rounds * tools.count)", "ok"])
    }
}
