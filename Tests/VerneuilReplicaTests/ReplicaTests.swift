import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore

@Suite struct ReplicaTests {
    private let store = MemoryStore("first")
    private let second = MemoryStore("second")

    private func registry(_ stores: [any ObjectStore], policy: LoadingPolicy = .default) -> ReplicaRegistry {
        ReplicaRegistry(ReplicaEnvironment(stores: stores, policy: policy))
    }
    private func replica(_ writer: StoreWriter, in registry: ReplicaRegistry) -> Replica {
        registry.replica(at: .manifest(name: writer.manifestName))
    }
    /// Bytes of a made-up database: 16 chunks, each different, the change counter where SQLite has it.
    private func database(_ counter: UInt8, chunks: Int = 16) -> [UInt8] {
        var bytes: [UInt8] = []
        for i in 0..<chunks {
            bytes += [UInt8](repeating: UInt8(truncatingIfNeeded: i) &+ counter &* 16, count: Chunk.size)
            bytes[bytes.count - 1] = UInt8(i / 256)
        }
        bytes[24...27] = [0, 0, 0, counter]
        return bytes
    }
    private func content(_ snapshot: Snapshot) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(snapshot.length))
        let count = try bytes.withUnsafeMutableBytes { try snapshot.read(into: $0, at: 0) }
        #expect(count == bytes.count)
        return bytes
    }

    @Test func aSnapshotHasTheManifestsFactsAndTheDatabasesBytes() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        let manifest = try writer.store(database(1) + [1, 2, 3], ctime: (77, 5))
        let registry = registry([store])
        let snapshot = try replica(writer, in: registry).open()
        #expect(snapshot.length == UInt64(16 * Chunk.size + 3))
        #expect(snapshot.ctime.seconds == 77 && snapshot.ctime.nanoseconds == 5)
        #expect(snapshot.contentsFingerprint == manifest.contentsFingerprint)
        #expect(snapshot.headerFingerprint == manifest.headerFingerprint)
        #expect(try content(snapshot) == database(1) + [1, 2, 3])
    }

    @Test func allWhoOpenALocationShareAReplica() throws {
        let registry = registry([store])
        let location = ReplicaLocation.manifest(name: "x")
        let first = registry.replica(at: location)
        #expect(registry.replica(at: location) === first)
        #expect(registry.replica(at: .manifest(name: "y")) !== first)
    }

    @Test func anUnchangedManifestIsAskedForByItsTagAndKeepsTheSnapshot() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        try writer.store(database(1))
        let registry = registry([store])
        let replica = replica(writer, in: registry)
        let snapshot = try replica.open()
        let asked = Counter()
        store.setFault { request in
            if request.unlessTag != nil { asked.add() }
            return nil
        }
        let before = snapshot.updated
        #expect(try replica.refresh() === snapshot)
        #expect(asked.value == 1 && snapshot.updated > before)
        try writer.store(database(2))
        #expect(try replica.refresh() !== snapshot)
    }

    @Test func concurrentRefreshesShareFetchesThatBeginAfterThem() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        try writer.store(database(1))
        let registry = registry([store])
        let replica = replica(writer, in: registry)
        _ = try replica.open()
        _ = store.takeLog()
        store.setDelay(0.1)
        let done = Counter()
        for _ in 0..<20 {
            Thread.detachNewThread {
                if (try? replica.refresh()) != nil { done.add() }
            }
        }
        while done.value < 20 { usleep(1000) }
        // One was under way when most came; one more for all of those.
        let fetches = store.takeLog().filter { $0 == writer.manifestName }.count
        #expect(fetches >= 1 && fetches <= 3, "\(fetches) fetches")
    }

    @Test func anotherStoresOlderVersionIsNotTaken() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        let late = StoreWriter(path: "/a.db", stores: [second])
        try late.store(database(1), ctime: (1000, 0))
        try writer.store(database(2), ctime: (2000, 0))
        let registry = registry([store, second])
        let replica = replica(writer, in: registry)
        let snapshot = try replica.open()
        store.setFault { $0.space == .manifests ? .unavailable : nil }
        #expect(try replica.refresh() === snapshot)
        // A newer one is welcome from anyone.
        try late.store(database(3), ctime: (3000, 0))
        #expect(try content(replica.refresh()) == database(3))
        // Without a ctime the change counter decides.
        store.setFault(nil)
        try writer.store(database(2), ctime: (0, 0))
        #expect(try content(replica.refresh()) == database(3))
        try writer.store(database(4), ctime: (0, 0))
        #expect(try content(replica.refresh()) == database(4))
        // The same store may go back: its database was restored.
        try writer.store(database(1), ctime: (500, 0))
        #expect(try content(replica.refresh()) == database(1))
    }

    @Test func aBaseChunkIsFetchedOnceForManyManifests() throws {
        let writer = StoreWriter(path: "/big.db", stores: [store])
        try writer.store(database(1, chunks: 320))
        let registry = registry([store], policy: .partial(min: 0, max: 0))
        let replica = replica(writer, in: registry)
        let first = try replica.open()
        let stored = try StoredManifest(decoding: try #require(store.body(.manifests, writer.manifestName)))
        let base = try #require(stored.baseChunk).chunkName
        #expect(store.takeLog().contains(base))
        for i in 2..<6 {
            try writer.store(database(UInt8(i), chunks: 320))
            let snapshot = try replica.refresh()
            #expect(try content(snapshot) == database(UInt8(i), chunks: 320))
        }
        #expect(!store.takeLog().contains(base))
        #expect(try content(first) == database(1, chunks: 320))
    }

    @Test func aDamagedBaseChunkOrManifestIsAnErrorAndKeepsTheOldSnapshot() throws {
        let writer = StoreWriter(path: "/big.db", stores: [store])
        try writer.store(database(1, chunks: 320))
        let registry = registry([store])
        let replica = replica(writer, in: registry)
        let stored = try StoredManifest(decoding: try #require(store.body(.manifests, writer.manifestName)))
        let base = try #require(stored.baseChunk).chunkName
        store.setFault { $0.key == base ? .body(Array("no".utf8)) : nil }
        let failure = #expect(throws: ReplicaError.self) { try replica.open() }
        #expect(failure?.description.contains(base) == true)
        store.setFault(nil)
        let snapshot = try replica.open()
        store.setFault { $0.space == .manifests ? .body(Array("no manifest".utf8)) : nil }
        #expect(throws: ReplicaError.self) { try replica.refresh() }
        #expect(replica.newest === snapshot)
        #expect(try content(snapshot) == database(1, chunks: 320))
    }

    @Test func snapshotsShareChunksAndTheirRoomIsGivenBack() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        var bytes = database(1, chunks: 200)
        try writer.store(bytes)
        let registry = registry([store])
        var replica: Replica? = replica(writer, in: registry)
        var snapshots: [Snapshot] = [try #require(replica).open()]
        _ = try content(snapshots[0])
        #expect(registry.cache.usage.loaded == 200)
        for i in 0..<10 {
            bytes[i * 100_000] ^= 0xFF
            try writer.store(bytes)
            snapshots.append(try #require(replica).refresh())
            #expect(try content(try #require(snapshots.last)) == bytes)
        }
        #expect(registry.cache.usage.loaded == 210)
        #expect(registry.cache.usage.bytesOnDisk >= 210 * 65536)
        snapshots.removeFirst(10)
        // Only the newest is left: 200 chunks, and the disk has the others' room back.
        #expect(registry.cache.usage.loaded == 200 && registry.cache.usage.entries == 200)
        #expect(registry.cache.usage.bytesOnDisk <= 201 * 65536)
        snapshots = []
        replica = nil
        #expect(registry.cache.usage.loaded == 0 && registry.cache.usage.entries == 0)
        #expect(registry.cache.usage.bytesOnDisk == 0)
    }

    @Test func zerosAndEqualChunksTakeNoRoom() throws {
        let writer = StoreWriter(path: "/a.db", stores: [store])
        writer.bundlesFirstChunk = false
        var bytes = [UInt8](repeating: 0, count: 100 * Chunk.size)
        bytes += [UInt8](repeating: 5, count: 100 * Chunk.size)
        try writer.store(bytes)
        let registry = registry([store])
        let snapshot = try replica(writer, in: registry).open()
        #expect(try content(snapshot) == bytes)
        #expect(registry.cache.usage.loaded == 1 && registry.cache.usage.entries == 1)
        #expect(store.takeLog().count == 2)
    }

    @Test func aManifestThatLiesAboutTheLastChunksLengthSpoilsNobodyElses() throws {
        let honest = StoreWriter(path: "/a.db", stores: [store])
        let bytes = database(1) + [UInt8](repeating: 200, count: 1000)
        let manifest = try honest.store(bytes)
        var lie = manifest
        lie.length -= 10
        let name = "liar"
        try store.put(PutRequest(.manifests, name, Body.compressManifest(lie.encoded(base: nil))))
        let registry = registry([store], policy: .partial(min: 0, max: 0))
        let liar = try registry.replica(at: .manifest(name: name)).open()
        #expect(throws: ReplicaError.self) { try content(liar) }
        #expect(try content(try replica(honest, in: registry).open()) == bytes)
    }

    /// Issue 6.4: 4 GiB scanned cost 64 MiB of anonymous memory at most, and few mappings.
    @Test func aScanLeavesTheMemoryAlone() throws {
        let chunks = Int(ProcessInfo.processInfo.environment["VERNEUIL_TEST_SCAN_GIB"] ?? "").map { $0 << 14 } ?? 4096
        let store = GeneratedStore(chunks: chunks)
        let registry = registry([store])
        let before = try Memory.anonymous()
        let snapshot = try registry.replica(at: .manifest(name: GeneratedStore.manifestName)).open()
        var most = 0
        for i in 0..<chunks {
            if i % 64 == 0 { snapshot.loadAhead(i..<min(i + 128, chunks)) }
            let address = try snapshot.address(ofChunk: i)
            let first = try #require(UnsafePointer<UInt64>(bitPattern: address))
            #expect(first[0] == UInt64(i + 1) && first[8191] == UInt64(i + 1))
            if i % 1024 == 0 { most = max(most, try Memory.anonymous() - before) }
        }
        most = max(most, try Memory.anonymous() - before)
        let usage = registry.cache.usage
        print("scan of \(chunks / 16) MiB: \(most >> 20) MiB of anonymous memory, \(usage.mappings) mappings, \(usage.bytesOnDisk >> 20) MiB on disk")
        #expect(usage.loaded == chunks)
        #expect(most < 64 << 20)
        #expect(usage.mappings <= 12)
    }
}
