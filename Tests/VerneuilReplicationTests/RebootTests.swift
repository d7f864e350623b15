import CVerneuil
import FormatTestSupport
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// After a reboot the spool is empty, but the store isn't: what is there, and known from the store itself to be there, is
/// not sent again; and no manifest refers to what isn't (P2).
@Suite(.serialized) struct RebootTests {
    private func boot(
        _ number: Int, _ store: RecordingStore, sharing other: ReplicatedFile? = nil, _ clock: FakeClock? = nil
    ) throws -> ReplicatedFile {
        try ReplicatedFile([store], sharing: other, spool: "spool-\(number)") {
            $0.identity = WriterIdentity(machine: String(repeating: "a", count: 32), boot: "\(number)")
            // Only what is flushed is sent.
            $0.scanInterval = 3600
            if let clock { $0.clock = { clock.now } }
        }
    }

    /// Makes a database of so many chunks and stores it. The connection is closed when it returns.
    private func fill(_ file: ReplicatedFile, chunks: Int) throws -> [Fingerprint] {
        let db = try file.connect()
        try db.rows("PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[\(Array(repeating: "1", count: chunks).joined(separator: ","))]')")
        #expect(try file.flush() == nil)
        return try stored(file)
    }

    private func stored(_ file: ReplicatedFile) throws -> [Fingerprint] {
        try file.spooled.storedChunks(file.replicator.targets[0].identifier) ?? []
    }

    private func change(_ file: ReplicatedFile, rows: Int) throws {
        try file.connect().rows("UPDATE t SET data = randomblob(65000) WHERE id % 7 = 3 AND id < \(7 * rows)")
    }

    private func isRestorable(_ store: RecordingStore, _ file: ReplicatedFile) throws -> Bool {
        let out = "\(file.directory)/restored-\(UInt64.random(in: 0 ... .max)).db"
        return try ReplicatedFile.restored(from: store, path: file.path, to: out).value("PRAGMA integrity_check") == "ok"
    }

    private func count(_ requests: [RecordingStore.Request], _ operation: RecordingStore.Operation, _ space: ObjectSpace) -> Int {
        requests.filter { $0.operation == operation && $0.space == space }.count
    }

    /// With a base chunk (from 300 chunks on) and without.
    @Test(arguments: [60, 330]) func onlyWhatChangedIsSentAgain(_ chunks: Int) throws {
        let store = RecordingStore()
        let before = try boot(1, store)
        let old = try fill(before, chunks: chunks)
        _ = store.take()
        let after = try boot(2, store, sharing: before)
        try change(after, rows: 4)
        #expect(try after.flush() == nil)
        let new = try stored(after)
        let changed = new.filter { !old.contains($0) }.count
        let requests = store.take()
        #expect(changed >= 4 && changed <= 16, "\(changed) of \(new.count)")
        #expect(count(requests, .put, .chunks) == changed)
        #expect(count(requests, .touch, .chunks) == 0)
        #expect(count(requests, .list, .chunks) == 1)
        // Two at most: a commit may be on its way when the flush begins.
        #expect(count(requests, .put, .manifests) <= 2)
        #expect(count(requests, .get, .chunks) == (chunks >= 300 ? 1 : 0))
        #expect(try isRestorable(store, after))
        // Ages are the store's: nothing has to be touched because of the reboot.
        let hours = try ChunkAges(after.spooled, after.replicator.targets[0].identifier, list: new).hours
        #expect(zip(new, hours).allSatisfy { $0 == Chunk.zeroFingerprint || $1 != 0 })
    }

    @Test func nothingChangedNothingButTheManifestIsSent() throws {
        let store = RecordingStore()
        let before = try boot(1, store)
        _ = try fill(before, chunks: 60)
        _ = store.take()
        let after = try boot(2, store, sharing: before)
        #expect(after.replicator.sync(path: after.path) == nil)
        let requests = store.take()
        #expect(count(requests, .put, .chunks) == 0 && count(requests, .put, .manifests) == 1)
        #expect(try isRestorable(store, after))
    }

    @Test func whereTheBucketCantBeListedChunksAreTouchedBeforeTheManifest() throws {
        let store = RecordingStore()
        let before = try boot(1, store)
        let old = try fill(before, chunks: 60)
        _ = store.take()
        store.set { $0.operation == .list ? .fail(.denied, "s3:ListBucket") : nil }
        let after = try boot(2, store, sharing: before)
        #expect(after.replicator.sync(path: after.path) == nil)
        let requests = store.take()
        #expect(count(requests, .put, .chunks) == 0)
        #expect(count(requests, .touch, .chunks) == Set(old).subtracting([Chunk.zeroFingerprint]).count)
        #expect(requests.last { $0.operation != .get }?.space == .manifests)
    }

