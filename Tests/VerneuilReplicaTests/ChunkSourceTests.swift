import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

@Suite struct ChunkSourceTests {
    private let store = MemoryStore("first")
    private let second = MemoryStore("second")

    private func put(_ bytes: [UInt8], in stores: [MemoryStore]) throws -> Fingerprint {
        let fingerprint = FingerprintKey.chunk.fingerprint(bytes)
        for store in stores {
            try store.put(PutRequest(.chunks, fingerprint.chunkName, bytes.withUnsafeBytes { Body.compress($0) }))
        }
        return fingerprint
    }
    private func failure(_ body: () throws -> Void) -> FetchError? {
        do {
            try body()
            return nil
        } catch {
            guard case .fetch(let error)? = error as? ReplicaError else { return nil }
            return error
        }
    }

    @Test func theFirstSourceThatHasAGoodChunkGivesIt() throws {
        let scratch = try Scratch()
        let cache = CacheDirectory(local: scratch.file("cache"), shards: 2, capacity: 10)
        let bytes = Array("a chunk".utf8)
        let name = try put(bytes, in: [store, second])
        let source = ChunkSource(caches: [cache], stores: [store, second])
        #expect(try source.chunk(name, length: bytes.count) == bytes)
        #expect(store.takeLog() == [name.chunkName] && second.takeLog() == [])
        // By now it is in the cache.
        while cache.read(name, length: bytes.count) == nil { usleep(1000) }
        #expect(try source.chunk(name, length: bytes.count) == bytes)
        #expect(store.takeLog() == [])
    }

    @Test func anErrorNamesTheObjectAndWhatEachSourceHad() throws {
        let bytes = Array("a chunk".utf8)
        let name = try put(bytes, in: [second])
        second.setFault { _ in .body(Array("something else".utf8)) }
        let third = MemoryStore("third")
        third.setFault { _ in .unavailable }
        let source = ChunkSource(caches: [], stores: [store, second, third])
        let error = try #require(failure { _ = try source.chunk(name, length: bytes.count) })
        #expect(error.object == "chunk \(name.chunkName)")
        #expect(error.attempts.map(\.source) == ["first", "second", "third"])
        #expect(error.attempts.map(\.outcome) == [.missing, .damaged, .unavailable])
        #expect(!error.isMissing)
        for part in [name.chunkName, "first", "no such object", "second", "\(bytes.count) bytes expected", "told to fail"] {
            #expect(error.description.contains(part), "\(error) lacks \(part)")
        }
        #expect(failure { _ = try ChunkSource(caches: [], stores: [store]).chunk(name, length: 7) }?.isMissing == true)
        #expect(failure { _ = try ChunkSource(caches: [], stores: []).chunk(name, length: 7) }?.isMissing == false)
    }

    @Test func bothHalvesOfTheFingerprintAndTheLengthMustMatch() throws {
        let bytes = Array("a chunk".utf8)
        let name = try put(bytes, in: [store])
        let body = try #require(store.body(.chunks, name.chunkName))
        let source = ChunkSource(caches: [], stores: [store])
        for wrong in [
            Fingerprint(primary: name.primary ^ 1, secondary: name.secondary),
            Fingerprint(primary: name.primary, secondary: name.secondary ^ 1 << 63),
        ] {
            try store.put(PutRequest(.chunks, wrong.chunkName, body))
            #expect(failure { _ = try source.chunk(wrong, length: bytes.count) }?.attempts.first?.outcome == .damaged)
        }
        for length in [bytes.count - 1, bytes.count + 1, Chunk.size] {
            #expect(failure { _ = try source.chunk(name, length: length) }?.attempts.first?.outcome == .damaged)
        }
        #expect(try source.chunk(name, length: bytes.count) == bytes)
    }

    @Test func damagedFilesOfACacheAreReplacedFromTheStore() throws {
        let scratch = try Scratch()
        let cache = CacheDirectory(local: scratch.file("cache"), shards: 1, capacity: 10, appendInstanceID: false)
        let bytes = Array("a chunk".utf8)
        let name = try put(bytes, in: [store])
        cache.publish(name, bytes)
        try scratch.write(Array("a chump".utf8), to: "cache/0/\(name.chunkName)")
        #expect(try ChunkSource(caches: [cache], stores: [store]).chunk(name, length: bytes.count) == bytes)
        while cache.read(name, length: bytes.count) == nil { usleep(1000) }
        #expect(try scratch.bytes("cache/0/\(name.chunkName)") == bytes)
    }

