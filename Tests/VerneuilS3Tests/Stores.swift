import Logging
import TestServers
import VerneuilS3
import VerneuilStore

/// How tests make their stores.
struct Stores {
    var region = "us-east-1"
    var endpoint: String
    var chunks = S3Server.uniqueBucket("chunks")
    var manifests = S3Server.uniqueBucket("manifests")
    var accessKey = "testkey"
    var secretKey = "testsecret"
    var domainAddressing = false
    var createBuckets = true
    /// Before the first retry, in seconds. OpenStack Swift means it when it says 503.
    var retryPause = 0.02

    init(_ server: S3Server) {
        endpoint = server.endpoint
        accessKey = server.accessKey
        secretKey = server.secretKey
        if server.kind == .swift { retryPause = 0.5 }
    }
    init(endpoint: String) { self.endpoint = endpoint }

    /// A store without pacing and with short pauses, unless changed.
    func make(
        environment: [String: String] = [:], credentials: (any CredentialProvider)? = nil,
        logger: Logger = Logger(label: "test", factory: { _ in SwiftLogNoOpLogHandler() }),
        _ change: (inout S3Configuration) -> Void = { _ in }
    ) throws(StoreError) -> S3Store {
        var configuration = S3Configuration(
            region: region, endpoint: endpoint, chunkBucket: chunks, manifestBucket: manifests,
            domainAddressing: domainAddressing, createBucketsOnDemand: createBuckets,
            pacing: S3Pacing(background: nil, flush: nil, interactive: nil))
        configuration.retryPause = retryPause
        change(&configuration)
        return try S3Store(
            configuration,
            credentials: credentials ?? StaticCredentials(accessKeyID: accessKey, secretAccessKey: secretKey),
            environment: Environment(environment), logger: logger)
    }
}

/// What an operation throws, if it does.
func failure<T>(_ body: () throws(StoreError) -> T) -> StoreError? {
    do throws(StoreError) {
        _ = try body()
        return nil
    } catch { return error }
}

extension S3Store {
    /// The body under a key; nil where there is none.
    func body(_ space: ObjectSpace, _ key: String, limit: Int = 1 << 22) throws -> [UInt8]? {
        guard case .found(let body, _) = try get(GetRequest(space, key, limit: limit)) else { return nil }
        return body
    }
}

func randomBytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in .random(in: 0 ... .max) }
}
