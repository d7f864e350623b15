import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem

/// A spool, and databases, that other users have to do with.
@Suite(.serialized) struct SharedSpoolTests {
    private static let nobody: uid_t = 65_534

    /// Everything in a directory, with what lstat(2) says.
    private func entries(_ directory: String) throws -> [(path: String, status: stat)] {
        try Files.list(directory).flatMap { name -> [(path: String, status: stat)] in
            let path = "\(directory)/\(name)"
            var st = stat()
            // What is gone meanwhile belongs to nobody.
            guard vrn_lstat(path, &st) == 0 else { return [] }
            return [(path, st)] + (FileStatus(st).isDirectory ? try entries(path) : [])
        }
    }

    /// All kinds of files are there then: a base chunk comes with 300 chunks.
    private func use(_ file: ReplicatedFile) throws {
        let db = try file.connect()
        try db.rows("PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[\(Array(repeating: "1", count: 330).joined(separator: ","))]')")
        #expect(try file.flush() == nil)
        try db.rows("UPDATE t SET data = randomblob(65000) WHERE id % 100 = 1")
        #expect(try file.flush() == nil)
        try file.spooled.requestTakeover("nobody's")
        let names = try entries(file.replicator.spool.root).map { Files.lastComponent(of: $0.path) }
        for kind in ["copier.lock", "lineage.", "takeover.", "path", "control", "builder.lock", "stored.", "target.", "ages.", "basechunk.", "table", "base"] {
            #expect(names.contains { $0.hasPrefix(kind) }, "\(kind) is not there: \(names)")
        }
    }

    @Test func inASharedSpoolEverythingIsForEverybodyWhateverTheUmask() throws {
        let mask = umask(0o022)
        defer { umask(mask) }
        let file = try ReplicatedFile([RecordingStore()], permissions: 0o777)
        try use(file)
        for entry in try entries(file.replicator.spool.root) where !entry.path.hasSuffix(".new") {
            let mode = UInt32(entry.status.st_mode) & 0o777
            #expect(mode == (FileStatus(entry.status).isDirectory ? 0o777 : 0o666), "\(entry.path): \(String(mode, radix: 8))")
        }
    }

    @Test(.enabled("only root makes files that belong to somebody else") { try SharedSpoolTests.canGiveAway() })
    func whatRootMakesBelongsToTheOwnerOfTheSpool() throws {
        let file = try ReplicatedFile([RecordingStore()])
        try #require(try Self.giveAway(file.replicator.spool.root))
        try use(file)
        for entry in try entries(file.replicator.spool.root) where !entry.path.hasSuffix(".new") {
            #expect(entry.status.st_uid == Self.nobody && entry.status.st_gid == Self.nobody, "\(entry.path)")
        }
    }

    /// Its owner can put a link anywhere in it, and must not be given what is there.
    @Test(.enabled("only root makes files that belong to somebody else") { try SharedSpoolTests.canGiveAway() })
    func whatRootMakesWhereALinkLeadsStaysRoots() throws {
        let file = try ReplicatedFile([RecordingStore()])
        let spool = file.replicator.spool
        try #require(try Self.giveAway(spool.root))
        try spool.prepare()
        let elsewhere = "\(file.directory)/elsewhere"
        try Files.makeDirectories(elsewhere)
        let db = try file.connect()
        #expect(vrn_symlink(elsewhere, Files.directory(of: try file.spooled.directory)) == 0)
        try db.rows("CREATE TABLE t(x)")
        #expect(try file.flush() == nil)
        let made = try entries(elsewhere)
        #expect(made.count >= 8)
        for entry in made { #expect(entry.status.st_uid == 0, "\(entry.path)") }
    }

    private static func giveAway(_ path: String) throws -> Bool {
        try Files.makeDirectories(path)
        let directory = try Descriptor(path, O_RDONLY | O_DIRECTORY)
        return geteuid() == 0 && vrn_fchown(directory.fd, nobody, nobody) == 0
    }

    /// Not every root may.
    private static func canGiveAway() throws -> Bool {
        let path = Files.temporaryName(beside: "/tmp/verneuil-given")
        defer { try? Files.removeTree(path) }
        return try giveAway(path)
    }

    /// ext4 and XFS don't keep times of other centuries; memory does.
    private static let keeper = vrn_access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"

    private static func setTime(_ path: String, _ seconds: Int) throws -> Bool {
        let times = [timespec](repeating: timespec(tv_sec: seconds, tv_nsec: 5), count: 2)
        return try utimensat(AT_FDCWD, path, times, 0) == 0 && Files.status(path)?.modified.seconds == Int64(seconds)
    }

    private static func keepsAnyTime() throws -> Bool {
        let path = Files.temporaryName(beside: "\(keeper)/verneuil-time")
        try Files.writeAtomically([1], to: path)
        defer { try? Files.remove(path) }
        return try [12_000_000_000, -12_000_000_000].allSatisfy { try setTime(path, $0) }
    }

    @Test func aBaseChunkThatCantBeReadIsMadeAnew() throws {
        let file = try ReplicatedFile([RecordingStore()])
        try use(file)
        let path = "\(try file.spooled.directory)/basechunk.\(file.replicator.targets[0].identifier)"
        // Larger than anything that is read whole.
        try Descriptor(path, O_RDWR).truncate(to: 1 << 31 + 1)
        try file.connect().rows("UPDATE t SET data = randomblob(65000) WHERE id = 7")
        #expect(try file.flush() == nil)
        #expect(try #require(try Files.status(path)).size < 1 << 20)
    }

    /// A copy from a machine whose clock was wrong, or somebody's touch(1).
    @Test(.enabled("the file system keeps no such time") { try SharedSpoolTests.keepsAnyTime() }, arguments: [12_000_000_000, -12_000_000_000])
    func aTimeStampCenturiesAwayStopsNothing(_ seconds: Int) throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store], in: Self.keeper)
        try SQLiteConnection(file.path, vfs: "unix").rows("CREATE TABLE t(x); INSERT INTO t VALUES(7)")
        try #require(try Self.setTime(file.path, seconds))
        let db = try file.connect()
        #expect(try db.value("SELECT x FROM t") == "7")
        #expect(try file.flush() == nil)
        #expect(try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/restored.db").value("SELECT x FROM t") == "7")
        try db.rows("INSERT INTO t VALUES(8)")
        #expect(try file.flush() == nil)
    }
}