    @Test func noMoreRequestsAreInFlightThanAreAllowed() throws {
        let chunks = try (0..<200).map { i in try put(Array("chunk \(i)".utf8), in: [store]) }
        store.setDelay(0.005)
        for parallelism in [1, 8, 64] {
            let source = ChunkSource(caches: [], stores: [store], parallelism: parallelism)
            _ = store.takeMostInFlight()
            let done = Counter()
            for (i, chunk) in chunks.enumerated() {
                source.start(ChunkSource.Request(chunk, length: "chunk \(i)".utf8.count, priority: .ahead) { result in
                    if case .success(let bytes) = result, bytes == Array("chunk \(i)".utf8) { done.add() }
                })
            }
            let deadline = Date().addingTimeInterval(20)
            while done.value < chunks.count, Date() < deadline { usleep(1000) }
            #expect(done.value == chunks.count)
            #expect(store.takeMostInFlight() == parallelism)
        }
    }

    /// A source that has asked for as many chunks ahead as it may, none of which is answered until the test ends; of the last
    /// chunk the store answers at once.
    private func whileOthersHang(
        _ startsLast: Bool, _ body: (ChunkSource, _ last: (chunk: Fingerprint, length: Int), ChunkSource.Request, Flag) throws -> Void
    ) throws {
        let chunks = try (0..<100).map { i in try put(Array("chunk \(i)".utf8), in: [store]) }
        let key = chunks[99].chunkName
        store.setFault { $0.key == key ? nil : .hang }
        let source = ChunkSource(caches: [], stores: [store], parallelism: 4)
        let (answered, isLastThere) = (Counter(), Flag())
        func request(_ i: Int) -> ChunkSource.Request {
            ChunkSource.Request(chunks[i], length: "chunk \(i)".utf8.count, priority: .ahead) { _ in
                if i == 99 { isLastThere.set() } else { answered.add() }
            }
        }
        for i in 0..<99 { source.start(request(i)) }
        let last = request(99)
        if startsLast { source.start(last) }
        try body(source, (chunks[99], "chunk 99".utf8.count), last, isLastThere)
        let end = Date().addingTimeInterval(60)
        while !isLastThere.isSet, Date() < end { usleep(1000) }
        #expect(isLastThere.isSet)
        #expect(answered.value == 0)
        #expect(store.takeLog().count <= 5)
        store.setFault(nil)
        while answered.value < 99 {
            store.release()
            usleep(1000)
        }
    }

    @Test func whoWaitsGoesBeforeWhatIsLoadedAhead() throws {
        try whileOthersHang(false) { source, last, _, isThere in
            Thread.detachNewThread {
                _ = try? source.chunk(last.chunk, length: last.length)
                isThere.set()
            }
        }
    }

    @Test func whatSomebodyBeginsToWaitForIsHurried() throws {
        try whileOthersHang(true) { source, _, request, isThere in
            usleep(20_000)
            #expect(!isThere.isSet)
            source.hurry(request, .urgent)
        }
    }

