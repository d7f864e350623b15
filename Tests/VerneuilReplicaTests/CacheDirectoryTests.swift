import CVerneuil
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilSystem

@Suite struct CacheDirectoryTests {
    let scratch: Scratch
    init() throws { scratch = try Scratch() }

    private func local(shards: Int = 4, capacity: Int = 100) -> CacheDirectory {
        CacheDirectory(local: scratch.file("cache"), shards: shards, capacity: capacity, appendInstanceID: false)
    }
    private func readOnly(shards: Int = 4) -> CacheDirectory {
        CacheDirectory(readOnly: scratch.file("cache"), shards: shards, appendInstanceID: false)
    }
    /// Paths of all regular files below the cache, relative to it.
    private func files() -> [String] {
        let all = FileManager.default.enumerator(atPath: scratch.file("cache"))?.allObjects as? [String] ?? []
        return all.filter { path in
            let status = try? Files.status(scratch.file("cache/\(path)"), followLinks: false)
            return (status ?? nil)?.isRegularFile == true
        }
    }
    private func chunk(_ i: Int) -> (bytes: [UInt8], fingerprint: Fingerprint) {
        let bytes = CacheHammer.chunk(i)
        return (bytes, FingerprintKey.chunk.fingerprint(bytes))
    }

    @Test func whatIsPublishedIsReadByAllWhoShareTheDirectory() {
        let writer = local()
        for i in 0..<20 {
            let (bytes, fingerprint) = chunk(i)
            #expect(writer.read(fingerprint, length: bytes.count) == nil)
            writer.publish(fingerprint, bytes)
            #expect(local().read(fingerprint, length: bytes.count) == bytes)
            #expect(readOnly().read(fingerprint, length: bytes.count) == bytes)
        }
        #expect(files().count == 20)
    }

    @Test func filesAreTheBytesUnderTheChunksName() throws {
        let (bytes, fingerprint) = chunk(1)
        local(shards: 7).publish(fingerprint, bytes)
        let path = "\(String(fingerprint.primary % 7, radix: 16))/\(fingerprint.chunkName)"
        #expect(files() == [path])
        #expect(try scratch.bytes("cache/\(path)") == bytes)
    }

