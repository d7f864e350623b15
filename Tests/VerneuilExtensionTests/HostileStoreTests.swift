import Foundation
import ProductSupport
import TestServers
import Testing
import VerneuilFormat
import VerneuilSystem

/// The promises of replication (docs/DESIGN.md) while the store fails every fourth request in one way or another.
@Suite struct HostileStoreTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    /// Transaction c writes row c % 40, so that c alone says what the table holds.
    private static let writer = """
        import os, sqlite3, sys, time
        db = sqlite3.connect(":memory:")
        db.enable_load_extension(True)
        db.load_extension(sys.argv[1])
        db.close()
        app = sqlite3.connect("file:app.db?vfs=verneuil", uri=True, isolation_level=None)
        app.execute("CREATE TABLE m(c INTEGER)")
        app.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, pad BLOB)")
        app.execute("BEGIN"); app.execute("INSERT INTO m VALUES (0)")
        for i in range(40): app.execute("INSERT INTO t VALUES (?, ?, randomblob(20000))", (i, i - 40 if i else 0))
        app.execute("COMMIT")
        start = time.time()
        for c in range(1, 151):
            app.execute("BEGIN")
            app.execute("UPDATE m SET c = ?", (c,))
            app.execute("UPDATE t SET v = ?, pad = randomblob(20000) WHERE id = ?", (c, c % 40))
            app.execute("COMMIT")
            time.sleep(max(0, start + c * 0.05 - time.time()))
        """
    private static let lastCommit = 150

    /// Commits told from what never was one: "c|rows that don't belong to c".
    private static let question = """
        SELECT (SELECT c FROM m), count(*) FROM t, m WHERE v <> c - ((c - id) % 40 + 40) % 40
        """

    struct Stored: Sendable {
        var manifest: [UInt8]
        /// As they were when the manifest was stored.
        var chunks: [String: FakeS3.Object]
    }

    @Test func whatIsStoredWasCommittedAndNeverGoesBackAndStaysInTheBudget() throws {
        let server = try FakeS3()
        let lock = Lock()
        nonisolated(unsafe) var stored: [Stored] = []
        server.change {
            $0.chaos = (
                0.25,
                [
                    .refuse(500, "InternalError"), .doBut(500, "InternalError"), .refuse(503, "SlowDown"),
                    .refuse(429, "TooManyRequests"), .reset, .loseAnswer, .half,
                ]
            )
            $0.didStore = { [weak server] bucket, _, body in
                guard bucket == "manifests", let server else { return }
                let chunks = server.objectsWhileStoring("chunks")
                lock.withLock { stored.append(Stored(manifest: body, chunks: chunks)) }
            }
        }
        let (rate, burst) = (60.0, 40.0)
        let config = """
            {"replication_spooling_dir": "\(here.file("spool"))", "replication_pacing": {"requests_per_second": \(Int(rate)),
             "burst": \(Int(burst)), "manifest_interval_seconds": 0.1, "pass_interval_seconds": 0.05},
             "replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "\(server.endpoint)", "chunk_bucket": "chunks",
             "manifest_bucket": "manifests", "create_buckets_on_demand": true}}]}
            """
        let environment = ["AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"]
        let written = try Program.run(
            ["/usr/bin/python3", "-c", Self.writer, Products.extension()],
            environment: environment.merging(["VERNEUIL_CONFIG": config]) { $1 }, directory: here.path)
        #expect(written.status == 0, "\(written)")
        let inBackground = server.requests

        // What is left, by flushes, which may fail as well; one that doesn't has told the truth.
        var flushed = try here.verneuilctl("flush", "spool", config: config, environment: environment)
        for _ in 0..<10 where flushed.status != 0 {
            flushed = try here.verneuilctl("flush", "spool", config: config, environment: environment)
        }
        #expect(flushed.status == 0, "\(flushed)")

        // A state that was committed (P2), and not older than the one before (P3).
        var last = 0
        let all = lock.withLock { stored }
        #expect(all.count > 10)
        for (i, one) in all.enumerated() {
            let image = try database(one)
            try here.write(image, to: "image.db")
            let answer = try here.sqlite("image.db", "PRAGMA integrity_check", Self.question)
            let lines = answer.text.split(separator: "\n")
            if i == 0, answer.status != 0 || lines.count < 2 { continue }  // before the tables were there
            #expect(lines.first == "ok", "manifest \(i): \(answer)")
            let fields = (lines.last ?? "").split(separator: "|").compactMap { Int($0) }
            // Before the first row there is nothing to count.
            if fields.count < 2 { continue }
            #expect(fields[1] == 0, "manifest \(i) is a mixture: \(answer)")
            #expect(fields[0] >= last, "manifest \(i) goes back")
            last = fields[0]
        }
        #expect(last == Self.lastCommit)

        // Within the budget, over every stretch of time (P5).
        let times = inBackground.map(\.time)
        #expect(times.count > 50)
        var most = 0.0
        for (i, first) in times.enumerated() {
            for (j, time) in times.enumerated().dropFirst(i) {
                most = max(most, Double(j - i + 1) - rate * time.seconds(since: first))
            }
        }
        // A request that met a closed connection is charged afterwards.
        #expect(most <= burst + 10, "\(most) requests beyond the average")
        let failures = inBackground.filter { $0.status >= 400 || $0.status == 0 }.count
        #expect(failures > 20)
    }

    /// Every chunk it needs was there when it was stored.
    private func database(_ stored: Stored) throws -> [UInt8] {
        let decoded = try StoredManifest(decoding: stored.manifest)
        let manifest = try decoded.resolved(base: nil)
        var image: [UInt8] = []
        for (i, fingerprint) in manifest.chunks.enumerated() {
            let length = Chunk.length(ofChunk: i, databaseLength: manifest.length)
            if let bundled = manifest.bundled.first(where: { $0.index == i }) {
                image += bundled.data
            } else if fingerprint == Chunk.zeroFingerprint {
                image += [UInt8](repeating: 0, count: length)
            } else {
                let object = try #require(stored.chunks[fingerprint.chunkName], "a manifest was stored before its chunk \(i)")
                image += try Body.decodeChunk(object.body, expecting: fingerprint, length: length)
            }
        }
        return image
    }

    /// P7: what a reader gets that is not what was stored is refused, and says so.
    @Test func wrongBytesAreNeverRestored() throws {
        let server = try FakeS3()
        let config = """
            {"replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "\(server.endpoint)", "chunk_bucket": "chunks",
             "manifest_bucket": "manifests", "create_buckets_on_demand": true}}]}
            """
        let environment = ["AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"]
        let made = try here.sqlite("app.db", "CREATE TABLE t(x)", "INSERT INTO t SELECT randomblob(1000) FROM generate_series(1, 300)")
        #expect(made.status == 0)
        #expect(try here.verneuilctl("sync", "app.db", config: config, environment: environment).status == 0)
        server.change { $0.faults = [FakeS3.Fault(.wrongBytes, on: [.get])] }
        let wrong = try here.verneuilctl(
            "restore", "--source-path", "app.db", "--out", "restored.db", config: config, environment: environment)
        #expect(wrong.status == 1 && !here.exists("restored.db"), "\(wrong)")
        // The manifest is good, the chunks are not.
        for key in server.objects("chunks").keys {
            let body = try #require(server.object("chunks", key)?.body)
            server.put("chunks", key, body.map { ~$0 })
        }
        server.change { $0.faults = [] }
        let damaged = try here.verneuilctl(
            "restore", "--source-path", "app.db", "--out", "restored.db", config: config, environment: environment)
        #expect(damaged.status == 1 && damaged.errors.contains("chunk") && !here.exists("restored.db"), "\(damaged)")
    }
}
