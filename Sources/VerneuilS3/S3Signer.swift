import Crypto
import NIOHTTP1

/// AWS Signature Version 4. Everything that is sent is signed: method, path,
/// query, the headers given here, and the body by its SHA-256.
struct S3Signer {
    private var key: SymmetricKey?
    private var keyScope = ""
    private var keySecret = ""

    static let emptyBodyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    static func hash(_ body: some Sequence<UInt8> & Sendable) -> String {
        hexadecimal(SHA256.hash(data: Array(body)))
    }

    /// The Authorization header.
    /// - Parameters:
    ///   - path: as on the wire: encoded once, S3's own rule.
    ///   - query: encoded names and values.
    ///   - headers: lower-case names, trimmed values; all of them are signed.
    mutating func authorization(
        method: HTTPMethod, path: String, query: [(name: String, value: String)], headers: [(name: String, value: String)],
        bodyHash: String, credentials: S3Credentials, region: String, service: String, time: CivilTime
    ) -> String {
        let headers = headers.sorted { $0.name < $1.name }
        let query = query.sorted { ($0.name, $0.value) < ($1.name, $1.value) }
        let signedNames = headers.map(\.name).joined(separator: ";")
        var canonical = "\(method.rawValue)\n\(path)\n"
        canonical += query.map { "\($0.name)=\($0.value)" }.joined(separator: "&")
        canonical += "\n"
        for header in headers { canonical += "\(header.name):\(header.value)\n" }
        canonical += "\n\(signedNames)\n\(bodyHash)"

        let scope = "\(time.date)/\(region)/\(service)/aws4_request"
        let toSign = "AWS4-HMAC-SHA256\n\(time.basic)\n\(scope)\n" + hexadecimal(SHA256.hash(data: Array(canonical.utf8)))
        let key = signingKey(credentials.secretAccessKey, scope, date: time.date, region: region, service: service)
        let signature = hexadecimal(HMAC<SHA256>.authenticationCode(for: Array(toSign.utf8), using: key))
        return "AWS4-HMAC-SHA256 Credential=\(credentials.accessKeyID)/\(scope), "
            + "SignedHeaders=\(signedNames), Signature=\(signature)"
    }

    /// The same for a day.
    private mutating func signingKey(
        _ secret: String, _ scope: String, date: String, region: String, service: String
    ) -> SymmetricKey {
        if let key, keyScope == scope, keySecret == secret { return key }
        var key = SymmetricKey(data: Array("AWS4\(secret)".utf8))
        for part in [date, region, service, "aws4_request"] {
            key = SymmetricKey(data: HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: key))
        }
        (self.key, keyScope, keySecret) = (key, scope, secret)
        return key
    }
}