    /// A page is much too small for the bucket: LIST would cost more than it saves.
    @Test func aBucketWithMuchElseIsNotListed() throws {
        let store = RecordingStore(pageSize: 3)
        let before = try boot(1, store)
        let old = try fill(before, chunks: 60)
        var random = SeededGenerator(for: "aBucketWithMuchElseIsNotListed")
        for _ in 0..<2000 {
            let other = Fingerprint(primary: random.next(), secondary: 1)
            try store.put(PutRequest(.chunks, other.chunkName, [1]))
        }
        _ = store.take()
        let after = try boot(2, store, sharing: before)
        #expect(after.replicator.sync(path: after.path) == nil)
        let requests = store.take()
        #expect(count(requests, .put, .chunks) == 0)
        // Names are hashes: a bucket that looks small enough by its first three would be one of thousands.
        #expect(count(requests, .list, .chunks) <= 5)
        #expect(count(requests, .touch, .chunks) >= Set(old).count - 1 - 15)
        #expect(try isRestorable(store, after))
    }

    @Test(arguments: [true, false]) func aChunkThatTheStoreLostMeanwhileIsSentAgain(_ canList: Bool) throws {
        let store = RecordingStore()
        let before = try boot(1, store)
        _ = try fill(before, chunks: 60)
        let lost = try #require(store.removeOne(.chunks))
        _ = store.take()
        if !canList { store.set { $0.operation == .list ? .fail(.denied, "s3:ListBucket") : nil } }
        let after = try boot(2, store, sharing: before)
        #expect(after.replicator.sync(path: after.path) == nil)
        let puts = store.take().filter { $0.operation == .put }
        #expect(puts.map { "\($0.space?.rawValue ?? "")/\($0.key)" }.dropLast() == [lost])
        #expect(puts.last?.space == .manifests)
        #expect(try isRestorable(store, after))
    }

    /// The machine was off for longer than chunks may go untouched.
    @Test func whatHasGrownTooOldIsTouchedBeforeAManifestRefersToIt() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore(clock: { clock.now })
        let before = try boot(1, store, clock)
        let old = try fill(before, chunks: 60)
        let lost = try #require(store.removeOne(.chunks))
        clock.advance(20 * 86_400)
        let later = FakeClock(clock.now)
        _ = store.take()
        let after = try boot(2, store, sharing: before, later)
        #expect(after.replicator.sync(path: after.path) == nil)
        let requests = store.take()
        let manifest = try #require(requests.firstIndex { $0.operation == .put && $0.space == .manifests })
        let touched = requests[..<manifest].filter { $0.operation == .touch }.count
        #expect(touched == Set(old).subtracting([Chunk.zeroFingerprint]).count)
        #expect(requests.contains { $0.operation == .put && "chunks/\($0.key)" == lost })
        #expect(store.modified.allSatisfy { $0.value == clock.now })
    }

    /// Within one boot: nobody had the database open for longer than that, so that no patrol came.
    @Test func whatNobodyKeptAliveIsAskedForBeforeAManifestRefersToIt() throws {
        let clock = FakeClock(wallClock().seconds)
        let store = RecordingStore(clock: { clock.now })
        let before = try boot(1, store, FakeClock(clock.now))
        let old = Set(try fill(before, chunks: 60)).subtracting([Chunk.zeroFingerprint])
        clock.advance(20 * 86_400)
        let after = try boot(1, store, sharing: before, clock)
        // Neither a patrol nor a copier in the background comes first.
        store.set { $0.urgency == .background ? .fail(.unavailable, "not now") : nil }
        _ = store.take()
        try change(after, rows: 2)
        #expect(try after.flush() == nil)
        let kept = Set(try stored(after)).intersection(old)
        let requests = store.take().filter { $0.urgency == .flush }
        let manifest = try #require(requests.firstIndex { $0.operation == .put && $0.space == .manifests })
        #expect(kept.count >= 40)
        #expect(Set(requests[..<manifest].filter { $0.operation == .touch }.map(\.key)) == Set(kept.map(\.chunkName)))
        // The same again, and the store has lost one.
        clock.advance(20 * 86_400)
        let lost = try stored(after)[50].chunkName
        store.remove(.chunks, lost)
        // By another process: this one remembers what it touched within the hour.
        let later = try boot(1, store, sharing: before, clock)
        try change(later, rows: 3)
        #expect(try later.flush() == nil)
        #expect(store.take().contains { $0.operation == .put && $0.key == lost })
        #expect(try isRestorable(store, later))
    }
}
