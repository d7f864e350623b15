import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Files by their names: links, relative and long paths, files that move.

@Suite struct Names {
    @Test func `A database reached by a symbolic link has its journal beside the file`() throws {
        let scratch = try ScratchDirectory("names")
        try Files.makeDirectories(scratch.file("real/deep"))
        #expect(vrn_symlink("real", scratch.file("directory")) == 0)
        #expect(vrn_symlink("deep/../deep/file.db", scratch.file("real/link.db")) == 0)
        #expect(vrn_symlink(scratch.file("directory/link.db"), scratch.file("outer.db")) == 0)
        let through = Connection(scratch.file("outer.db"), vfs: "linux")
        #expect(through.execute("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)").code == SQLITE_OK)
        #expect(try Files.list(scratch.file("real/deep")).sorted() == ["file.db", "file.db-journal"])
        let direct = Connection(scratch.file("real/deep/file.db"), vfs: "unix")
        #expect(direct.execute("BEGIN IMMEDIATE").code == SQLITE_BUSY)
        #expect(through.execute("COMMIT").code == SQLITE_OK)
        #expect(direct.execute("SELECT * FROM t").rows == ["1"])
    }

    @Test func `A path is resolved to what the unix VFS and realpath say`() throws {
        let scratch = try ScratchDirectory("names")
        try Files.makeDirectories(scratch.file("a/b"))
        try Files.writeAtomically([1], to: scratch.file("a/b/file"))
        #expect(vrn_symlink("a/b", scratch.file("ab")) == 0)
        #expect(vrn_symlink("../../ab/file", scratch.file("a/b/back")) == 0)
        let names = [
            "a/b/file", "a//b/./file", "a/b/../b/file", "ab/file", "ab/back", "ab/../b/file", "ab/new", "new", "./new",
            "../\(Files.lastComponent(of: scratch.path))/ab/back", "a/b/", "/", "/..", "a/b/file/", "a/none/new",
        ]
        for name in names {
            for path in [scratch.file(name), name.hasPrefix("/") ? name : scratch.file(name)] {
                #expect(fullPath(path, vfs: "linux") == fullPath(path, vfs: "unix"), "\(path)")
            }
        }
        #expect(fullPath(scratch.file("ab/back"), vfs: "linux").path == scratch.file("a/b/file"))
        #expect(fullPath(scratch.file("ab/back"), vfs: "linux").code == VRN_OK_SYMLINK)
        #expect(fullPath(scratch.file("a/b/file"), vfs: "linux").code == SQLITE_OK)
    }

    @Test func `Links in a circle can't be opened`() throws {
        let scratch = try ScratchDirectory("names")
        #expect(vrn_symlink("two", scratch.file("one")) == 0)
        #expect(vrn_symlink("one", scratch.file("two")) == 0)
        #expect(fullPath(scratch.file("one"), vfs: "linux").code == SQLITE_CANTOPEN)
        #expect(Connection(scratch.file("one"), vfs: "linux").openCode == SQLITE_CANTOPEN)
    }

    @Test func `NOFOLLOW refuses links, in the last place and before it`() throws {
        let scratch = try ScratchDirectory("names")
        try Files.makeDirectories(scratch.file("real"))
        #expect(Connection(scratch.file("real/file.db"), vfs: "linux").execute("CREATE TABLE t(a)").code == SQLITE_OK)
        #expect(vrn_symlink("real", scratch.file("directory")) == 0)
        #expect(vrn_symlink("real/file.db", scratch.file("link.db")) == 0)
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW
        for name in ["link.db", "directory/file.db"] {
            #expect(Connection(scratch.file(name), vfs: "linux", flags: flags).openCode == VRN_CANTOPEN_SYMLINK & 0xFF)
        }
        #expect(Connection(scratch.file("real/file.db"), vfs: "linux", flags: flags).openCode == SQLITE_OK)
    }

    @Test func `A journal that somebody made a link of is not followed`() throws {
        let scratch = try ScratchDirectory("names")
        try Files.writeAtomically(Array("precious".utf8), to: scratch.file("victim"))
        let connection = Connection(scratch.file("a.db"), vfs: "linux")
        #expect(connection.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        #expect(vrn_symlink("victim", scratch.file("a.db-journal")) == 0)
        #expect(connection.execute("INSERT INTO t VALUES(1)").code & 0xFF == SQLITE_CANTOPEN)
        #expect(try Files.read(scratch.file("victim")) == Array("precious".utf8))
    }

    @Test func `Two names of one file exclude each other`() throws {
        let scratch = try ScratchDirectory("names")
        let first = Connection(scratch.file("a.db"), vfs: "linux")
        #expect(first.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        #expect(vrn_link(scratch.file("a.db"), scratch.file("b.db")) == 0)
        let second = Connection(scratch.file("b.db"), vfs: "linux")
        #expect(first.execute("BEGIN IMMEDIATE").code == SQLITE_OK)
        #expect(second.execute("BEGIN IMMEDIATE").code == SQLITE_BUSY)
        #expect(first.execute("INSERT INTO t VALUES(7); COMMIT").code == SQLITE_OK)
        #expect(second.execute("SELECT * FROM t").rows == ["7"])
    }

