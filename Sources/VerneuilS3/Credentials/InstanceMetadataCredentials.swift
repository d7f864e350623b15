import NIOHTTP1
import Synchronization
import VerneuilSystem

/// The role of an EC2 instance, from its metadata service: version 2, by a
/// session token; version 1 where there is no such token to be had: an old
/// service answers 403, 404 or 405, and to a container one network hop further
/// away than is allowed, it does not answer at all.
///
/// AWS_EC2_METADATA_DISABLED, AWS_EC2_METADATA_SERVICE_ENDPOINT,
/// AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE (IPv6) and AWS_EC2_METADATA_V1_DISABLED apply.
public struct InstanceMetadataCredentials: CredentialProvider {
    private let environment: Environment
    /// The session token, while it lasts.
    private final class Session: Sendable {
        let lock = Lock()
        nonisolated(unsafe) var token: (text: String, until: MonotonicTime)?
    }
    private let session = Session()

    /// Seconds: AWS's default for its own clients.
    private static let timeout = 1.0
    private static let tokenLifetime = 21_600.0

    public init(_ environment: Environment) { self.environment = environment }

    public var name: String { "instance metadata" }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        if environment["AWS_EC2_METADATA_DISABLED"]?.lowercased() == "true" {
            throw .absent("AWS_EC2_METADATA_DISABLED is true")
        }
        let isIPv6 = environment["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"]?.lowercased() == "ipv6"
        let url =
            environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
            ?? (isIPv6 ? "http://[fd00:ec2::254]" : "http://169.254.169.254")
        guard let (origin, target) = Origin.parse(url: url), target == "/" else {
            throw .failed("AWS_EC2_METADATA_SERVICE_ENDPOINT must be a URL without a path, found \"\(url)\"")
        }
        let path = "/latest/meta-data/iam/security-credentials/"
        var isRenewed = false
        while true {
            let token = try token(context, origin)
            let list = try get(context, origin, path, token)
            // The token was dropped by the service, by a restart for instance.
            if list.status == 401, token != nil, !isRenewed {
                isRenewed = true
                forget()
                continue
            }
            if list.status == 401, token == nil {
                throw .failed(
                    "\(origin.url) wants version 2, but gave no session token: in a container, the instance's "
                        + "HttpPutResponseHopLimit has to be 2")
            }
            if list.status == 404 { throw .absent("this instance has no role") }
            guard list.status == 200, let role = list.text.split(whereSeparator: \.isNewline).first else {
                throw .failed("\(origin.url)\(path) answered \(list.status)")
            }
            let reply = try get(context, origin, path + PercentEncoding.encode(String(role)), token)
            guard reply.status == 200, let document = JSON(reply.body) else {
                throw .failed("\(origin.url)\(path)\(role) answered \(reply.status)")
            }
            if let code = document["Code"]?.text, code != "Success" {
                throw .failed("role \(role): \(code): \(document["Message"]?.text ?? "no message")")
            }
            return try S3Credentials(document, token: "Token", source: "\(name), role \(role)")
        }
    }

    private func get(
        _ context: CredentialContext, _ origin: Origin, _ path: String, _ token: String?
    ) throws(CredentialError) -> CredentialContext.Reply {
        do throws(HTTPFailure) {
            return try context.fetch(
                .GET, origin, path, headers: token.map { ["x-aws-ec2-metadata-token": $0] } ?? [:], timeout: Self.timeout)
        } catch {
            switch error {
            case .unreachable, .timedOut: throw .absent(error.message)
            default: throw .failed(error.message)
            }
        }
    }

    /// nil: version 1 has to do.
    private func token(_ context: CredentialContext, _ origin: Origin) throws(CredentialError) -> String? {
        if let known = session.lock.withLock({ session.token }), known.until > .now { return known.text }
        let reply: CredentialContext.Reply
        do throws(HTTPFailure) {
            reply = try context.fetch(
                .PUT, origin, "/latest/api/token",
                headers: ["x-aws-ec2-metadata-token-ttl-seconds": String(Int(Self.tokenLifetime))],
                timeout: Self.timeout, tries: 1)
        } catch {
            switch error {
            case .unreachable: throw .absent(error.message)
            // Somebody is there, but the answer has no hop left.
            default: return try versionOne("no session token: \(error.message)")
            }
        }
        switch reply.status {
        case 200:
            let text = String(reply.text.filter { !$0.isWhitespace })
            session.lock.withLock {
                session.token = (text, MonotonicTime.now.advanced(seconds: Self.tokenLifetime * 0.9))
            }
            return text
        case 403, 404, 405:
            return try versionOne("\(origin.url) answered \(reply.status) when asked for a session token")
        default:
            throw .failed("\(origin.url) answered \(reply.status) when asked for a session token")
        }
    }

    private func versionOne(_ reason: String) throws(CredentialError) -> String? {
        if environment["AWS_EC2_METADATA_V1_DISABLED"]?.lowercased() == "true" {
            throw .absent("\(reason); AWS_EC2_METADATA_V1_DISABLED is true")
        }
        return nil
    }

    private func forget() { session.lock.withLock { session.token = nil } }
}
