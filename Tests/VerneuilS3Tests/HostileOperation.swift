import TestServers
import Testing
import VerneuilS3
import VerneuilStore

/// Each request that the client makes, as an operation whose result is checked.
enum HostileOperation: String, CaseIterable, Sendable {
    case get, poll, putChunk, replaceManifest, createManifest, firstConditionalPut, touch, list, findBucket, makeBucket

    /// What it is at the server.
    var request: FakeS3.Operation {
        switch self {
        case .get, .poll: return .get
        case .putChunk, .replaceManifest, .createManifest: return .put
        case .firstConditionalPut: return .head
        case .touch: return .copy
        case .list: return .list
        case .findBucket: return .headBucket
        case .makeBucket: return .createBucket
        }
    }

    /// Whether an answer has a body, that could be cut short or say what is wrong.
    var answerHasBody: Bool { ![.head, .headBucket].contains(request) }
    var requestHasBody: Bool { request == .put }
    var isConditional: Bool { [.replaceManifest, .createManifest, .firstConditionalPut].contains(self) }

    static let chunk = randomBytes(100_000)
    static let manifest = randomBytes(3000)
    static let bucket = "bucket"

    /// A server with what the operation finds, and a store that knows whether it honours conditions.
    func prepare(
        logger: LogCapture = LogCapture(), credentials: (any CredentialProvider)? = nil,
        _ change: (inout S3Configuration) -> Void = { _ in }
    ) throws -> (server: FakeS3, store: S3Store, tag: String) {
        let server = try FakeS3()
        server.put(Self.bucket, "chunk", Self.chunk)
        var stores = Stores(endpoint: server.endpoint)
        (stores.chunks, stores.manifests) = (Self.bucket, Self.bucket)
        stores.createBuckets = self == .makeBucket
        stores.retryPause = 0.005
        let store = try stores.make(credentials: credentials, logger: logger.logger, change)
        var tag = ""
        switch self {
        case .replaceManifest, .createManifest:
            tag = try store.put(PutRequest(.manifests, "manifest", [1], condition: .ifAbsent))
            tag = try store.put(PutRequest(.manifests, "manifest", [2], condition: .ifTag(tag)))
        case .poll, .firstConditionalPut:
            tag = try store.put(PutRequest(.manifests, "manifest", [1]))
        case .makeBucket: server.remove(Self.bucket)
        default: break
        }
        if self == .poll { server.put(Self.bucket, "manifest", Self.manifest) }
        return (server, store, tag)
    }

    /// Runs it, and checks what it brought or left behind.
    func run(_ store: S3Store, _ server: FakeS3, _ tag: String) -> StoreError? {
        let error = failure { () throws(StoreError) in
            switch self {
            case .get:
                guard case .found(Self.chunk, _) = try store.get(GetRequest(.chunks, "chunk", limit: 1 << 20)) else {
                    Issue.record("another chunk")
                    return
                }
            case .poll:
                let get = GetRequest(.manifests, "manifest", limit: 1 << 20, unlessTag: tag)
                guard case .found(Self.manifest, _) = try store.get(get) else {
                    Issue.record("another manifest")
                    return
                }
            case .putChunk: try store.put(PutRequest(.chunks, "new", Self.chunk))
            case .replaceManifest, .firstConditionalPut:
                try store.put(PutRequest(.manifests, "manifest", Self.manifest, condition: .ifTag(tag)))
            case .createManifest: try store.put(PutRequest(.manifests, "new", Self.manifest, condition: .ifAbsent))
            case .touch: #expect(try store.touch(.chunks, "chunk"))
            case .list: #expect(try store.list(.chunks, prefix: "").entries.contains { $0.key == "chunk" })
            case .findBucket, .makeBucket: try store.prepare()
            }
        }
        if error == nil {
            switch self {
            case .putChunk: #expect(server.object(Self.bucket, "new")?.body == Self.chunk)
            case .createManifest: #expect(server.object(Self.bucket, "new")?.body == Self.manifest)
            case .replaceManifest, .firstConditionalPut: #expect(server.object(Self.bucket, "manifest")?.body == Self.manifest)
            case .makeBucket: #expect(server.hasBucket(Self.bucket))
            default: break
            }
        }
        return error
    }
}
