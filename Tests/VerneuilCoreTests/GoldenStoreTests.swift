import CVerneuil
import FormatTestSupport
import ProductSupport
import TestServers
import Testing
import VerneuilCore
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

/// Every version of every database that the original stored, put into a store
/// object by object, is restored to the same bytes.
@Suite struct GoldenStoreTests {
    enum Place: String, CaseIterable, CustomTestStringConvertible {
        case directory, rclone, ceph
        var testDescription: String { rawValue }
    }

    private func configuration(_ place: Place, _ here: Workspace, _ golden: GoldenCase) throws -> Configuration {
        var configuration = Configuration()
        switch place {
        case .directory:
            // Beside something: the store is made there.
            try here.write([], to: "app.db")
            configuration.targets = [.directory(.init(path: here.file("store")))]
        case .rclone, .ceph:
            let server = place == .ceph ? try S3Server.ceph() : try S3Server.rclone()
            var s3 = Configuration.S3(
                region: "us-east-1", endpoint: server.endpoint, chunkBucket: S3Server.uniqueBucket("chunks"),
                manifestBucket: S3Server.uniqueBucket("manifests"))
            s3.createBucketsOnDemand = true
            configuration.targets = [.s3(s3)]
            setenv("AWS_ACCESS_KEY_ID", server.accessKey, 1)
            setenv("AWS_SECRET_ACCESS_KEY", server.secretKey, 1)
        }
        return configuration
    }

    private static let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]

    /// All at once.
    private static func put(_ requests: [PutRequest], _ store: any ObjectStore) throws {
        let lock = Lock()
        nonisolated(unsafe) var (left, failure): (Int, StoreError?) = (requests.count, nil)
        for request in requests {
            store.put(request) { result in
                lock.withLock {
                    left -= 1
                    if case .failure(let error) = result { failure = error }
                    lock.broadcast()
                }
            }
        }
        try lock.withLock {
            while left > 0 { lock.wait() }
            if let failure { throw failure }
        }
    }

    @Test(arguments: Place.allCases, GoldenData.caseNames)
    func restoresFrom(place: Place, caseName: String) throws {
        // For the keys of the servers, which are no other test's.
        let before = Self.keys.map { getenv($0).map { String(cString: $0) } }
        defer { for (key, value) in zip(Self.keys, before) { if let value { setenv(key, value, 1) } else { unsetenv(key) } } }
        let here = try Workspace()
        let golden = try #require(GoldenData.cases().first { $0.name == caseName })
        let engine = try Engine(try configuration(place, here, golden))
        let store = try #require(engine.stores.first)
        try store.prepare()
        try Self.put(golden.chunkKeys.map { PutRequest(.chunks, $0, try golden.chunkBody($0), urgency: .interactive) }, store)
        let database = DatabaseName(host: golden.hostname, path: golden.path)
        #expect(database.manifestName == golden.manifestKey)
        for version in golden.versions {
            try store.put(
                PutRequest(.manifests, golden.manifestKey, try golden.manifestBody(version), urgency: .interactive))
            _ = try engine.restore(.stored(database)).write(to: here.file("restored.db"))
            let restored = try here.bytes("restored.db")
            #expect(restored.count == version.sourceLen, "\(version.step)")
            #expect(try GoldenData.sha256(restored) == version.sourceSha256, "\(version.step)")
        }
    }
}
