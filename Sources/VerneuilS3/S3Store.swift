import Crypto
import Logging
import NIOCore
import NIOHTTP1
import VerneuilStore
import VerneuilSystem

/// A store in two buckets of an S3-compatible server.
///
/// Lives inside other people's processes: no thread is started and no
/// connection made before the first operation; a child of fork(2) starts
/// afresh with its first one. Hashing is done on the calling thread, the rest
/// on one event loop per process (NetworkLoop). Safe from any thread.
public final class S3Store: ObjectStore {
    public let configuration: S3Configuration
    public let name: String
    private let endpoint: S3Endpoint
    private let tls: TLSSetup
    private let provider: any CredentialProvider
    private let logger: Logger
    private let clients = ProcessLocal<S3Client>()

    /// Nothing is asked of the network here.
    /// - Parameters:
    ///   - credentials: who we are; nil: the standard chain.
    ///   - environment: AWS's variables, as they are now.
    /// - Throws: `.invalid` where the region, the endpoint or a bucket's name can't be meant.
    public init(
        _ configuration: S3Configuration, credentials: (any CredentialProvider)? = nil,
        environment: Environment = .ofProcess(), logger: Logger = Logger(label: "verneuil.s3")
    ) throws(StoreError) {
        let buckets = "s3://\(configuration.chunkBucket), s3://\(configuration.manifestBucket)"
        do throws(S3Endpoint.Flaw) {
            endpoint = try S3Endpoint(region: configuration.region, endpoint: configuration.endpoint)
        } catch {
            throw StoreError(.invalid, store: buckets, operation: "CONFIGURE", reason: error.text)
        }
        name = "\(buckets) at \(endpoint.origin.url)"
        let asDomain = configuration.domainAddressing && !endpoint.origin.isAddress
        for bucket in [configuration.chunkBucket, configuration.manifestBucket] {
            if let flaw = S3Endpoint.flaw(ofBucket: bucket, asDomain: asDomain) {
                throw StoreError(.invalid, store: name, operation: "CONFIGURE", reason: flaw)
            }
        }
        self.configuration = configuration
        self.logger = logger
        tls = TLSSetup(environment)
        provider = credentials ?? CredentialChain.standard(environment, region: endpoint.region)
    }

    deinit { clients.existing?.shutDown() }

    /// What this process has done with the store, and found out about it.
    public var status: S3Status { clients.existing?.status.snapshot ?? S3Status() }
    public var counters: S3Counters { status.counters }

    /// This process's client, or why there can't be one.
    func client() throws(StoreError) -> S3Client {
        if let client = clients.existing { return client }
        do throws(HTTPFailure) {
            if endpoint.origin.isTLS { try tls.prepare() }
        } catch {
            throw StoreError(.invalid, store: name, operation: "CONNECT", reason: error.message)
        }
        do throws(SystemError) {
            return try clients.value { () throws(SystemError) in
                try S3Client(
                    configuration, endpoint, provider: provider, tls: tls, storeName: name, logger: logger)
            }
        } catch {
            throw StoreError(.unavailable, store: name, operation: "CONNECT", reason: "\(error)")
        }
    }

    // MARK: Operations

    public func get(
        _ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void
    ) {
        var get = self.request(.get, request.space, request.key, request.urgency)
        get.limit = request.limit
        // What has no tag can't be told from what is newer: some proxies take it away.
        let unlessTag = request.unlessTag.flatMap { $0.isEmpty ? nil : $0 }
        if let tag = unlessTag { get.headers.append(.init(name: "if-none-match", value: "\"\(tag)\"")) }
        perform(get, completion) { [get] answer, client throws(StoreError) in
            switch (answer.status, answer.error?.code) {
            case (200, _):
                // Some stores ignore the condition.
                if let tag = unlessTag, tag == answer.tag { return .notModified }
                return .found(body: answer.body, tag: answer.tag)
            case (304, _): return .notModified
            case (404, "NoSuchKey"): return .missing
            default: throw Self.error(for: answer, get, client)
            }
        }
    }

    public func put(
        _ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void
    ) {
        var put = self.request(.put, request.space, request.key, request.urgency)
        put.headers.append(.init(name: "content-type", value: Self.contentType))
        put.body = ByteBuffer(bytes: request.body)
        put.bodyHash = hexadecimal(SHA256.hash(data: request.body))
        if configuration.contentMD5 && clients.existing?.status.snapshot.refusesContentMD5 != true {
            let digest = Base64.encode(Array(Insecure.MD5.hash(data: request.body)))
            put.headers.append(.init(name: "content-md5", value: digest))
        }
        if request.condition == .always {
            perform(put, completion) { [put] answer, client throws(StoreError) in
                guard (200..<300).contains(answer.status), answer.error == nil else {
                    throw Self.error(for: answer, put, client)
                }
                return answer.tag
            }
        } else {
            do throws(StoreError) {
                let client = try client()
                if let flaw = Self.flaw(ofKey: request.key) {
                    throw StoreError(.invalid, store: name, operation: put.title, reason: flaw)
                }
                ConditionalPut(put, request, client, completion).start()
            } catch {
                completion(.failure(error))
            }
        }
    }

