import CSQLite
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

@Suite struct RestoreTests {
    let scratch: Scratch
    let store = MemoryStore()
    init() throws { scratch = try Scratch() }

    private var source: ChunkSource { ChunkSource(caches: [], stores: [store]) }

    /// Chunks that all differ, but for runs of zeros and repetitions.
    private func database(chunks: Int, tail: Int = 1000, seed: UInt8 = 0) -> [UInt8] {
        var bytes: [UInt8] = []
        for i in 0..<chunks {
            switch i % 10 {
            case 3, 4: bytes += [UInt8](repeating: 0, count: Chunk.size)
            case 7: bytes += [UInt8](repeating: 77, count: Chunk.size)
            default: bytes += (0..<Chunk.size / 8).flatMap { _ in [UInt8(i & 255), UInt8(i >> 8), seed, 1, 2, 3, 4, 5] }
            }
        }
        bytes += [UInt8](repeating: 9, count: tail)
        // Restored over one another: what is no database is not replaced.
        bytes.replaceSubrange(0..<min(magic.count, bytes.count), with: magic.prefix(bytes.count))
        return bytes
    }
    private let magic = Array("SQLite format 3\0".utf8)
    private func stored(_ bytes: [UInt8]) throws -> Manifest {
        try StoreWriter(path: "/srv/x.db", stores: [store]).store(bytes)
    }
    private func failure(_ body: () throws -> Void) -> String {
        do {
            try body()
            return "no error"
        } catch {
            return "\(error)"
        }
    }

    @Test func everyGoldenVersionIsRestoredToTheLastByte() throws {
        for golden in try GoldenData.cases() {
            let store = MemoryStore()
            for key in golden.chunkKeys { try store.put(PutRequest(.chunks, key, golden.chunkBody(key))) }
            let chunks = ChunkSource(caches: [], stores: [store])
            let manifests = ManifestSource(chunks: chunks)
            for version in golden.versions {
                try store.put(PutRequest(.manifests, golden.manifestKey, golden.manifestBody(version)))
                let name = ReplicaLocation.manifest(name: ManifestName.make(host: golden.hostname, path: golden.path))
                let restore = Restore(try manifests.resolve(manifests.fetch(name).manifest), from: chunks)
                let report = try restore.write(to: scratch.file("out"))
                let bytes = try scratch.bytes("out")
                #expect(bytes.count == version.sourceLen && report.length == UInt64(version.sourceLen))
                #expect(try GoldenData.sha256(bytes) == version.sourceSha256, "\(golden) \(version.step)")
                var streamed: [UInt8] = []
                _ = try restore.stream { streamed += $0 }
                #expect(streamed == bytes)
            }
        }
        #expect(try scratch.list() == ["out"])
    }

