import NIOHTTP1
import VerneuilSystem

/// The endpoint that ECS and EKS give to a container, by
/// AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI, with the token of
/// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE (read anew each time) or _TOKEN.
public struct ContainerCredentials: CredentialProvider {
    private let environment: Environment
    /// Where relative URIs are.
    private let host: String

    public init(_ environment: Environment) {
        self.init(environment, host: "http://169.254.170.2")
    }

    /// - Parameter host: another one than ECS's, for tests.
    package init(_ environment: Environment, host: String) {
        self.environment = environment
        self.host = host
    }

    public var name: String { "the container" }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        let url: String
        if let relative = environment["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"] {
            url = host + (relative.hasPrefix("/") ? relative : "/\(relative)")
        } else if let full = environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
            url = full
        } else {
            throw .absent("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and AWS_CONTAINER_CREDENTIALS_FULL_URI are not set")
        }
        guard let (origin, target) = Origin.parse(url: url) else {
            throw .failed("the container's credentials URI is no URL: \"\(url)\"")
        }
        // The token must not travel in the clear through a network.
        guard origin.isTLS || Self.isOnThisHost(origin) || url.hasPrefix("\(host)/") else {
            throw .failed(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or lead to this host, found \"\(url)\"")
        }
        var headers: HTTPHeaders = ["accept": "application/json"]
        if let token = try token() { headers.add(name: "authorization", value: token) }
        let reply: CredentialContext.Reply
        do throws(HTTPFailure) {
            reply = try context.fetch(.GET, origin, target, headers: headers, timeout: 2)
        } catch {
            throw .failed(error.message)
        }
        guard reply.status == 200, let document = JSON(reply.body) else {
            let message = reply.status == 200 ? "no JSON" : (JSON(reply.body)?["message"]?.text ?? "")
            throw .failed("\(origin.url) answered \(reply.status) \(message)")
        }
        return try S3Credentials(document, token: "Token", source: "\(name) at \(origin.url)")
    }

    private func token() throws(CredentialError) -> String? {
        guard let path = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] else {
            return environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        }
        let bytes: [UInt8]?
        do throws(SystemError) { bytes = try Files.read(path, limit: 1 << 16) } catch { throw .failed("\(error)") }
        guard let bytes else { throw .failed("there is no AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE \(path)") }
        return String(decoding: bytes, as: UTF8.self).filter { !$0.isNewline }
    }

    /// The loopback, and the addresses of the ECS and EKS agents.
    private static func isOnThisHost(_ origin: Origin) -> Bool {
        origin.host == "localhost" || origin.isAddress && origin.host.hasPrefix("127.")
            || ["::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"].contains(origin.host)
    }
}
