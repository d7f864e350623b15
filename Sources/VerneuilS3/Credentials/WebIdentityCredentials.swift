import CVerneuil
import NIOHTTP1
import VerneuilSystem

/// Exchanges a token from a file (Kubernetes service accounts, OpenID Connect)
/// for credentials of a role, at the region's STS. By AWS_WEB_IDENTITY_TOKEN_FILE
/// and AWS_ROLE_ARN, or a profile's settings. The file is read anew each time.
public struct WebIdentityCredentials: CredentialProvider {
    private let environment: Environment
    private let region: String?
    private let tokenFile: String?
    private let role: String?
    private let session: String?

    public init(_ environment: Environment, region: String? = nil) {
        self.init(
            environment, region: region, tokenFile: environment["AWS_WEB_IDENTITY_TOKEN_FILE"],
            role: environment["AWS_ROLE_ARN"], session: environment["AWS_ROLE_SESSION_NAME"])
    }

    init(_ environment: Environment, region: String?, tokenFile: String?, role: String?, session: String?) {
        self.environment = environment
        self.region = environment["AWS_REGION"] ?? environment["AWS_DEFAULT_REGION"] ?? region
        self.tokenFile = tokenFile
        self.role = role
        self.session = session
    }

    public var name: String { "web identity" }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        guard let tokenFile else { throw .absent("AWS_WEB_IDENTITY_TOKEN_FILE is not set") }
        guard let role else { throw .failed("there is a web identity token file, but AWS_ROLE_ARN is not set") }
        let token = try readToken(tokenFile)
        let endpoint = try endpoint()
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"), ("Version", "2011-06-15"), ("RoleArn", role),
            ("RoleSessionName", session ?? "verneuil-\(getpid())"), ("WebIdentityToken", token),
        ].map { "\($0)=\(PercentEncoding.encode($1))" }.joined(separator: "&")
        let reply: CredentialContext.Reply
        do throws(HTTPFailure) {
            reply = try context.fetch(
                .POST, endpoint.origin, endpoint.target,
                headers: ["content-type": "application/x-www-form-urlencoded", "accept": "application/xml"],
                body: Array(form.utf8), timeout: 10)
        } catch {
            throw .failed("\(role) can't be assumed: \(error.message)")
        }
        guard reply.status == 200, let result = S3XML.all("Credentials", in: reply.text).first,
            let id = S3XML.text(of: "AccessKeyId", in: result),
            let secret = S3XML.text(of: "SecretAccessKey", in: result),
            let expiration = S3XML.text(of: "Expiration", in: result).flatMap(CivilTime.init(iso8601:))
        else {
            let code = S3XML.text(of: "Code", in: reply.text) ?? "no code"
            // Some services repeat in it what they were given.
            let message = (S3XML.text(of: "Message", in: reply.text) ?? "no message").replacing(token, with: "[the token]")
            throw .failed("\(role) can't be assumed: \(endpoint.origin.url) answered \(reply.status) \(code): \(message)")
        }
        return S3Credentials(
            accessKeyID: id, secretAccessKey: secret, sessionToken: S3XML.text(of: "SessionToken", in: result),
            expiration: expiration.epoch, source: "\(name) as \(role)")
    }

    private func readToken(_ path: String) throws(CredentialError) -> String {
        let bytes: [UInt8]?
        do throws(SystemError) { bytes = try Files.read(path, limit: 1 << 18) } catch { throw .failed("\(error)") }
        guard let bytes else { throw .failed("there is no web identity token file \(path)") }
        return String(decoding: bytes, as: UTF8.self).filter { !$0.isWhitespace }
    }

    private func endpoint() throws(CredentialError) -> (origin: Origin, target: String) {
        if let url = environment["AWS_ENDPOINT_URL_STS"] {
            guard let parsed = Origin.parse(url: url) else {
                throw .failed("AWS_ENDPOINT_URL_STS must be a URL, found \"\(url)\"")
            }
            return parsed
        }
        return (Origin(isTLS: true, host: Self.host(ofSTSIn: region)), "/")
    }

    /// The region's own STS: the global one is a single point of failure, and slower.
    package static func host(ofSTSIn region: String?) -> String {
        guard let region, S3Endpoint.isAWSRegion(region) else { return "sts.amazonaws.com" }
        return "sts.\(region).\(region.hasPrefix("cn-") ? "amazonaws.com.cn" : "amazonaws.com")"
    }
}
