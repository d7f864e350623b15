import CVerneuil
import Foundation
import ProductSupport
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilStore
import VerneuilSystem

/// A small file system in memory, mounted at a directory.
private final class SmallDisk {
    let path: String

    /// - Parameter files: as many as it may hold.
    init(_ path: String, mebibytes: Int, files: Int = 100_000) throws {
        try Files.makeDirectories(path)
        let mount = try Program.run(["mount", "-t", "tmpfs", "-o", "size=\(mebibytes)m,nr_inodes=\(files)", "tmpfs", path])
        if mount.status != 0 { throw CantMount(reason: mount.errors) }
        self.path = path
    }
    func grow(mebibytes: Int) throws {
        #expect(try Program.run(["mount", "-o", "remount,size=\(mebibytes)m", path]).status == 0)
    }
    deinit { _ = try? Program.run(["umount", "-l", path]) }

    struct CantMount: Error { var reason: String }

    /// Mounting needs root, and a container that allows it.
    static let isPossible: Bool = {
        let path = "/tmp/verneuil-mount-\(getpid())"
        defer { try? Files.removeTree(path) }
        return (try? SmallDisk(path, mebibytes: 1)) != nil
    }()
}

/// Causes of a stop that are injected for real: each is visible within twice the threshold, and gone when its cause is,
/// without a restart of the application.
@Suite(.serialized) struct RealStopTests {
    private static let threshold = 0.75

    /// Waits until twice the threshold has passed since `began`: what isn't visible then isn't in time.
    private func waitForTwiceTheThreshold(since began: MonotonicTime) {
        let left = 2 * Self.threshold - MonotonicTime.now.seconds(since: began)
        if left > 0 { usleep(UInt32(left * 1e6)) }
    }

    private func isNoSpace(_ text: String) -> Bool { text.contains("No space left") || text.contains("ENOSPC") }

    @Test(.enabled(if: SmallDisk.isPossible, "needs root, to mount a small file system"))
    func theSpoolsDiskIsFull() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        let disk = try SmallDisk(file.replicator.spool.root, mebibytes: 4)
        let db = try file.connect()
        try db.rows("PRAGMA synchronous=OFF; CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(300000))")
        #expect(try file.flush() == nil)
        #expect(file.report().isFine(limit: Self.threshold), "\(file.report())")
        // More than the file system can ever hold.
        let began = MonotonicTime.now
        try db.rows("INSERT INTO t VALUES(randomblob(8000000))")
        #expect(try db.value("SELECT count(*) FROM t") == "2", "the application doesn't notice")
        waitForTwiceTheThreshold(since: began)
        let report = file.report()
        #expect(!report.isFine(limit: Self.threshold), "\(report)")
        let lines = LogBook.lines("spooling failed", file.path)
        #expect(lines.contains(where: isNoSpace), "\(lines)")

