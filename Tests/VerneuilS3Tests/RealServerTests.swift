import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// The contract of ObjectStore against real servers, which check signatures.
@Suite struct RealServerTests {
    static let servers: [S3Server.Kind] = [.rclone, .ceph]

    static let chunkName = "00530ec7bb0b607c%2Fa7f7fa90d321e05c"
    static let manifestName = "7010-verneuil%3Aexample.com%3A10af%2F%2Fvar%2Flib%2Fapp%2Fdb.sqlite"

    @Test(arguments: servers) func objectsComeBackAsTheyWere(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.prepare()
        let bodies = [0, 1, 65_536, 3_000_000].map(randomBytes)
        for (i, body) in bodies.enumerated() {
            let tag = try store.put(PutRequest(.chunks, "\(Self.chunkName)\(i)", body))
            guard case .found(let found, let foundTag) = try store.get(
                GetRequest(.chunks, "\(Self.chunkName)\(i)", limit: 3_000_000))
            else {
                Issue.record("\(i) not found")
                continue
            }
            #expect(found == body)
            #expect(foundTag == tag)
            #expect(!tag.isEmpty && !tag.contains("\""))
        }
        try store.put(PutRequest(.manifests, Self.manifestName, [1]))
        try store.put(PutRequest(.manifests, Self.manifestName, [2]))
        #expect(try store.body(.manifests, Self.manifestName) == [2])
        #expect(try store.body(.chunks, Self.manifestName) == nil)
    }
}
