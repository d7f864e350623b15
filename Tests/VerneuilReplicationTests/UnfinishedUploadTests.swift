import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// An upload of many chunks that is cut off: by the store, by the end of the process, by a time limit.
@Suite(.serialized) struct UnfinishedUploadTests {
    private static let chunks = 400

    /// By a stranger, whose commits nothing in the background is told of.
    private func fill(_ file: ReplicatedFile) throws {
        try file.connect().rows("CREATE TABLE t(data)")
        #expect(try file.flush() == nil)
        try SQLiteConnection(file.path, vfs: "unix").rows(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(Self.chunks)) INSERT INTO t SELECT randomblob(65000) FROM n")
    }

    private func expectAllStored(_ store: RecordingStore, _ file: ReplicatedFile) throws {
        let copy = "\(file.directory)/copy.db"
        _ = try ReplicatedFile.restored(from: store, path: file.path, to: copy)
        #expect(try Files.read(copy) == Files.read(file.path))
    }

    /// Nothing but what a flush sends.
    private func quiet(_ options: inout ReplicationOptions) {
        options.scanInterval = 3600
        options.passInterval = 3600
        options.manifestInterval = 3600
    }

    @Test(arguments: [true, false]) func whatWasSentIsNotSentAgain(byAnotherProcess: Bool) throws {
        let store = RecordingStore()
        let first = try ReplicatedFile([store], quiet)
        try fill(first)
        let before = store.manifest
        let sent = Counter()
        store.set { request in
            guard request.operation == .put, request.space == .chunks else { return nil }
            sent.add()
            return sent.value > 300 ? .fail(.denied, "no more for now") : nil
        }
        #expect(try first.flush()?.contains("no more for now") == true)
        #expect((store.manifest == before) == true)
        let confirmed = 300
        store.set(nil)
        _ = store.take()
        let second = byAnotherProcess ? try ReplicatedFile([store], sharing: first, quiet) : first
        #expect(try second.flush() == nil)
        let again = store.count(.put, .chunks)
        #expect(again >= Self.chunks - confirmed && again <= Self.chunks - confirmed + 10, "\(again) of \(Self.chunks) chunks were sent the second time")
        try expectAllStored(store, second)
        // With the manifest they are its chunks, and the list of the unfinished upload is gone.
        #expect(try Files.list(second.spooled.directory).allSatisfy { !$0.hasPrefix("sent.") })
    }

    @Test func whatWasSentIsForgottenWithTheBucket() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store], quiet)
        try fill(file)
        #expect(try file.flush() == nil)
        let sent = Counter()
        store.set { request in
            guard request.operation == .put, request.space == .chunks else { return nil }
            sent.add()
            return sent.value > 300 ? .fail(.denied, "no more for now") : nil
        }
        try SQLiteConnection(file.path, vfs: "unix").rows("UPDATE t SET data = randomblob(65000)")
        #expect(try file.flush() != nil)
        // The bucket is emptied: nothing that was confirmed before counts.
        store.removeAll(.chunks)
        store.removeAll(.manifests)
        store.set(nil)
        #expect(try file.flush() == nil)
        try expectAllStored(store, file)
    }

    @Test func aFlushEndsInTimeAndTheNextOneGoesOn() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) {
            quiet(&$0)
            $0.uploadWindow = 4
        }
        try fill(file)
        let before = store.manifest
        _ = store.take()
        store.setDelay(0.05)
        let start = MonotonicTime.now
        // 400 chunks, four at a time: 5 s.
        let reason = try #require(try file.flush(timeout: 1.5))
        #expect(reason.contains("out of time"), "\(reason)")
        #expect(MonotonicTime.now.seconds(since: start) < 4.5)
        #expect((store.manifest == before) == true)
        let done = store.count(.put, .chunks)
        _ = store.take()
        store.setDelay(0)
        #expect(try file.flush() == nil)
        #expect(done > 0 && store.count(.put, .chunks) <= Self.chunks + 10 - done, "\(done) before")
        try expectAllStored(store, file)
    }
}
