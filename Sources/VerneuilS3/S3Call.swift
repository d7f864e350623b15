import Logging
import NIOCore
import VerneuilStore

/// One operation from its first try to its end. Confined to its event loop.
///
/// | answer | what follows |
/// |---|---|
/// | no connection, broken connection, time-out, 408, 429, 5xx, and S3's codes for the same | tries again, after a random pause that grows |
/// | a body damaged on its way (BadDigest, ...) | the same |
/// | the clock is off (RequestTimeTooSkewed) | takes the server's, tries again at once |
/// | credentials expired or unknown | gets new ones, and where they differ tries again at once |
/// | 400 or 403 to a HEAD, which has no body to say why | looks for each of these |
/// | the bucket is elsewhere, or in another region | goes there, or signs for it |
/// | Content-MD5 is refused | tries without it, and remembers if that helps |
/// | no such bucket, and buckets may be made | makes it, tries again |
/// | anything else | is the answer |
final class S3Call {
    private let request: S3Request
    private let client: S3Client
    private let completion: (Result<S3Answer, StoreError>) -> Void
    private var failedTries = 0
    private var sent = 0
    private var mayHaveHappened = false
    /// Remedies are tried once each, redirections twice.
    private var hasSetClock = false
    private var hasChangedCredentials = false
    private var hasCreatedBucket = false
    private var redirections = 0
    /// Where a redirection that is not for good has sent us.
    private var place: S3Place?
    /// What the last try was sent with. Another call may have learned better before the answer came: then that is the remedy.
    private var sentTo: S3Place?
    private var sentOffset: Int64 = 0
    private var hasDroppedMD5 = false

    /// Longest pause before a try, in seconds, also where the server asks for more.
    private static let longestPause = 20.0

    init(_ request: S3Request, _ client: S3Client, _ completion: @escaping (Result<S3Answer, StoreError>) -> Void) {
        self.request = request
        self.client = client
        self.completion = completion
    }

    func start() {
        client.pacer(request.urgency).admit { [self] in
            client.credentials.get { [self] result in
                switch result {
                case .success(let held): send(held)
                case .failure(let failure): fail(.denied, failure.reason)
                }
            }
        }
    }

    private func send(_ held: CredentialCache.Held) {
        client.noteCredentials()
        client.status.count(request.counter)
        if sent > 0 { client.status.count(\.retries) }
        sent += 1
        let resent = { [self] in
            // It was sent, and may have been seen.
            mayHaveHappened = true
            client.status.count(\.staleConnections)
            client.status.count(request.counter)
            client.pacer(request.urgency).charge()
        }
        sentTo = place ?? client.place(of: request.bucket)
        sentOffset = client.clockOffset
        let wire = client.wireRequest(request, held.credentials, at: place, withoutMD5: hasDroppedMD5)
        client.pool.execute(wire, resent: resent) { [self] result in
            switch result {
            case .success(let answer): judge(S3Answer(answer), held)
            case .failure(.untrusted(let reason)): fail(.invalid, reason)
            case .failure(.tooLarge(let size)):
                fail(.tooLarge, "the object has \(size) bytes or more, and may have \(request.limit)")
            case .failure(.unreachable(let reason)): tryAgain(reason)
            case .failure(let failure):
                mayHaveHappened = true
                tryAgain(failure.message)
            }
        }
    }

    private func judge(_ answer: S3Answer, _ held: CredentialCache.Held) {
        let error = (200..<300).contains(answer.status) && !mayHideError ? nil : answer.error
        let code = error?.code ?? ""
        switch (answer.status, code) {
        case (_, "RequestTimeTooSkewed") where !hasSetClock && (client.adoptClock(of: answer) || client.clockOffset != sentOffset):
            hasSetClock = true
            start()
        case (400...403, _) where Self.codesOfCredentials.contains(code) && !hasChangedCredentials:
            hasChangedCredentials = true
            client.credentials.replace(held) { [self] isNew in
                if isNew { start() } else { finish(answer) }
            }
        case (301, _), (302, _), (307, _), (308, _), (400, "AuthorizationHeaderMalformed"):
            if follow(answer) { start() } else { finish(answer) }
        case (400...403, "") where request.method == .HEAD:
            if follow(answer) { return start() }
            if !hasSetClock
                && (client.adoptClock(of: answer, tolerance: Self.clockTolerance) || abs(client.clockOffset - sentOffset) > Self.clockTolerance)
            {
                hasSetClock = true
                return start()
            }
            if hasChangedCredentials { return finish(answer) }
            hasChangedCredentials = true
            client.credentials.replace(held) { [self] isNew in
                if isNew { start() } else { finish(answer) }
            }
        case _ where !hasDroppedMD5 && mayRefuseMD5(answer):
            hasDroppedMD5 = true
            start()
        case (200..<300, "") where hasDroppedMD5:
            client.noteThatMD5IsRefused()
            finish(answer)
        case (404, "NoSuchBucket")
        where request.method == .PUT && request.kind != .createBucket && client.configuration.createBucketsOnDemand
            && !hasCreatedBucket:
            hasCreatedBucket = true
            createBucket()
        case (501, _):
            finish(answer)
        case _ where Self.isTransient(answer.status, code):
            if answer.status == 429 || answer.status == 503 || code == "SlowDown" { client.status.count(\.throttled) }
            if answer.status >= 500 || answer.status < 300 { mayHaveHappened = true }
            let pause = answer.headers.first(name: "retry-after").flatMap { Double($0) }
            tryAgain("the store answered \(S3Call.describe(answer))", pause)
        default:
            finish(answer)
        }
    }

