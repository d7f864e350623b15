import Logging
import NIOCore
import NIOHTTP1
import VerneuilStore
import VerneuilSystem

/// What a store needs in one process: connections, credentials, budgets, and
/// what it has learned of the server. Confined to its event loop, but for
/// `perform` and the status.
final class S3Client: @unchecked Sendable {
    static let userAgent = "verneuil-swift"

    let loop: any EventLoop
    let configuration: S3Configuration
    let status = S3StatusCell()
    let logger: Logger
    let storeName: String
    let credentials: CredentialCache
    let pool: HTTPPool
    private let endpoint: S3Endpoint
    private let credentialPool: HTTPPool
    private let background: Pacer
    private let flush: Pacer
    private let interactive: Pacer
    private var signer = S3Signer()

    /// Seconds to add to our clock, so that the server accepts the signature.
    private(set) var clockOffset: Int64 = 0
    /// Where the server has sent us for good, by bucket.
    private var moved: [String: S3Place] = [:]
    private let tls: TLSSetup

    init(
        _ configuration: S3Configuration, _ endpoint: S3Endpoint, provider: any CredentialProvider, tls: TLSSetup,
        storeName: String, logger: Logger
    ) throws(SystemError) {
        let loop = try NetworkLoop.current
        self.loop = loop
        self.configuration = configuration
        self.endpoint = endpoint
        self.tls = tls
        self.logger = logger
        self.storeName = storeName
        background = Pacer(configuration.pacing.background, loop: loop)
        flush = Pacer(configuration.pacing.flush, loop: loop)
        interactive = Pacer(configuration.pacing.interactive, loop: loop)
        let status = status
        pool = HTTPPool(
            loop: loop, tls: tls, limit: configuration.maximumConnections,
            events: HTTPPool.Events(
                opened: { status.count(\.connectionsOpened) },
                bytes: { sent, received in
                    status.update {
                        $0.counters.bytesSent += sent
                        $0.counters.bytesReceived += received
                    }
                }))
        credentialPool = HTTPPool(loop: loop, tls: tls, limit: 4)
        credentials = CredentialCache(
            provider, context: CredentialContext(pool: credentialPool, tls: tls), loop: loop,
            pause: configuration.credentialsPause, logger: logger)
    }

    /// Performs a request with all that belongs to it: budget, credentials,
    /// retries. From any thread; the completion runs on the event loop.
    func perform(_ request: S3Request, _ completion: @escaping @Sendable (Result<S3Answer, StoreError>) -> Void) {
        if loop.inEventLoop {
            S3Call(request, self, completion).start()
        } else {
            loop.execute { S3Call(request, self, completion).start() }
        }
    }

    func shutDown() {
        loop.execute { [self] in
            pool.shutDown()
            credentialPool.shutDown()
        }
    }

    func pacer(_ urgency: Urgency) -> Pacer {
        switch urgency {
        case .background: return background
        case .flush: return flush
        case .interactive: return interactive
        }
    }

    // MARK: Requests on the wire

    /// Where a bucket is, as far as is known.
    func place(of bucket: String) -> S3Place {
        moved[bucket]
            ?? S3Place(endpoint: endpoint, asDomain: configuration.domainAddressing && !endpoint.origin.isAddress)
    }