    @Test func thisBootsDirectoryIsTheDefault() throws {
        let (bytes, fingerprint) = chunk(1)
        let cache = CacheDirectory(local: scratch.file("cache"), shards: 2, capacity: 10)
        cache.publish(fingerprint, bytes)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.file("cache")) == [Host.bootID()])
        #expect(CacheDirectory(readOnly: scratch.file("cache"), shards: 2).read(fingerprint, length: bytes.count) == bytes)
        #expect(CacheDirectory(readOnly: scratch.file("cache"), shards: 2, appendInstanceID: false).read(fingerprint, length: bytes.count) == nil)
    }

    @Test func earlierBootsDirectoriesAreRemovedAndNothingElse() throws {
        let old = "01234567-89ab-cdef-0123-456789abcdef"
        let young = "11234567-89ab-cdef-0123-456789abcdef"
        for name in [old, young, "mine", "01234567"] {
            try FileManager.default.createDirectory(atPath: scratch.file("cache/\(name)/0"), withIntermediateDirectories: true)
        }
        let longAgo = Int64(Date().timeIntervalSince1970 - 90_000) * 1_000_000_000
        for name in ["\(old)/0", old, "mine/0", "mine"] {
            #expect(vrn_set_times(AT_FDCWD, scratch.file("cache/\(name)"), longAgo, longAgo) == 0)
        }
        let (bytes, fingerprint) = chunk(1)
        CacheDirectory(local: scratch.file("cache"), shards: 2, capacity: 10).publish(fingerprint, bytes)
        let left = try FileManager.default.contentsOfDirectory(atPath: scratch.file("cache"))
        #expect(Set(left) == [Host.bootID(), young, "mine", "01234567"])
    }

    @Test func aDamagedFileIsAMissAndGoesAway() throws {
        let (bytes, fingerprint) = chunk(1)
        let damages: [(String, [UInt8])] = [
            ("one bit", bytes.enumerated().map { $0 == 100 ? $1 ^ 4 : $1 }), ("cut", Array(bytes.dropLast())),
            ("longer", bytes + [0]), ("empty", []),
        ]
        for (name, damaged) in damages {
            local().publish(fingerprint, bytes)
            let file = "cache/\(try #require(files().first))"
            try scratch.write(damaged, to: file)
            // Not ours to remove, where the cache is only read.
            #expect(readOnly().read(fingerprint, length: bytes.count) == nil, "\(name)")
            #expect(files().count == 1)
            #expect(local().read(fingerprint, length: bytes.count) == nil, "\(name)")
            #expect(files().isEmpty)
            local().publish(fingerprint, bytes)
            #expect(local().read(fingerprint, length: bytes.count) == bytes)
            try scratch.write(damaged, to: file)
            _ = local().read(fingerprint, length: bytes.count)
        }
    }

    @Test func whateverLiesInAFilesPlaceIsAMiss() throws {
        let (bytes, fingerprint) = chunk(1)
        local().publish(fingerprint, bytes)
        let path = scratch.file("cache/\(try #require(files().first))")
        try scratch.write(bytes, to: "elsewhere")
        let obstacles: [() throws -> Void] = [
            { #expect(mkfifo(path, 0o600) == 0) },
            { try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false) },
            { try FileManager.default.createSymbolicLink(atPath: path, withDestinationPath: scratch.file("elsewhere")) },
        ]
        for obstacle in obstacles {
            try Files.removeTree(path)
            try obstacle()
            #expect(local().read(fingerprint, length: bytes.count) == nil)
        }
        #expect(try scratch.bytes("elsewhere") == bytes)
    }

    @Test func aBaseChunkOfAnyLengthIsCachedAndBounded() {
        let bytes = [UInt8](repeating: 3, count: 500_000)
        let fingerprint = FingerprintKey.chunk.fingerprint(bytes)
        local().publish(fingerprint, bytes)
        #expect(local().read(fingerprint, length: nil, limit: 400_000) == nil)
        local().publish(fingerprint, bytes)
        #expect(local().read(fingerprint, length: nil, limit: 500_000) == bytes)
    }

    @Test func theCapacityIsKeptAndWhatWasReadSurvives() {
        let cache = local(shards: 4, capacity: 80)
        // Read again and again while others come and go.
        let kept = (0..<8).map(chunk)
        for (bytes, fingerprint) in kept { cache.publish(fingerprint, bytes) }
        var most = 0
        for i in 100..<1500 {
            let (bytes, fingerprint) = chunk(i)
            cache.publish(fingerprint, bytes)
            if i % 5 == 0 { for (bytes, fingerprint) in kept { _ = cache.read(fingerprint, length: bytes.count) } }
            if i % 50 == 0 { most = max(most, files().count) }
        }
        #expect(most <= 160 && files().count >= 60, "\(most) at most, \(files().count) in the end")
        let survivors = kept.filter { cache.read($0.fingerprint, length: $0.bytes.count) != nil }.count
        #expect(survivors == kept.count)
    }

    /// At most twice the capacity, also where there are more shards than that.
    @Test(arguments: [(10, 1), (100, 20), (100, 99), (100, 101)])
    func aCapacityBelowTheShardsIsKept(shards: Int, capacity: Int) {
        let cache = local(shards: shards, capacity: capacity)
        let chunks = (0..<(capacity < 50 ? 200 : 500)).map(chunk)
        var most = 0
        for (i, (bytes, fingerprint)) in chunks.enumerated() {
            cache.publish(fingerprint, bytes)
            if i % 20 == 19 { most = max(most, files().count) }
        }
        let found = files().count
        #expect(most <= 2 * capacity && found >= (capacity + 1) / 2, "\(most) at most, \(found) in the end")
        // Who only reads knows nothing of the capacity.
        let reader = readOnly(shards: shards)
        #expect(chunks.filter { reader.read($0.fingerprint, length: $0.bytes.count) != nil }.count == found)
    }

    @Test func deadWritersFilesAreRemoved() throws {
        let cache = local(shards: 1, capacity: 2)
        cache.publish(chunk(0).fingerprint, chunk(0).bytes)
        try scratch.write([1], to: "cache/0/.tmp.1.old")
        try scratch.write([1], to: "cache/0/.tmp.1.new")
        let longAgo = Int64(Date().timeIntervalSince1970 - 1000) * 1_000_000_000
        #expect(vrn_set_times(AT_FDCWD, scratch.file("cache/0/.tmp.1.old"), longAgo, longAgo) == 0)
        for i in 1..<10 { cache.publish(chunk(i).fingerprint, chunk(i).bytes) }
        #expect(files().contains("0/.tmp.1.new") && !files().contains("0/.tmp.1.old"))
    }

    @Test func itMayBeDeletedAtAnyTime() throws {
        let cache = local()
        let stop = Flag()
        let root = scratch.file("cache")
        let gone = Flag()
        Thread.detachNewThread {
            while !stop.isSet {
                try? FileManager.default.removeItem(atPath: root)
                usleep(500)
            }
            gone.set()
        }
        var hits = 0
        for i in 0..<3000 {
            let (bytes, fingerprint) = chunk(i % 50)
            cache.publish(fingerprint, bytes)
            if let found = cache.read(fingerprint, length: bytes.count) {
                #expect(found == bytes)
                hits += 1
            }
        }
        stop.set()
        gone.wait()
        #expect(hits > 0)
        cache.publish(chunk(0).fingerprint, chunk(0).bytes)
        #expect(cache.read(chunk(0).fingerprint, length: chunk(0).bytes.count) == chunk(0).bytes)
    }

    @Test func anUnwritableCacheIsNoCache() throws {
        // A file where the directory should be: fails for root, too.
        try scratch.write([], to: "cache")
        let (bytes, fingerprint) = chunk(0)
        local().publish(fingerprint, bytes)
        #expect(local().read(fingerprint, length: bytes.count) == nil)
    }

    @Test func eightProcessesShareOne() throws {
        let processes = try (1...8).map { seed in
            try Helper.start(["cache", scratch.file("cache"), "5", "100", "\(seed)", "3000"])
        }
        var most = 0
        while processes.contains(where: { $0.process.isRunning }) {
            most = max(most, files().filter { !$0.contains(".tmp.") }.count)
            usleep(20_000)
        }
        for process in processes {
            let output = try Helper.finish(process)
            #expect(output.contains("wrong 0"), "\(output)")
            #expect(process.process.terminationStatus == 0)
        }
        #expect(most <= 200 && most > 50, "\(most) files at most")
        #expect(files().filter { $0.contains(".tmp.") }.isEmpty)
    }
}