    public func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) {
        var copy = request(.touch, space, key, urgency)
        copy.headers = [
            .init(name: "content-type", value: Self.contentType),
            .init(
                name: "x-amz-copy-source",
                value: "/\(PercentEncoding.encode(copy.bucket))/\(PercentEncoding.encode(key, keepSlash: true))"),
            .init(name: "x-amz-metadata-directive", value: "REPLACE"),
        ]
        perform(copy, completion) { [copy] answer, client throws(StoreError) in
            switch (answer.status, answer.error?.code) {
            case (200..<300, nil): return true
            case (404, "NoSuchKey"), (404, nil): return false
            default: throw Self.error(for: answer, copy, client)
            }
        }
    }

    public func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) {
        var list = request(.list, space, nil, urgency)
        list.query = [
            .init(name: "encoding-type", value: "url"), .init(name: "list-type", value: "2"),
            .init(name: "prefix", value: prefix),
        ]
        if let after { list.query.append(.init(name: "start-after", value: after)) }
        list.limit = 16 << 20
        perform(list, completion) { [list] answer, client throws(StoreError) in
            guard answer.status == 200 else { throw Self.error(for: answer, list, client) }
            guard let page = ObjectPage(s3: answer.body) else {
                throw StoreError(
                    .unavailable, store: client.storeName, operation: list.title,
                    reason: "the answer is not a whole list of objects")
            }
            return page
        }
    }

    /// Checks that both buckets are there and ours, or makes them.
    public func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) {
        let buckets = [configuration.chunkBucket, configuration.manifestBucket]
        prepare(buckets[0]) { [self] result in
            if case .failure = result { return completion(result) }
            if buckets[0] == buckets[1] { return completion(.success(())) }
            prepare(buckets[1], completion)
        }
    }

    private func prepare(_ bucket: String, _ completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) {
        let head = S3Request(kind: .headBucket, bucket: bucket, urgency: .interactive, title: "HEAD BUCKET \(bucket)")
        let client: S3Client
        do throws(StoreError) { client = try self.client() } catch { return completion(.failure(error)) }
        client.perform(head) { result in
            switch result {
            case .failure(let error):
                completion(.failure(error))
            case .success(let answer) where answer.status == 200:
                completion(.success(()))
            case .success(let answer) where answer.status == 404 && client.configuration.createBucketsOnDemand:
                let create = client.creation(of: bucket, .interactive)
                client.perform(create) { result in
                    completion(
                        result.flatMap { answer in
                            Self.isCreated(answer) ? .success(()) : .failure(Self.error(for: answer, create, client))
                        })
                }
            case .success(let answer) where answer.status == 404:
                completion(.failure(Self.error(for: answer, head, client)))
            case .success:
                // HEAD has no body that would say why not; a list of nothing needs the same permission.
                var list = head
                list.kind = .list
                list.query = [.init(name: "list-type", value: "2"), .init(name: "max-keys", value: "1")]
                client.perform(list) { [list] result in
                    completion(
                        result.flatMap { answer in
                            answer.status == 200 ? .success(()) : .failure(Self.error(for: answer, list, client))
                        })
                }
            }
        }
    }

    // MARK: Parts

    private static let contentType = "application/octet-stream"

    private func request(_ kind: S3Request.Kind, _ space: ObjectSpace, _ key: String?, _ urgency: Urgency) -> S3Request {
        let operation: String
        switch kind {
        case .get: operation = "GET"
        case .put: operation = "PUT"
        case .touch: operation = "TOUCH"
        case .list: operation = "LIST"
        default: operation = "HEAD"
        }
        return S3Request(
            kind: kind, bucket: space == .chunks ? configuration.chunkBucket : configuration.manifestBucket, key: key,
            urgency: urgency, title: "\(operation) \(space.rawValue)" + (key.map { "/\($0)" } ?? ""))
    }

    private func perform<T: Sendable>(
        _ request: S3Request, _ completion: @escaping @Sendable (Result<T, StoreError>) -> Void,
        _ result: @escaping @Sendable (S3Answer, S3Client) throws(StoreError) -> T
    ) {
        let client: S3Client
        do throws(StoreError) {
            if let key = request.key, let flaw = Self.flaw(ofKey: key) {
                throw StoreError(.invalid, store: name, operation: request.title, reason: flaw)
            }
            client = try self.client()
        } catch {
            return completion(.failure(error))
        }
        client.perform(request) { outcome in
            completion(
                outcome.flatMap { answer in
                    do throws(StoreError) {
                        return .success(try result(answer, client))
                    } catch {
                        client.status.count(\.failures)
                        return .failure(error)
                    }
                })
        }
    }

    private static func flaw(ofKey key: String) -> String? {
        if key.isEmpty { return "the key is empty" }
        if key.utf8.count > 1024 { return "a key has 1,024 bytes at most, this one \(key.utf8.count)" }
        if key.split(separator: "/", omittingEmptySubsequences: false).contains(where: { $0 == "." || $0 == ".." }) {
            return "a key must not have \".\" or \"..\" as a part"
        }
        return nil
    }

    /// Made by us, now or before. Where it exists and is not ours, the next request says so.
    static func isCreated(_ answer: S3Answer) -> Bool {
        (200..<300).contains(answer.status)
            || ["BucketAlreadyOwnedByYou", "BucketAlreadyExists"].contains(answer.error?.code ?? "")
    }

    /// What a final answer means that the operation has no use for.
    static func error(for answer: S3Answer, _ request: S3Request, _ client: S3Client) -> StoreError {
        let error = answer.error
        let found = "the store answered \(S3Call.describe(answer))"
        func make(_ kind: StoreError.Kind, _ hint: String = "") -> StoreError {
            StoreError(
                kind, store: client.storeName, operation: request.title, reason: hint.isEmpty ? found : "\(found); \(hint)")
        }
        let source = client.status.snapshot.credentialSource ?? "nowhere"
        switch (answer.status, error?.code) {
        case (_, "SignatureDoesNotMatch"):
            return make(.denied, "the secret access key from \(source) is wrong (or a proxy changes requests)")
        case (_, "InvalidAccessKeyId"), (_, "InvalidClientTokenId"):
            return make(.denied, "it does not know the access key from \(source)")
        case (_, "ExpiredToken"), (_, "ExpiredTokenException"), (_, "TokenRefreshRequired"), (_, "InvalidToken"):
            return make(.denied, "the session token from \(source) is no longer valid, and there is no newer one")
        case (_, "RequestTimeTooSkewed"):
            return make(.denied, "this machine's clock is wrong")
        case (401, _), (403, _):
            // S3 doesn't tell who may not list whether an object exists.
            let list = request.kind == .get ? "; or there is no such object, and they may not list" : ""
            return make(
                .denied,
                "the credentials from \(source) need the permission \(request.permission) on bucket \"\(request.bucket)\"\(list)")
        case (404, "NoSuchKey") where request.isConditionalPut:
            return make(.conditionFailed)
        case (404, let code) where code == "NoSuchBucket" || request.key == nil:
            return make(
                .noSuchSpace,
                "there is no bucket \"\(request.bucket)\": make it, or set create_buckets_on_demand")
        case (409, _) where request.isConditionalPut, (412, _) where request.isConditionalPut:
            return make(.conditionFailed)
        case (501, _) where request.isConditionalPut, (_, "NotImplemented") where request.isConditionalPut:
            return make(.conditionUnsupported)
        case (301, _), (302, _), (307, _), (308, _):
            let place = answer.regionHint ?? answer.headers.first(name: "location")
            return make(
                .invalid, "bucket \"\(request.bucket)\" is elsewhere" + (place.map { " (\($0))" } ?? "")
                    + ": set region and endpoint to that")
        case (400, "AuthorizationHeaderMalformed"):
            return make(.invalid, error?.region.map { "the region must be \"\($0)\"" } ?? "the region may be wrong")
        case (501, _): return make(.invalid, "the store does not know this kind of request")
        case (500..., _): return make(.unavailable)
        default: return make(.invalid)
        }
    }
}

extension ObjectPage {
    /// A ListBucketResult. nil where it is not a whole one.
    fileprivate init?(s3 body: [UInt8]) {
        let document = String(decoding: body, as: UTF8.self)[...]
        guard document.utf8.suffix(200).lastIndex(of: UInt8(ascii: "<")) != nil,
            let result = S3XML.all("ListBucketResult", in: document).first
        else { return nil }
        let isEncoded = S3XML.text(of: "EncodingType", in: result) == "url"
        var entries: [Entry] = []
        for object in S3XML.all("Contents", in: result) {
            guard let raw = S3XML.text(of: "Key", in: object), let key = isEncoded ? PercentEncoding.decode(raw) : raw,
                let size = S3XML.text(of: "Size", in: object).flatMap({ Int($0) }),
                let modified = S3XML.text(of: "LastModified", in: object).flatMap(CivilTime.init(iso8601:))
            else { return nil }
            entries.append(Entry(key: key, size: size, modified: modified.epoch))
        }
        self.init(entries: entries, isTruncated: S3XML.text(of: "IsTruncated", in: result) == "true")
    }
}
