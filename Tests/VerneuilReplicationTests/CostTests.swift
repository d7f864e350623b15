import CVerneuil
import MetricsTestKit
import CoreMetrics
import ReplicaTestSupport
import TestServers
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilS3
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// What replication costs, counted in requests.
@Suite(.serialized) struct CostTests {
    @Test func nChangedChunksTakeNPutsAndOneForTheManifest() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) SELECT randomblob(130000) FROM json_each('[\(Array(repeating: "1", count: 30).joined(separator: ","))]')")
        #expect(try file.flush() == nil)
        for rows in [1, 3, 7] {
            let before = try file.spooled.storedChunks(file.replicator.targets[0].identifier) ?? []
            _ = store.take()
            try db.rows("UPDATE t SET data = randomblob(130000) WHERE id % 4 = 0 AND id <= \(rows * 4)")
            #expect(eventually { store.count(.put, .manifests) == 1 })
            #expect(eventually { file.report().lag == 0 })
            let after = try file.spooled.storedChunks(file.replicator.targets[0].identifier) ?? []
            let changed = zip(before, after).filter { $0 != $1 }.count + max(0, after.count - before.count)
            let requests = store.take()
            #expect(changed >= 2 * rows)
            #expect(requests.filter { $0.operation == .put && $0.space == .chunks }.count == changed)
            #expect(requests.count == changed + 1, "\(requests.map(\.operation))")
        }
    }

    @Test func equalChunksOfTwoDatabasesAreSentOnce() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        do {
            let db = try file.connect()
            try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
            try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[\(Array(repeating: "1", count: 40).joined(separator: ","))]')")
            #expect(try file.flush() == nil)
        }
        let first = Set(store.take().filter { $0.operation == .put && $0.space == .chunks }.map(\.key))
        #expect(first.count >= 40)
        let path = "\(file.directory)/copy.db"
        try Files.writeAtomically(try #require(try Files.read(file.path)), to: path)
        let copy = try SQLiteConnection(path, vfs: "verneuil")
        try copy.rows("UPDATE t SET data = randomblob(65000) WHERE id = 20")
        let status = try #require(try Files.status(path))
        let spooled = SpoolDatabase(file.replicator.spool, path: path, device: status.device, inode: status.inode)
        #expect(file.replicator.flush(spooled, timeout: 60) == nil)
        let second = store.take().filter { $0.operation == .put && $0.space == .chunks }.map(\.key)
        #expect(!second.isEmpty && second.count <= 4, "\(second.count)")
        #expect(first.isDisjoint(with: second))
        let restored = try ReplicatedFile.restored(from: store, path: path, to: "\(file.directory)/restored.db")
        #expect(try restored.value("PRAGMA integrity_check") == "ok")
    }

    @Test func whatIsKnownToBeStoredIsForgottenAfterAnHourAndBounded() throws {
        final class Time: @unchecked Sendable { var now = MonotonicTime(nanoseconds: 1_000_000_000_000) }
        let time = Time()
        let recent = RecentChunks { time.now }
        func chunk(_ i: Int) -> Fingerprint { Fingerprint(primary: UInt64(i), secondary: 7) }
        // One each minute: none is believed for longer than an hour, all of them for half of one.
        for minute in 0..<300 {
            recent.insert(chunk(minute))
            for i in 0...minute {
                let isThere = recent.contains(chunk(i))
                if minute - i < 30 { #expect(isThere, "\(minute - i) minutes") }
                if minute - i >= 60 { #expect(!isThere, "\(minute - i) minutes") }
            }
            time.now = time.now.advanced(seconds: 60)
        }
        // Nobody asks for a while.
        time.now = time.now.advanced(seconds: 3600)
        #expect(!recent.contains(chunk(299)))
        for i in 0..<200_000 { recent.insert(chunk(1000 + i)) }
        let kept = (0..<200_000).filter { recent.contains(chunk(1000 + $0)) }.count
        #expect(kept >= RecentChunks.capacity && kept <= 2 * RecentChunks.capacity)
        recent.removeAll()
        #expect(!recent.contains(chunk(200_999)))
    }

    @Test func manifestsKeepTheirDistance() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store]) { $0.manifestInterval = 0.5 }
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data)")
        let began = MonotonicTime.now
        while MonotonicTime.now.seconds(since: began) < 3 {
            try db.rows("INSERT INTO t VALUES(1)")
            usleep(5000)
        }
        let times = store.take().filter { $0.operation == .put && $0.space == .manifests }.map(\.at)
        #expect(times.count >= 3 && times.count <= 7, "\(times.count) manifests in 3 s")
        for (a, b) in zip(times, times.dropFirst()) { #expect(b.seconds(since: a) >= 0.49) }
    }

    /// With a real server, and a proxy that counts.
    @Test func theBudgetsHoldAtTheServer() throws {
        let server = try S3Server.rclone()
        let proxy = try FaultProxy(to: server)
        defer { proxy.stop() }
        try proxy.reset()
        var configuration = S3Configuration(
            region: "us-east-1", endpoint: proxy.endpoint, chunkBucket: S3Server.uniqueBucket("chunks"),
            manifestBucket: S3Server.uniqueBucket("manifests"), domainAddressing: false, createBucketsOnDemand: true,
            pacing: S3Pacing(
                background: .init(requestsPerSecond: 10, burst: 10), flush: .init(requestsPerSecond: 1000, burst: 1000)))
        configuration.retryPause = 0.02
        let store = try S3Store(
            configuration, credentials: StaticCredentials(accessKeyID: server.accessKey, secretAccessKey: server.secretKey),
            environment: Environment([:]))
        let file = try ReplicatedFile([store]) { $0.backgroundWindow = 10 }
        let db = try file.connect()
        let began = MonotonicTime.now
        try db.rows("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try db.rows("INSERT INTO t(data) SELECT randomblob(65000) FROM json_each('[\(Array(repeating: "1", count: 200).joined(separator: ","))]')")
        usleep(2_500_000)
        let paced = try proxy.statistics().requests
        let seconds = MonotonicTime.now.seconds(since: began)
        // Buckets are looked for and made outside of the budget: six requests.
        #expect(Double(paced) <= 10 + 10 * seconds + 8, "\(paced) requests in \(seconds) s")
        #expect(paced >= 20)
        // 170 more would take 17 s.
        let waited = MonotonicTime.now
        #expect(try file.flush(timeout: 60) == nil)
        let flushed = MonotonicTime.now.seconds(since: waited)
        let rest = try proxy.statistics().requests - paced
        print("background: \(paced) requests in \(seconds) s; flush: \(rest) requests in \(flushed) s")
        #expect(Double(rest) / flushed > 20, "\(rest) requests in \(flushed) s while somebody waits")
    }

    @Test func pollingReplicasAskConditionallyAndNeverList() throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(200000))")
        #expect(try file.flush() == nil)
        #expect(SnapshotVFS.register(environment: ReplicaEnvironment(stores: [store], hostName: ReplicatedFile.host)) == SQLITE_OK)
        let replica = try SQLiteConnection(
            "verneuil://\(ReplicatedFile.host)\(file.path)", vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
        #expect(try replica.value("SELECT count(*) FROM t") == "1")
        _ = try replica.value("SELECT sum(length(data)) FROM t")
        _ = store.take()
        for _ in 0..<20 { _ = try replica.value("PRAGMA verneuil_snapshot_refresh(2)") }
        let requests = store.take().filter { $0.operation != .put }
        #expect(requests.count == 20)
        #expect(requests.allSatisfy { $0.operation == .get && $0.space == .manifests && $0.unlessTag != nil })
    }

    private static let metrics: TestMetrics = {
        let metrics = TestMetrics()
        MetricsSystem.bootstrap(metrics)
        return metrics
    }()

    @Test func metricsCountWhatIsDone() throws {
        let metrics = Self.metrics
        let store = RecordingStore("metrics store")
        let file = try ReplicatedFile([store])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(300000))")
        #expect(try file.flush() == nil)
        let of = [("database", file.path), ("target", "metrics store")]
        #expect(try metrics.expectCounter("verneuil_snapshots_stored_total", of).totalValue >= 1)
        let puts = store.count(.put)
        #expect(try metrics.expectCounter("verneuil_upload_requests_total", of).totalValue == Int64(puts))
        #expect(try metrics.expectTimer("verneuil_upload_seconds", of).values.count >= 1)
        store.set { _ in .fail(.denied, "no more") }
        try db.rows("INSERT INTO t VALUES(1)")
        #expect(eventually { ((try? metrics.expectCounter("verneuil_replication_failures_total", of).totalValue) ?? 0) > 0 })
        #expect(eventually { ((try? metrics.expectRecorder("verneuil_replication_lag_seconds", of).lastValue) ?? nil) ?? 0 > 0 })
    }
}