    @Test func `A path of four thousand bytes works`() throws {
        let scratch = try ScratchDirectory("names")
        var directory = scratch.path
        while directory.utf8.count < 4000 - 12 {
            let room = 4000 - 12 - directory.utf8.count
            directory += "/" + String(repeating: "d", count: min(200, max(1, room - 1)))
            try Files.makeDirectories(directory)
        }
        let path = directory + "/" + String(repeating: "f", count: 4000 - directory.utf8.count - 1)
        #expect(path.utf8.count == 4000)
        let connection = Connection(path, vfs: "linux")
        #expect(connection.execute("CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1)").code == SQLITE_OK)
        #expect(vrn_access("\(path)-journal", F_OK) == 0)
        #expect(connection.execute("COMMIT; SELECT * FROM t").rows == ["1"])
        // SQLite's own stops at 512.
        #expect(Connection(path, vfs: "unix").openCode == SQLITE_CANTOPEN)
        #expect(Connection(path + String(repeating: "g", count: 90), vfs: "linux").openCode == SQLITE_CANTOPEN)
    }

    @Test func `Databases with links are replicated under their own names`() throws {
        let scratch = try ScratchDirectory("names")
        let script = "\(Files.directory(of: Files.directory(of: #filePath)))/Support/fork/replication_cases.py"
        let result = try Processes.run([
            "timeout", "120", "/usr/bin/python3", script, "links", try BuiltExtension.path(), scratch.path,
        ])
        #expect(result.status == 0, "\(result.output)")
    }

    @Test func `A relative name means the working directory of the moment it was opened`() throws {
        let scratch = try ScratchDirectory("names")
        try Files.makeDirectories(scratch.file("one"))
        try Files.makeDirectories(scratch.file("two"))
        let tool = try ToolProcess()
        #expect(try tool.ask("chdir", scratch.file("one")) == ["-"])
        #expect(try tool.ask("sql-open", "a", "linux", "rel.db", "6") == ["0"])
        #expect(try tool.ask("chdir", scratch.file("two")) == ["-"])
        #expect(try tool.ask("sql", "a", "CREATE TABLE t(a); INSERT INTO t VALUES(5)") == ["0"])
        #expect(try Files.list(scratch.file("two")) == [])
        #expect(Connection(scratch.file("one/rel.db"), vfs: "unix").execute("SELECT * FROM t").rows == ["5"])
    }

    @Test(arguments: ["linux", "unix"])
    func `A database that was moved away or replaced is not written any more`(_ vfs: String) throws {
        let scratch = try ScratchDirectory("names")
        let connection = Connection(scratch.file("a.db"), vfs: vfs)
        #expect(connection.execute("CREATE TABLE t(a)").code == SQLITE_OK)
        try Files.rename(scratch.file("a.db"), to: scratch.file("b.db"))
        let moved = SQLITE_READONLY | 4 << 8  // SQLITE_READONLY_DBMOVED
        #expect(connection.execute("INSERT INTO t VALUES(1)").code == moved)
        try Files.writeAtomically(try Files.read(scratch.file("b.db")) ?? [], to: scratch.file("a.db"))
        #expect(connection.execute("INSERT INTO t VALUES(1)").code == moved)
    }

    @Test func `Deleting a file that is not there says so`() throws {
        let scratch = try ScratchDirectory("names")
        let vfs = try #require(sqlite3_vfs_find("linux"))
        #expect(vfs.pointee.xDelete(vfs, scratch.file("none"), 0) == VRN_IOERR_DELETE_NOENT)
        #expect(vfs.pointee.xDelete(vfs, scratch.path, 0) == VRN_IOERR_DELETE)
        try Files.writeAtomically([1], to: scratch.file("some"))
        #expect(vfs.pointee.xDelete(vfs, scratch.file("some"), 1) == SQLITE_OK)
        #expect(vrn_access(scratch.file("some"), F_OK) == -ENOENT)
    }

    @Test func `A file without content does not exist, a directory does`() throws {
        let scratch = try ScratchDirectory("names")
        let vfs = try #require(sqlite3_vfs_find("linux"))
        func exists(_ name: String) -> Bool {
            var answer: Int32 = -1
            #expect(vfs.pointee.xAccess(vfs, scratch.file(name), SQLITE_ACCESS_EXISTS, &answer) == SQLITE_OK)
            return answer == 1
        }
        try Files.writeAtomically([], to: scratch.file("empty"))
        try Files.writeAtomically([1], to: scratch.file("full"))
        try Files.makeDirectories(scratch.file("directory"))
        #expect(!exists("none"))
        #expect(!exists("empty"))
        #expect(exists("full"))
        #expect(exists("directory"))
    }

    struct FullPath: Equatable {
        var code: Int32
        var path: String
    }

    func fullPath(_ path: String, vfs name: String) -> FullPath {
        precondition(LinuxVFSInstallation.isDone)
        guard let vfs = sqlite3_vfs_find(name) else { return FullPath(code: -1, path: "") }
        var out = [CChar](repeating: 0, count: Int(vfs.pointee.mxPathname) + 1)
        let code = vfs.pointee.xFullPathname(vfs, path, Int32(out.count), &out)
        let bytes = out.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
        return FullPath(code: code, path: code & 0xFF == SQLITE_OK ? String(decoding: bytes, as: UTF8.self) : "")
    }
}