    /// Signs a request for now.
    /// - Parameters:
    ///   - place: instead of where the bucket is known to be.
    ///   - withoutMD5: leaves Content-MD5 out.
    func wireRequest(
        _ request: S3Request, _ credentials: S3Credentials, at place: S3Place? = nil, withoutMD5: Bool = false
    ) -> HTTPRequest {
        let place = place ?? self.place(of: request.bucket)
        let endpoint = place.endpoint
        var origin = endpoint.origin
        var path = ""
        if place.asDomain {
            origin.host = "\(request.bucket).\(origin.host)"
        } else {
            path = "/\(PercentEncoding.encode(request.bucket))"
        }
        if let key = request.key { path += "/\(PercentEncoding.encode(key, keepSlash: true))" }
        if path.isEmpty { path = "/" }
        let query = request.query.map {
            (name: PercentEncoding.encode($0.name), value: PercentEncoding.encode($0.value))
        }

        let time = CivilTime(epoch: wallClock().seconds + clockOffset)
        var headers = request.headers.map { (name: $0.name, value: $0.value) }
        if withoutMD5 { headers.removeAll { $0.name == "content-md5" } }
        headers.append((name: "x-amz-content-sha256", value: request.bodyHash))
        headers.append((name: "x-amz-date", value: time.basic))
        if let token = credentials.sessionToken { headers.append((name: "x-amz-security-token", value: token)) }
        var signed = headers
        signed.append((name: "host", value: origin.authority))
        let authorization = signer.authorization(
            method: request.method, path: path, query: query, headers: signed, bodyHash: request.bodyHash,
            credentials: credentials, region: endpoint.region, service: "s3", time: time)

        var target = path
        if !query.isEmpty { target += "?" + query.map { "\($0.name)=\($0.value)" }.joined(separator: "&") }
        var wire = HTTPRequest(origin: origin, method: request.method, target: target)
        wire.headers.reserveCapacity(headers.count + 2)
        for header in headers { wire.headers.add(name: header.name, value: header.value) }
        wire.headers.add(name: "authorization", value: authorization)
        wire.headers.add(name: "user-agent", value: Self.userAgent)
        wire.body = request.body
        wire.limit = request.limit
        wire.timeouts = HTTPTimeouts(
            connect: configuration.connectTimeout, idle: configuration.idleTimeout, leastRate: configuration.leastRate)
        return wire
    }

    /// Makes a bucket. AWS wants its region named, others don't know theirs by that name.
    func creation(of bucket: String, _ urgency: Urgency) -> S3Request {
        var request = S3Request(
            kind: .createBucket, bucket: bucket, key: nil, urgency: urgency, title: "CREATE BUCKET \(bucket)")
        if endpoint.regionalDomain != nil && endpoint.region != "us-east-1" {
            let xml =
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>"
                + "\(endpoint.region)</LocationConstraint></CreateBucketConfiguration>"
            request.body = ByteBuffer(string: xml)
            request.bodyHash = S3Signer.hash(Array(xml.utf8))
        }
        return request
    }

    // MARK: What is learned of the server

    /// Adopts the server's clock. false where that changes nothing.
    /// - Parameter tolerance: difference that isn't worth it, in seconds.
    func adoptClock(of answer: S3Answer, tolerance: Int64 = 1) -> Bool {
        guard let date = answer.headers.first(name: "date").flatMap(CivilTime.init(httpDate:)) else { return false }
        let offset = date.epoch - wallClock().seconds
        guard abs(offset - clockOffset) > tolerance else { return false }
        clockOffset = offset
        status.update { $0.clockOffset = offset }
        logger.warning(
            "this machine's clock differs from the store's, which is used for signatures",
            metadata: ["store": "\(storeName)", "seconds": "\(offset)"])
        return true
    }

    /// Where a redirection, or a refusal that names a region, sends us. nil where that is nowhere new.
    /// What is said to be for good is remembered.
    func redirected(by answer: S3Answer, from current: S3Place, bucket: String) -> S3Place? {
        guard let next = current.redirected(by: answer, bucket: bucket) else { return nil }
        if next.endpoint.origin.isTLS {
            // Reads the authorities' file on the event loop; once, and only from http to https.
            do throws(HTTPFailure) { try tls.prepare() } catch { return nil }
        }
        if answer.status == 302 || answer.status == 307 { return next }
        moved[bucket] = next
        logger.notice(
            "a bucket is elsewhere than the configuration says",
            metadata: [
                "store": "\(storeName)", "bucket": "\(bucket)", "region": "\(next.endpoint.region)",
                "endpoint": "\(next.endpoint.origin.url)",
            ])
        return next
    }

    func noteThatMD5IsRefused() {
        if status.snapshot.refusesContentMD5 { return }
        status.update { $0.refusesContentMD5 = true }
        logger.notice(
            "the store refuses Content-MD5; bodies are protected by the signed SHA-256 alone",
            metadata: ["store": "\(storeName)"])
    }

    /// For the status.
    func noteCredentials() {
        let current = credentials.current
        status.update {
            $0.credentialSource = current?.source
            $0.credentialExpiration = current?.expiration
        }
    }
}