    @Test func anErrorSaysWhatWasExpectedAndFound() throws {
        let (good, bad) = (Array("a chunk".utf8), Array("a chump".utf8))
        let name = try put(good, in: [store])
        let found = FingerprintKey.chunk.fingerprint(bad).chunkName
        for body in [bad, bad.withUnsafeBytes { Body.compress($0) }] {
            store.setFault { _ in .body(body) }
            let error = try #require(failure { _ = try ChunkSource(caches: [], stores: [store]).chunk(name, length: good.count) })
            for part in [name.chunkName, found, "\(good.count) bytes expected"] { #expect(error.description.contains(part), "\(error)") }
        }
    }

    /// Issue 6.3: a body of some KiB that unpacks to hundreds of MiB costs no more than what was wanted.
    @Test func aBodyThatUnpacksToMuchTakesLittleMemory() throws {
        let bomb = [UInt8](repeating: 0, count: 300 << 20).withUnsafeBytes { Body.compress($0, level: 1) }
        #expect(bomb.count < 64 << 10)
        store.setFault { _ in .body(bomb) }
        let name = FingerprintKey.chunk.fingerprint([1])
        let source = ChunkSource(caches: [], stores: [store])
        let chunk = try Memory.peak {
            #expect(failure { _ = try source.chunk(name, length: Chunk.size) }?.attempts.first?.outcome == .damaged)
        }
        // The manifest of a database of one chunk: its base chunk may have 16 MiB.
        let writer = StoreWriter(path: "/a.db", stores: [second])
        var manifest = try writer.store([1, 2, 3])
        manifest.baseChunk = name
        let stored = try StoredManifest(decoding: manifest.encoded(base: []))
        let base = try Memory.peak {
            #expect(failure { _ = try ManifestSource(chunks: source).resolve(stored) }?.object == "base chunk \(name.chunkName)")
        }
        print("300 MiB of zeros in \(bomb.count) bytes: \(chunk >> 10) KiB as a chunk, \(base >> 10) KiB as a base chunk")
        #expect(chunk < 8 << 20 && base < 64 << 20)
    }

    /// FORMAT 6.2: what a longer base chunk has in excess is ignored. The original goes on with a base of long ago, after a
    /// database has shrunk.
    @Test(arguments: [true, false]) func aBaseChunkMayBeLongerThanTheListByFar(isRandom: Bool) throws {
        let scratch = try Scratch()
        let database = [UInt8](repeating: 7, count: 3 * Chunk.size)
        let writer = StoreWriter(path: "/a.db", stores: [store])
        var manifest = try writer.store(database)
        // 20 MiB, of a database of 80 GiB: of fingerprints, which don't compress, or of a file with more holes than content.
        var generator = SeededGenerator(seed: 20)
        let words = (0..<(20 << 20) / 8).map { isRandom || $0 % 50 == 0 ? generator.next() : 0 }
        let base = words.map(\.littleEndian).withUnsafeBytes { [UInt8]($0) }
        let name = try put(base, in: [store])
        manifest.baseChunk = name
        try store.put(PutRequest(.manifests, writer.manifestName, manifest.encoded(base: words)))
        let cache = CacheDirectory(local: scratch.file("cache"), shards: 1, capacity: 10)
        for caches in [[], [cache], [cache]] {
            let chunks = ChunkSource(caches: caches, stores: [store])
            let manifests = ManifestSource(chunks: chunks)
            let stored = try manifests.fetch(.manifest(name: writer.manifestName)).manifest
            #expect(stored.baseChunk == name)
            _ = store.takeLog()
            #expect(try manifests.resolve(stored).chunks == manifest.chunks)
            let out = scratch.file("out.db")
            _ = try Restore(manifests.resolve(stored), from: chunks).write(to: out)
            #expect(try Files.read(out) == database)
            try Files.remove(out)
        }
        // The last time, the cache had it.
        #expect(!store.takeLog().contains(name.chunkName))
    }

    @Test func aBaseChunkIsVerifiedAndBounded() throws {
        let bytes = [UInt8](repeating: 9, count: 1_000_000)
        let name = try put(bytes, in: [second])
        store.setFault { _ in .body([1, 2, 3]) }
        let source = ChunkSource(caches: [], stores: [store, second])
        #expect(try source.baseChunk(name, limit: 1_000_000) == bytes)
        let error = try #require(failure { _ = try source.baseChunk(name, limit: 999_999) })
        #expect(error.attempts.map(\.outcome) == [.damaged, .damaged])
        #expect(error.object == "base chunk \(name.chunkName)")
    }

    @Test func manifestsComeFromTheFirstStoreThatHasAGoodOne() throws {
        let database = [UInt8](repeating: 1, count: 100_000)
        let writer = StoreWriter(path: "/srv/x.db", stores: [second])
        let manifest = try writer.store(database)
        try store.put(PutRequest(.manifests, writer.manifestName, Array("garbage".utf8)))
        let manifests = ManifestSource(chunks: ChunkSource(caches: [], stores: [store, second]))
        let location = ReplicaLocation.manifest(name: writer.manifestName)
        let stored = try manifests.fetch(location)
        #expect(stored.origin == .store(1))
        #expect(try manifests.resolve(stored.manifest) == manifest)
        second.remove(.manifests, writer.manifestName)
        let error = try #require(failure { _ = try manifests.fetch(location) })
        #expect(error.attempts.map(\.outcome) == [.damaged, .missing])
    }

    @Test func locationsAreManifestFilesOrNamedByHostAndPath() throws {
        #expect(try ReplicaLocation("verneuil://h.example.com/a/b.db", host: "me") == .manifest(name: ManifestName.make(host: "h.example.com", path: "/a/b.db")))
        #expect(try ReplicaLocation("verneuil:///a/b.db", host: "me") == .manifest(name: ManifestName.make(host: "me", path: "/a/b.db")))
        #expect(try ReplicaLocation("/a/b", host: "me") == .file("/a/b"))
        for bad in ["verneuil://", "verneuil:///", "verneuil://host", "verneuil://host/"] {
            #expect(throws: ReplicaError.self) { try ReplicaLocation(bad, host: "me") }
        }
        // On this machine, the path is what its writer makes of it.
        let scratch = try Scratch()
        try scratch.write([], to: "db")
        try FileManager.default.createSymbolicLink(atPath: scratch.file("link"), withDestinationPath: scratch.file("db"))
        #expect(try ReplicaLocation("verneuil://\(scratch.file("link"))", host: "me") == ReplicaLocation("verneuil://me\(scratch.file("db"))", host: "me"))
        #expect(try ReplicaLocation("verneuil://you\(scratch.file("link"))", host: "me") == .manifest(name: ManifestName.make(host: "you", path: scratch.file("link"))))
    }
}
