import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Files and directories that may not be written, and whose journals are. In a process of `nobody`'s, since root may
// do everything.

@Suite struct Permissions {
    /// A directory for everybody, a database in it, and who works there.
    private func prepare(_ vfs: String) throws -> (scratch: ScratchDirectory, tool: ToolProcess, path: String) {
        let scratch = try ScratchDirectory("permissions")
        let path = scratch.file("a.db")
        let owner = Connection(path, vfs: "unix")
        #expect(owner.execute("CREATE TABLE t(a); INSERT INTO t VALUES(1)").code == SQLITE_OK)
        #expect(vrn_chmod(scratch.path, 0o777) == 0)
        #expect(vrn_chmod(path, 0o666) == 0)
        return (scratch, try ToolProcess(unprivilegedCopyIn: scratch.path), path)
    }

    @Test(arguments: ["linux", "unix"])
    func `A read-only file can be read and not written`(_ vfs: String) throws {
        let (scratch, tool, path) = try prepare(vfs)
        #expect(vrn_chmod(path, 0o444) == 0)
        #expect(try tool.ask("sql-open", "a", vfs, path, "6") == ["0"])
        #expect(try tool.ask("sql", "a", "SELECT * FROM t") == ["0", "1"])
        #expect(try tool.ask("sql", "a", "INSERT INTO t VALUES(2)") == ["\(SQLITE_READONLY)"])
        let flags = Int32(try #require(Int32(try tool.ask("open", "f", vfs, path, "\(RawFile.defaultFlags)")[1])))
        #expect(flags == SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB)
        _ = scratch
    }

    @Test(arguments: ["linux", "unix"])
    func `In a directory that can't be written the journal can't be made, and SQLite is told so`(_ vfs: String) throws {
        let (scratch, tool, path) = try prepare(vfs)
        #expect(vrn_chmod(scratch.path, 0o555) == 0)
        #expect(try tool.ask("sql-open", "a", vfs, path, "6") == ["0"])
        #expect(try tool.ask("sql", "a", "SELECT * FROM t") == ["0", "1"])
        #expect(try tool.ask("sql", "a", "INSERT INTO t VALUES(2)") == ["\(VRN_READONLY_DIRECTORY)"])
        #expect(try tool.ask("sql-open", "b", vfs, scratch.file("new.db"), "6") == ["\(SQLITE_CANTOPEN)"])
        #expect(vrn_chmod(scratch.path, 0o777) == 0)
        #expect(try tool.ask("sql", "a", "INSERT INTO t VALUES(2); SELECT * FROM t") == ["0", "1", "2"])
    }

    @Test(arguments: ["linux", "unix"])
    func `A file that may not be read can't be opened`(_ vfs: String) throws {
        let (scratch, tool, path) = try prepare(vfs)
        #expect(vrn_chmod(path, 0o000) == 0)
        #expect(try tool.ask("sql-open", "a", vfs, path, "6") == ["\(SQLITE_CANTOPEN)"])
        _ = scratch
    }

    @Test(arguments: ["linux", "unix"])
    func `A hot journal of a file that can't be written is not passed over`(_ vfs: String) throws {
        let (scratch, tool, path) = try prepare(vfs)
        let writer = Connection(path, vfs: "unix")
        writer.execute("PRAGMA cache_size=1; BEGIN; UPDATE t SET a=2; CREATE TABLE u AS SELECT zeroblob(50000)")
        for suffix in ["", "-journal"] {
            try Files.writeAtomically(try Files.read(path + suffix) ?? [], to: scratch.file("hot.db\(suffix)"), mode: 0o444)
        }
        let rollback = SQLITE_READONLY | 3 << 8  // SQLITE_READONLY_ROLLBACK
        #expect(try tool.ask("sql-open", "a", vfs, scratch.file("hot.db"), "6") == ["0"])
        #expect(try tool.ask("sql", "a", "SELECT * FROM t") == ["\(rollback)"])
    }

    @Test(arguments: ["linux", "unix"])
    func `A journal has its database's mode, umask or not, and its owner where root makes it`(_ vfs: String) throws {
        let scratch = try ScratchDirectory("permissions")
        let path = scratch.file("a.db")
        let connection = Connection(path, vfs: vfs)
        #expect(connection.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        for mode: UInt32 in [0o600, 0o666, 0o640] {
            #expect(vrn_chmod(path, mode) == 0)
            if geteuid() == 0 {
                let file = try Descriptor(path, O_RDWR)
                #expect(vrn_fchown(file.fd, 1234, 4321) == 0)
            }
            #expect(connection.execute("BEGIN; INSERT INTO t VALUES(1)").code == SQLITE_OK)
            var st = stat()
            #expect(vrn_stat("\(path)-journal", &st) == 0)
            #expect(UInt32(st.st_mode) & 0o777 == mode)
            if geteuid() == 0 { #expect(st.st_uid == 1234 && st.st_gid == 4321) }
            #expect(connection.execute("COMMIT").code == SQLITE_OK)
        }
    }

    @Test(arguments: ["linux", "unix"])
    func `modeof makes a new database as accessible as another file`(_ vfs: String) throws {
        let scratch = try ScratchDirectory("permissions")
        try Files.writeAtomically([], to: scratch.file("model"), mode: 0o600)
        #expect(vrn_chmod(scratch.file("model"), 0o626) == 0)
        let connection = Connection("file:\(scratch.file("a.db"))?modeof=\(scratch.file("model"))", vfs: vfs)
        #expect(connection.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        #expect(try #require(try Files.status(scratch.file("a.db"))).mode & 0o777 == 0o626)
    }
}
