import CVerneuil
import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// The contract of ObjectStore against real servers, which check signatures.
@Suite struct RealServerTests {
    static let servers = S3Server.underTest([.rclone, .ceph])

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

    @Test(arguments: servers) func bodiesBeyondTheLimitAreNotRead(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.put(PutRequest(.chunks, "k", randomBytes(1 << 20)))
        let error = failure { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 1 << 20 - 1)) }
        #expect(error?.kind == .tooLarge)
        #expect(store.counters.bytesReceived < 1 << 20)
        #expect(try store.body(.chunks, "k", limit: 1 << 20)?.count == 1 << 20)
    }

    @Test(arguments: servers) func getUnlessTagAnswersNotModified(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        let first = try store.put(PutRequest(.manifests, "k", [1]))
        guard case .notModified = try store.get(GetRequest(.manifests, "k", limit: 10, unlessTag: first)) else {
            Issue.record("fetched again")
            return
        }
        try store.put(PutRequest(.manifests, "k", [2]))
        guard case .found([2], _) = try store.get(GetRequest(.manifests, "k", limit: 10, unlessTag: first)) else {
            Issue.record("not fetched")
            return
        }
    }

    /// S3 allows 1,024 bytes.
    @Test(arguments: servers.filter(\.takesAnyKey)) func longAndOddKeysWork(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        let keys = [
            String(repeating: "k%2F", count: 250), "a b", "a+b", "a&b=c?d#e", "<é>", "~!$'()*,;:@[]", "%25%2F%00", "a//b",
        ]
        for key in keys { try store.put(PutRequest(.chunks, key, Array(key.utf8))) }
        for key in keys {
            #expect(try store.body(.chunks, key) == Array(key.utf8), "\(key)")
            #expect(try store.touch(.chunks, key), "\(key)")
        }
        let listed = try store.list(.chunks, prefix: "").entries.map(\.key)
        #expect(listed == keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
    }

    @Test(arguments: ["", "../x", "a/./b", String(repeating: "k", count: 1025)])
    func impossibleKeysAreRefusedWithoutARequest(key: String) throws {
        let store = try Stores(.rclone()).make()
        let error = failure { () throws(StoreError) in try store.put(PutRequest(.chunks, key, [1])) }
        #expect(error?.kind == .invalid)
        #expect(store.counters.requests == 0)
    }

    @Test(arguments: servers.filter(\.renewsAge)) func touchRenewsTheAgeAndKeepsTheBody(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.prepare()
        let body = randomBytes(65_536)
        let tag = try store.put(PutRequest(.chunks, Self.chunkName, body))
        let before = try #require(try store.list(.chunks, prefix: "").entries.first)
        sleep(2)
        #expect(try store.touch(.chunks, Self.chunkName))
        let after = try #require(try store.list(.chunks, prefix: "").entries.first)
        #expect(after.modified > before.modified)
        #expect(after.size == body.count)
        guard case .found(body, tag) = try store.get(GetRequest(.chunks, Self.chunkName, limit: 1 << 20)) else {
            Issue.record("changed by touching")
            return
        }
        #expect(store.counters.bytesSent == body.count)
    }

    @Test(arguments: servers) func touchingWhatIsMissingAnswersSo(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.prepare()
        #expect(try !store.touch(.chunks, Self.chunkName))
    }

    @Test(arguments: servers) func listPagesInOrder(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.prepare()
        let keys = (0..<1_203).map { "k%2F\(10_000 + $0)" }
        try Self.putAll(store, keys)
        try store.put(PutRequest(.chunks, "other", [1]))
        let first = try store.list(.chunks, prefix: "k%2F")
        #expect(first.isTruncated)
        let second = try store.list(.chunks, prefix: "k%2F", after: first.entries.last?.key)
        #expect(!second.isTruncated)
        #expect((first.entries + second.entries).map(\.key) == keys)
        let now = wallClock().seconds
        #expect(first.entries.allSatisfy { $0.size == 1 && abs($0.modified - now) < 300 })
        #expect(try store.list(.manifests, prefix: "").entries.isEmpty)
    }

    /// PUTs in parallel by the completion-handler form.
    static func putAll(_ store: S3Store, _ keys: [String], body: [UInt8] = [1]) throws {
        let lock = Lock()
        nonisolated(unsafe) var left = keys.count
        nonisolated(unsafe) var errors: [StoreError] = []
        for key in keys {
            store.put(PutRequest(.chunks, key, body)) { result in
                lock.withLock {
                    if case .failure(let error) = result { errors.append(error) }
                    left -= 1
                    lock.signal()
                }
            }
        }
        lock.withLock { while left > 0 { lock.wait() } }
        if let error = errors.first { throw error }
    }

    // MARK: Buckets

    @Test(arguments: servers) func bucketsAreMadeOnDemand(kind: S3Server.Kind) throws {
        let stores = try Stores(.shared(kind))
        let store = try stores.make()
        // Without prepare, by the first PUT.
        try store.put(PutRequest(.chunks, "k", [1]))
        #expect(store.counters.bucketCreations == 1)
        // By prepare: the one that is still missing.
        try store.prepare()
        #expect(store.counters.bucketCreations == 2)
        try stores.make().prepare()
        var strict = stores
        strict.createBuckets = false
        try strict.make().prepare()
        #expect(try strict.make().body(.chunks, "k") == [1])
    }

    @Test(arguments: servers) func aMissingBucketIsNamed(kind: S3Server.Kind) throws {
        var stores = try Stores(.shared(kind))
        stores.createBuckets = false
        let store = try stores.make()
        let errors = [
            failure { () throws(StoreError) in try store.prepare() },
            failure { () throws(StoreError) in try store.put(PutRequest(.chunks, "k", [1])) },
            failure { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 1)) },
            failure { () throws(StoreError) in try store.list(.chunks, prefix: "") },
        ]
        for error in errors {
            #expect(error?.kind == .noSuchSpace)
            #expect(error?.reason.contains("\"\(stores.chunks)\"") == true)
        }
    }

    // MARK: Who we are

    @Test(arguments: servers.filter(\.checksSignatures)) func aWrongSecretIsRefused(kind: S3Server.Kind) throws {
        var stores = try Stores(.shared(kind))
        try stores.make().put(PutRequest(.chunks, "k", [1]))
        stores.secretKey = "wrongsecret"
        let store = try stores.make()
        let errors = [
            failure { () throws(StoreError) in try store.prepare() },
            failure { () throws(StoreError) in try store.put(PutRequest(.chunks, "k", [2])) },
            failure { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 1)) },
            failure { () throws(StoreError) in try store.touch(.chunks, "k") },
            failure { () throws(StoreError) in try store.list(.chunks, prefix: "") },
        ]
        for error in errors {
            #expect(error?.kind == .denied)
            #expect(error?.reason.contains("secret access key") == true, "\(error?.description ?? "none")")
            #expect(error?.description.contains("wrongsecret") == false)
        }
        // Refused once, without tries.
        #expect(store.counters.retries == 0)
    }

    @Test func anUnknownAccessKeyIsRefused() throws {
        var stores = try Stores(.ceph())
        stores.accessKey = "nobody"
        let error = failure { () throws(StoreError) in try stores.make().prepare() }
        #expect(error?.kind == .denied)
        #expect(error?.reason.contains("does not know the access key") == true)
    }

    // MARK: Addressing

    @Test func bucketsCanBeSubdomains() throws {
        let ceph = try S3Server.ceph()
        var stores = Stores(ceph)
        stores.endpoint = ceph.domainEndpoint
        stores.domainAddressing = true
        let store = try stores.make()
        try store.prepare()
        let body = randomBytes(1000)
        try store.put(PutRequest(.chunks, Self.chunkName, body))
        #expect(try store.touch(.chunks, Self.chunkName))
        // The same object by path.
        stores.endpoint = ceph.endpoint
        stores.domainAddressing = false
        #expect(try stores.make().body(.chunks, Self.chunkName) == body)
    }

    /// This server knows no path style, so that a request by path would miss.
    @Test func subdomainsReachAServerThatKnowsNothingElse() throws {
        let server = try S3Server(.rclone, virtualHosts: true)
        var stores = Stores(server)
        stores.endpoint = server.domainEndpoint
        stores.domainAddressing = true
        let store = try stores.make()
        try store.put(PutRequest(.chunks, Self.chunkName, [1, 2]))
        #expect(try store.body(.chunks, Self.chunkName) == [1, 2])
        #expect(
            try Files.read("\(server.process.directory)/data/\(stores.chunks)/\(Self.chunkName)") == [1, 2])
    }

    @Test func anAddressAsEndpointIsAddressedByPath() throws {
        var stores = try Stores(.ceph())
        stores.domainAddressing = true
        try stores.make().put(PutRequest(.chunks, "k", [1]))
    }

    // MARK: Connections

    @Test func connectionsAreKeptAndBounded() throws {
        let proxy = try FaultProxy(to: .rclone())
        let store = try Stores(endpoint: proxy.endpoint).make { $0.maximumConnections = 8 }
        try store.prepare()
        for i in 0..<50 { try store.put(PutRequest(.chunks, "\(i)", [1])) }
        #expect(try proxy.statistics().connections == 1)
        try Self.putAll(store, (0..<200).map { "\($0)" }, body: randomBytes(1000))
        let seen = try proxy.statistics()
        #expect(seen.connections <= 8)
        #expect(seen.connections > 1)
        #expect(store.counters.connectionsOpened == seen.connections)
        #expect(store.counters.requests == seen.requests)
    }

    @Test func requestsAreCountedAsTheServerCountsThem() throws {
        let proxy = try FaultProxy(to: .rclone())
        let store = try Stores(endpoint: proxy.endpoint).make()
        try store.prepare()
        try store.put(PutRequest(.chunks, "k", randomBytes(500)))
        _ = try store.body(.chunks, "k")
        _ = try store.body(.chunks, "missing")
        #expect(try store.touch(.chunks, "k"))
        _ = try store.list(.chunks, prefix: "")
        let counters = store.counters
        #expect(counters.puts == 1 && counters.gets == 2 && counters.touches == 1 && counters.lists == 1)
        #expect(counters.bytesSent == 500)
        #expect(counters.requests == (try proxy.statistics()).requests)
        #expect(counters.failures == 0 && counters.retries == 0)
        #expect(store.status.credentialSource == "the configuration")
    }
}