        try disk.grow(mebibytes: 64)
        // Nobody restarts anything, and nobody commits.
        #expect(eventually(30) { file.report().isFine(limit: 0) }, "\(file.report())")
        #expect(try file.flush() == nil)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT sum(length(data)) FROM t") == "8300000")
    }

    /// The records say that all is well: neither the transaction nor the full snapshot could begin.
    @Test(.enabled(if: SmallDisk.isPossible, "needs root, to mount a small file system"))
    func theSpoolsDiskHasNoRoomForAnEpoch() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        let root = file.replicator.spool.root
        let disk = try SmallDisk(root, mebibytes: 16, files: 1000)
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(300000))")
        #expect(try file.flush() == nil)
        do {
            let stranger = try SQLiteConnection(file.path, vfs: "unix")
            try stranger.rows("INSERT INTO t VALUES(randomblob(300000))")
        }
        var fillers: [String] = []
        do throws(SystemError) {
            while fillers.count < 1000 {
                try Files.writeAtomically([], to: "\(root)/filler.\(fillers.count)", isOnlyWriter: true)
                fillers.append("\(root)/filler.\(fillers.count)")
            }
        } catch {
            #expect(error.code == ENOSPC)
        }
        try db.rows("INSERT INTO t VALUES('last')")
        #expect(eventually { LogBook.lines("spooling failed", file.path).contains(where: isNoSpace) })
        // Until the full snapshot was tried as well.
        usleep(500_000)
        #expect(!file.report().isFine(limit: 0))
        for filler in fillers { try Files.remove(filler) }
        #expect(eventually(30) { file.report().isFine(limit: 0) }, "\(file.report())")
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT sum(length(data)) FROM t") == "600004")
        withExtendedLifetime(disk) {}
    }

    /// The service has as many threads as it may (pids.max), just when it opens its database; a moment later one ends.
    @Test func noThreadCanBeStartedAtFirst() throws {
        let here = try Workspace()
        let shim = here.file("faultio.so")
        let compiled = try Program.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, "\(Products.package)/Tests/Support/faultio/faultio.c", "-ldl"])
        try #require(compiled.status == 0, "\(compiled)")
        try here.write(
            Array("i=0; while [ $i -lt 200 ]; do ls store/manifests/* >/dev/null 2>&1 && exit; sleep 0.1; i=$((i+1)); done".utf8), to: "wait")
        let program = try here.extended(
            "file:app.db?vfs=verneuil",
            "CREATE TABLE t(x); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2); INSERT INTO t VALUES(3); INSERT INTO t VALUES(4)",
            ".shell sh wait", environment: ["LD_PRELOAD": shim, "FAULTIO": "calls=pthread_create;at=1;times=6;errno=EAGAIN"])
        #expect(program.status == 0, "\(program)")
        for message in ["a copier can't be started", "no thread for full snapshots"] {
            #expect(program.errors.components(separatedBy: message).count == 2, "said once, not at each commit: \(program)")
        }
        // Nobody flushed: what is there was uploaded in the background.
        #expect(!here.files("store/manifests").isEmpty)
    }

    @Test(.enabled(if: SmallDisk.isPossible, "needs root, to mount a small file system"))
    func theStoresDiskIsFull() throws {
        let place = "/tmp/verneuil-store-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        defer { try? Files.removeTree(place) }
        let disk = try SmallDisk(place, mebibytes: 4)
        try Files.makeDirectories("\(place)/store")
        let store = DirectoryStore(path: "\(place)/store", sync: false)
        let file = try ReplicatedFile([store])
        let db = try file.connect()
        try db.rows("PRAGMA synchronous=OFF; CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(300000))")
        #expect(try file.flush() == nil)
        #expect(file.report().isFine(limit: Self.threshold), "\(file.report())")
        let began = MonotonicTime.now
        try db.rows("INSERT INTO t VALUES(randomblob(8000000))")
        waitForTwiceTheThreshold(since: began)
        let report = file.report()
        #expect(!report.isFine(limit: Self.threshold), "\(report)")
        #expect(eventually { isNoSpace(file.report().databases.first?.targets.first?.error ?? "") }, "\(file.report())")
        let lines = LogBook.lines("replication failed", file.path)
        #expect(lines.contains(where: isNoSpace), "\(lines)")
        // What is there still is what it was.
        let old = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/old.db")
        #expect(try old.value("SELECT sum(length(data)) FROM t") == "300000")

        try disk.grow(mebibytes: 64)
        #expect(eventually(30) { file.report().isFine(limit: 0) }, "\(file.report())")
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT sum(length(data)) FROM t") == "8300000")
    }

    /// The service that uploads for programs that only run for a moment is killed.
    @Test func theWorkerIsKilled() throws {
        let here = try Workspace()
        func start() throws -> Process {
            let worker = Process()
            worker.executableURL = URL(fileURLWithPath: try Products.verneuilctl())
            worker.arguments = ["flush", "--watch", "--interval", "0.1", here.file("spool")]
            worker.environment = ProcessInfo.processInfo.environment.merging(["VERNEUIL_CONFIG": here.configuration()]) { $1 }
            try worker.run()
            return worker
        }
        func write(_ sql: String) throws {
            let program = try here.extended(
                "file:app.db?vfs=verneuil", sql, config: "{\"replication_spooling_dir\": \"\(here.file("spool"))\"}")
            #expect(program.status == 0, "\(program)")
        }
        func status() throws -> Int32 {
            try here.verneuilctl("status", "--max-lag", "\(Self.threshold)", config: here.configuration(spool: true)).status
        }
        let worker = try start()
        defer { if worker.isRunning { kill(worker.processIdentifier, SIGKILL) } }
        try write("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(300000))")
        #expect(try eventually(30) { try status() == 0 && !here.files("store/manifests").isEmpty })
        kill(worker.processIdentifier, SIGKILL)
        worker.waitUntilExit()

        let began = MonotonicTime.now
        try write("INSERT INTO t VALUES(randomblob(300000))")
        waitForTwiceTheThreshold(since: began)
        #expect(try status() == 1)

        // The service manager starts it again. Whoever writes has nothing to do with it.
        let next = try start()
        defer { if next.isRunning { kill(next.processIdentifier, SIGKILL) } }
        #expect(try eventually(30) { try status() == 0 })
        let restored = try here.verneuilctl("restore", "--source-path", "app.db")
        #expect(try restored.status == 0 && restored.output == here.bytes("app.db"))
    }
}