    /// COPY starts its answer before it knows how it ends, and PUT has no body where it went well.
    private var mayHideError: Bool { request.kind == .touch || request.kind == .put }

    private func follow(_ answer: S3Answer) -> Bool {
        let known = client.place(of: request.bucket)
        let from = sentTo ?? known
        guard redirections < 2 else { return false }
        if place == nil, known != from {
            redirections += 1
            return true
        }
        guard let next = client.redirected(by: answer, from: from, bucket: request.bucket) else { return false }
        redirections += 1
        place = next
        return true
    }

    /// Seconds that AWS's servers and their clients may differ: fifteen minutes, less what may come in addition.
    private static let clockTolerance: Int64 = 600

    /// Whether it may be for the header. A conditional PUT has others that a store may not know.
    private func mayRefuseMD5(_ answer: S3Answer) -> Bool {
        guard answer.status == 400 || answer.status == 501, let error = answer.error, error.code != "BadDigest",
            request.headers.contains(where: { $0.name == "content-md5" })
        else { return false }
        if error.code == "InvalidDigest" || error.names("content-md5") { return true }
        return answer.status == 501 && !request.isConditionalPut
    }

    private static let codesOfCredentials: Set<String> = [
        "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId",
        "InvalidClientTokenId", "SignatureDoesNotMatch", "RequestExpired",
    ]

    private static let transientCodes: Set<String> = [
        "RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException",
        "TooManyRequests", "OperationAborted", "ConditionalRequestConflict",
        // The body did not arrive as it was sent.
        "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
    ]

    private static func isTransient(_ status: Int, _ code: String) -> Bool {
        status == 408 || status == 429 || status >= 500 || transientCodes.contains(code)
    }

    /// "503 SlowDown: Please reduce your request rate."
    static func describe(_ answer: S3Answer) -> String {
        guard let error = answer.error else { return String(answer.status) }
        return "\(answer.status) \(error.code)" + (error.message.isEmpty ? "" : ": \(error.message)")
    }

    private func createBucket() {
        S3Call(client.creation(of: request.bucket, request.urgency), client) { [self] result in
            switch result {
            case .failure(let error):
                completion(.failure(error))
            case .success(let answer):
                if S3Store.isCreated(answer) {
                    client.logger.notice(
                        "made a bucket", metadata: ["store": "\(client.storeName)", "bucket": "\(request.bucket)"])
                    start()
                } else {
                    client.status.count(\.failures)
                    completion(
                        .failure(
                            S3Store.error(
                                for: answer, client.creation(of: request.bucket, request.urgency), client)))
                }
            }
        }.start()
    }

    private func tryAgain(_ reason: String, _ asked: Double? = nil) {
        failedTries += 1
        guard failedTries <= client.configuration.retries else {
            let tries = failedTries == 1 ? "" : " (\(failedTries) tries)"
            return fail(.unavailable, reason + tries)
        }
        let ceiling = min(client.configuration.retryPause * Double(1 << min(failedTries - 1, 10)), Self.longestPause)
        let pause = max(Double.random(in: 0...max(ceiling, 0.001)), min(asked ?? 0, Self.longestPause))
        client.logger.debug(
            "will try again",
            metadata: [
                "store": "\(client.storeName)", "operation": "\(request.title)", "reason": "\(reason)",
                "seconds": "\(pause)",
            ])
        client.loop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(pause * 1e9))) { [self] in start() }
    }

    private func finish(_ answer: S3Answer) {
        var answer = answer
        answer.mayHaveHappenedBefore = mayHaveHappened
        completion(.success(answer))
    }

    private func fail(_ kind: StoreError.Kind, _ reason: String) {
        client.status.count(\.failures)
        completion(.failure(StoreError(kind, store: client.storeName, operation: request.title, reason: reason)))
    }
}