    @Test(arguments: [(0, 0), (0, 1), (1, 0), (3, 17), (40, 65535), (320, 100)])
    func whatIsWrittenIsTheDatabase(chunks: Int, tail: Int) throws {
        let bytes = database(chunks: chunks, tail: tail)
        let manifest = try stored(bytes)
        let report = try Restore(manifest, from: source).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == bytes)
        #expect(report.length == UInt64(bytes.count))
        #expect(report.bundled + report.fetched + report.zero == report.length)
        #expect(try scratch.list() == ["out"])
    }

    /// Chunks that come from elsewhere are there before anything is fetched; one of them is spoiled by a disk that doesn't keep what it got.
    @Test(arguments: [true, false])
    func whatTheDiskDidNotKeepIsFoundWhenItIsReadBack(verify: Bool) throws {
        var bytes = database(chunks: 30)
        try scratch.write(bytes, to: "base")
        bytes[bytes.count - 1] = 10
        let restore = Restore(try stored(bytes), from: source)
        var options = Restore.Options()
        options.base = scratch.file("base")
        options.verify = verify
        var isSpoiled = false
        options.progress = { [store, scratch] _ in
            // The last chunk is fetched, and waited for; the others are read back meanwhile, from the end on.
            if !isSpoiled, let file = FileHandle(forUpdatingAtPath: scratch.file("out.partial")) {
                isSpoiled = true
                file.seek(toFileOffset: 65_536)
                file.write(Data("spoiled".utf8))
                try? file.close()
            }
            store.release()
        }
        store.setFault { _ in .hang }
        let message = failure { _ = try restore.write(to: scratch.file("out"), options: options) }
        #expect(isSpoiled)
        if verify {
            #expect(message.contains("bytes from 65536 on") && message.contains("read back"), "\(message)")
            #expect(try !scratch.list().contains("out"))
        } else {
            #expect(message == "no error")
        }
    }

    @Test func zerosAreHolesAndEqualChunksAreFetchedOnce() throws {
        var bytes = [UInt8](repeating: 0, count: 1000 * Chunk.size)
        for i in stride(from: 0, to: bytes.count, by: 100 * Chunk.size) { bytes[i] = 1 }
        let manifest = try stored(bytes)
        let report = try Restore(manifest, from: source).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == bytes)
        #expect(store.takeLog().count == 1)
        #expect(report.zero == UInt64(990 * Chunk.size) && report.fetched == UInt64(9 * Chunk.size))
        let status = try #require(try Files.status(scratch.file("out")))
        #expect(status.allocated <= 11 * 65536, "\(status.allocated) bytes on disk")
    }

    @Test func progressRunsFromNothingToAll() throws {
        let bytes = database(chunks: 200)
        let manifest = try stored(bytes)
        store.setDelay(0.05)
        var seen: [Restore.Progress] = []
        var options = Restore.Options()
        options.progress = { seen.append($0) }
        _ = try Restore(manifest, from: ChunkSource(caches: [], stores: [store], parallelism: 8)).write(to: scratch.file("out"), options: options)
        #expect(seen.count > 3)
        #expect(seen.map(\.done) == seen.map(\.done).sorted())
        #expect(seen.allSatisfy { $0.total == UInt64(bytes.count) } && seen.last?.done == UInt64(bytes.count))
    }

    @Test func aMissingOrDamagedChunkLeavesTheOldFileAndAPartialOne() throws {
        let bytes = database(chunks: 60)
        let manifest = try stored(bytes)
        try scratch.write(magic + [1, 2, 3], to: "out")
        let victim = manifest.chunks[31].chunkName
        for fault in [MemoryStore.Fault.missing, .unavailable, .body([1, 2, 3])] {
            store.setFault { $0.key == victim ? fault : nil }
            let error = failure { _ = try Restore(manifest, from: source).write(to: scratch.file("out")) }
            #expect(error.contains(victim) && error.contains("memory"), "\(error)")
            #expect(try scratch.bytes("out") == magic + [1, 2, 3])
            #expect(try scratch.list() == ["out", "out.partial"])
            var streamed: [UInt8] = []
            #expect(failure { _ = try Restore(manifest, from: source).stream { streamed += $0 } }.contains(victim))
            #expect(streamed == Array(bytes.prefix(streamed.count)) && streamed.count == 31 * Chunk.size)
        }
        store.setFault(nil)
        _ = try Restore(manifest, from: source).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == bytes)
        #expect(try scratch.list() == ["out"])
    }

    @Test func anInterruptedRestoreIsResumed() throws {
        let bytes = database(chunks: 100)
        let manifest = try stored(bytes)
        let victim = manifest.chunks[88].chunkName
        store.setFault { $0.key == victim ? .unavailable : nil }
        #expect(throws: ReplicaError.self) {
            try Restore(manifest, from: ChunkSource(caches: [], stores: [store], parallelism: 2)).write(to: scratch.file("out"))
        }
        store.setFault(nil)
        _ = store.takeLog()
        let report = try Restore(manifest, from: source).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == bytes)
        #expect(report.resumed > UInt64(40 * Chunk.size))
        #expect(store.takeLog().count < 30)
    }

    @Test func aPartialFileOfAnotherStateIsOfUseAndDoesNoHarm() throws {
        let manifest = try stored(database(chunks: 100))
        // Longer, with other bytes where zeros belong, and some chunks that match.
        var partial = database(chunks: 120, tail: 5)
        for i in stride(from: 3, to: 120, by: 10) { partial[i * Chunk.size + 5] = 1 }
        for i in stride(from: 5, to: 120, by: 7) { partial[i * Chunk.size + 9] ^= 1 }
        try scratch.write(partial, to: "out.partial")
        let report = try Restore(manifest, from: source).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == database(chunks: 100))
        #expect(report.resumed > 0 && report.fetched > 0)
    }

    @Test func aBaseFileSavesItsChunksWhereverTheyStand() throws {
        let bytes = database(chunks: 100)
        let manifest = try stored(bytes)
        // An older copy: fewer chunks, some changed, all moved by one.
        var old = [UInt8](repeating: 200, count: Chunk.size) + bytes.prefix(80 * Chunk.size)
        for i in [10, 20, 30] { old[i * Chunk.size] ^= 0xFF }
        try scratch.write(old, to: "old")
        var options = Restore.Options()
        options.base = scratch.file("old")
        let report = try Restore(manifest, from: source).write(to: scratch.file("out"), options: options)
        #expect(try scratch.bytes("out") == bytes)
        #expect(try scratch.bytes("old") == old)
        #expect(report.fromBase > UInt64(50 * Chunk.size))
        #expect(store.takeLog().count < 25)
        options.base = scratch.file("none")
        #expect(failure { _ = try Restore(manifest, from: source).write(to: scratch.file("out2"), options: options) }.contains("none"))
    }

    @Test func aDatabaseInUseIsNotReplaced() throws {
        let path = scratch.file("db")
        try Databases.make(path, rows: 10)
        let before = try scratch.bytes("db")
        let manifest = try stored(database(chunks: 3))
        let db = try SQLiteConnection(path)
        for (begin, what) in [("BEGIN; SELECT * FROM t", "a reader"), ("BEGIN IMMEDIATE", "a writer"), ("BEGIN EXCLUSIVE", "an exclusive writer")] {
            try db.rows(begin)
            let error = failure { _ = try Restore(manifest, from: source).write(to: path) }
            #expect(error.contains("in use as a database") && error.contains(path), "\(what): \(error)")
            // Looking has not cost the connection its lock.
            #expect(failure { try SQLiteConnection(path).rows("PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE") } != "no error")
            try db.rows("COMMIT")
        }
        #expect(try scratch.bytes("db") == before)
        #expect(try !scratch.list().contains("db.partial"))
        _ = try Restore(manifest, from: source).write(to: path)
        #expect(try scratch.bytes("db") == database(chunks: 3))
    }

    @Test func aDatabaseThatAnotherProcessHasInUseIsNotReplaced() throws {
        let path = scratch.file("db")
        try Databases.make(path, rows: 10)
        let manifest = try stored(database(chunks: 3))
        let shell = Process()
        shell.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        shell.arguments = ["python3", "-c", "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1],isolation_level=None)\nc.execute('BEGIN IMMEDIATE')\nprint('locked',flush=True)\nsys.stdin.read()", path]
        let (input, output) = (Pipe(), Pipe())
        shell.standardInput = input
        shell.standardOutput = output
        try shell.run()
        _ = output.fileHandleForReading.availableData
        #expect(failure { _ = try Restore(manifest, from: source).write(to: path) }.contains("in use as a database"))
        try input.fileHandleForWriting.close()
        shell.waitUntilExit()
        #expect(failure { _ = try Restore(manifest, from: source).write(to: path) } == "no error")
    }

    @Test(arguments: ["-journal", "-wal"])
    func aJournalBesideTheFileIsRefusedUnlessForced(suffix: String) throws {
        let path = scratch.file("db")
        try Databases.make(path, rows: 10)
        try scratch.write([1, 2, 3], to: "db\(suffix)")
        let manifest = try stored(database(chunks: 3))
        let error = failure { _ = try Restore(manifest, from: source).write(to: path) }
        #expect(error.contains("db\(suffix)") && error.contains("not empty"), "\(error)")
        #expect(try scratch.list() == ["db", "db\(suffix)"])
        // An empty one is no journal.
        try scratch.write([], to: "db\(suffix)")
        _ = try Restore(manifest, from: source).write(to: path)
        #expect(try scratch.bytes("db") == database(chunks: 3))
        try scratch.write([1, 2, 3], to: "db\(suffix)")
        var options = Restore.Options()
        options.force = true
        _ = try Restore(manifest, from: source).write(to: path, options: options)
        #expect(try scratch.list() == ["db"])
    }

    /// The journal of a transaction that is over: its header is zeros.
    @Test func aDatabaseWithAPersistentJournalIsReplaced() throws {
        let path = scratch.file("db")
        try Databases.make(path, rows: 10)
        do {
            let db = try SQLiteConnection(path)
            try db.rows("PRAGMA journal_mode=PERSIST; CREATE TABLE u(x)")
        }
        #expect(try #require(try Files.status("\(path)-journal")).size > 0)
        let manifest = try stored(database(chunks: 3))
        _ = try Restore(manifest, from: source).write(to: path)
        #expect(try scratch.bytes("db") == database(chunks: 3))
        #expect(try scratch.list() == ["db"])
    }

    /// A restore takes long; an application may be started again meanwhile.
    @Test(arguments: [false, true]) func whatCameWhileTheRestoreRanIsLeftAlone(wasThere: Bool) throws {
        let path = scratch.file("db")
        if wasThere { try Databases.make(path, rows: 1) }
        let manifest = try stored(database(chunks: 50))
        store.setFault { _ in .hang }
        let (source, done) = (source, Flag())
        nonisolated(unsafe) var message = ""
        Thread.detachNewThread {
            do { _ = try Restore(manifest, from: source).write(to: path) } catch { message = "\(error)" }
            done.set()
        }
        while store.takeMostInFlight() == 0 { usleep(1000) }
        // Nobody has a transaction open on it.
        try Databases.make(scratch.file("other"), rows: 10)
        try Files.rename(scratch.file("other"), to: path)
        let before = try scratch.bytes("db")
        store.setFault(nil)
        while !done.isSet {
            store.release()
            usleep(1000)
        }
        #expect(message.contains("has come there since the restore began") && message.contains("db.partial is kept"), "\(message)")
        #expect(try scratch.bytes("db") == before)
        #expect(try scratch.list() == ["db", "db.partial"])
        _ = store.takeLog()
        let report = try Restore(manifest, from: source).write(to: path)
        #expect(report.resumed > 0 && store.takeLog().count < 5)
        #expect(try scratch.bytes("db") == database(chunks: 50))
    }

    @Test func forceReplacesADatabaseInUse() throws {
        let path = scratch.file("db")
        try Databases.make(path, rows: 10)
        let manifest = try stored(database(chunks: 3))
        let db = try SQLiteConnection(path)
        try db.rows("BEGIN; SELECT * FROM t")
        var options = Restore.Options()
        options.force = true
        _ = try Restore(manifest, from: source).write(to: path, options: options)
        #expect(try scratch.bytes("db") == database(chunks: 3))
        #expect(try db.value("SELECT count(*) FROM t") == "10")
    }

    @Test func linksAreFollowedAndPermissionsKept() throws {
        try scratch.write(magic, to: "real")
        try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: scratch.file("real"))
        try FileManager.default.createSymbolicLink(atPath: scratch.file("link"), withDestinationPath: scratch.file("real"))
        let manifest = try stored(database(chunks: 2))
        _ = try Restore(manifest, from: source).write(to: scratch.file("link"))
        #expect(try scratch.bytes("real") == database(chunks: 2))
        #expect(try #require(try Files.status(scratch.file("link"), followLinks: false)).isSymbolicLink)
        #expect(try #require(try Files.status(scratch.file("real"))).mode & 0o777 == 0o640)
        #expect(try scratch.list() == ["link", "real"])
    }

    /// To where the database would be that an application opens by that name.
    @Test func aLinkThatLeadsNowhereIsFollowed() throws {
        try FileManager.default.createDirectory(atPath: scratch.file("there"), withIntermediateDirectories: false)
        try FileManager.default.createSymbolicLink(atPath: scratch.file("link"), withDestinationPath: "second")
        try FileManager.default.createSymbolicLink(atPath: scratch.file("second"), withDestinationPath: scratch.file("there/real"))
        let manifest = try stored(database(chunks: 2))
        _ = try Restore(manifest, from: source).write(to: scratch.file("link"))
        #expect(try scratch.bytes("there/real") == database(chunks: 2))
        #expect(try #require(try Files.status(scratch.file("link"), followLinks: false)).isSymbolicLink)
        try FileManager.default.createSymbolicLink(atPath: scratch.file("loop"), withDestinationPath: "loop")
        #expect(failure { _ = try Restore(manifest, from: source).write(to: scratch.file("loop")) } != "no error")
        #expect(try scratch.list() == ["link", "loop", "second", "there"])
    }

    @Test func whatCannotBeAFileIsRefused() throws {
        let manifest = try stored(database(chunks: 2))
        try FileManager.default.createDirectory(atPath: scratch.file("directory"), withIntermediateDirectories: false)
        #expect(failure { _ = try Restore(manifest, from: source).write(to: scratch.file("directory")) }.contains("is a directory"))
        #expect(failure { _ = try Restore(manifest, from: source).write(to: scratch.file("none/out")) }.contains("no such directory"))
        #expect(failure { _ = try Restore(manifest, from: source).write(to: "/dev/null") }.contains("not a regular file"))
        try FileManager.default.createSymbolicLink(atPath: scratch.file("out.partial"), withDestinationPath: scratch.file("elsewhere"))
        #expect(failure { _ = try Restore(manifest, from: source).write(to: scratch.file("out")) } != "no error")
        #expect(try scratch.list() == ["directory", "out.partial"])
    }

    @Test func twoRestoresToOneFileDoNotMix() throws {
        let manifest = try stored(database(chunks: 50))
        store.setFault { _ in .hang }
        let done = Flag()
        let (source, path) = (source, scratch.file("out"))
        Thread.detachNewThread {
            _ = try? Restore(manifest, from: source).write(to: path)
            done.set()
        }
        while store.takeMostInFlight() == 0 { usleep(1000) }
        let error = failure { _ = try Restore(manifest, from: source).write(to: path) }
        #expect(error.contains("another restore"), "\(error)")
        store.setFault(nil)
        while !done.isSet {
            store.release()
            usleep(1000)
        }
        #expect(try scratch.bytes("out") == database(chunks: 50))
    }

    @Test func aFullDiskLeavesTheOldFileAndIsResumedFrom() throws {
        let directory = scratch.file("store")
        try Files.makeDirectories(directory)
        let store = DirectoryStore(path: directory, sync: false)
        try store.prepare()
        let writer = StoreWriter(path: "/srv/x.db", stores: [store])
        let manifest = try writer.store(database(chunks: 100))
        try scratch.write(magic + [1, 2, 3], to: "out")
        let output = try Helper.run("restore-limited", directory, writer.uri, scratch.file("out"), "3000000")
        #expect(output.contains("error full=true") && output.contains("out.partial"), "\(output)")
        #expect(try scratch.bytes("out") == magic + [1, 2, 3])
        #expect(try scratch.list() == ["out", "out.partial", "store"])
        let report = try Restore(manifest, from: ChunkSource(caches: [], stores: [store])).write(to: scratch.file("out"))
        #expect(try scratch.bytes("out") == database(chunks: 100))
        #expect(report.length == UInt64(database(chunks: 100).count))
    }

    @Test func killedAtAnyPointItLeavesThePartialFileAlone() throws {
        let directory = scratch.file("store")
        try Files.makeDirectories(directory)
        let store = DirectoryStore(path: directory, sync: false)
        try store.prepare()
        let writer = StoreWriter(path: "/srv/x.db", stores: [store])
        let bytes = database(chunks: 400)
        try writer.store(bytes)
        let old = magic + [1, 2, 3]
        try scratch.write(old, to: "out")
        var random = SeededGenerator(for: "killedAtAnyPoint")
        // In the midst: after it had written to the partial file, and before that got the file's name.
        var (tries, inTheMidst) = (0, 0)
        // How long a whole one takes; less where one that was to be killed came to its end before.
        let began = MonotonicTime.now
        #expect(try Helper.run("restore-limited", directory, writer.uri, scratch.file("out"), "1000000000").contains("restored"))
        #expect(try scratch.bytes("out") == bytes)
        var whole = MonotonicTime.now.seconds(since: began)
        try scratch.write(old, to: "out")
        while tries < 15 || (inTheMidst < 6 && tries < 200) {
            tries += 1
            let before = try Files.status(scratch.file("out.partial"))
            let started = try Helper.start(["restore-limited", directory, writer.uri, scratch.file("out"), "1000000000"])
            usleep(UInt32(Double.random(in: 0...whole, using: &random) * 1e6))
            kill(started.process.processIdentifier, SIGKILL)
            started.process.waitUntilExit()
            let out = try scratch.bytes("out")
            #expect(out == old || out == bytes)
            #expect(Set(try scratch.list()).isSubset(of: ["out", "out.partial", "store"]))
            if out == bytes {
                whole *= 0.8
                try scratch.write(old, to: "out")
            } else if let partial = try Files.status(scratch.file("out.partial")), partial.modified != before?.modified {
                inTheMidst += 1
            }
        }
        print("\(inTheMidst) of \(tries) restores were killed in the midst")
        #expect(inTheMidst >= 6)
        #expect(try Helper.run("restore-limited", directory, writer.uri, scratch.file("out"), "1000000000").contains("restored"))
        #expect(try scratch.bytes("out") == bytes)
        #expect(try scratch.list() == ["out", "store"])
    }
}
