import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// A real S3 server on the loopback (Tests/Servers/README.md says which, and
/// what each of them is good for).
public final class S3Server: Sendable {
    public enum Kind: String, Sendable, CaseIterable {
        case rclone, ceph, ministack, moto, swift

        /// Whether it refuses what is signed with a wrong secret, as it is started here.
        public var checksSignatures: Bool { self != .moto && self != .ministack }
        /// Whether If-Match and If-None-Match on PUT hold.
        public var keepsConditions: Bool { self == .ceph || self == .ministack }
        /// Whether keys are taken as they are, up to 1,024 bytes. (rclone stores them as files.)
        public var takesAnyKey: Bool { self != .rclone }
        /// Whether a copy onto itself makes an object young. (rclone does nothing.)
        public var renewsAge: Bool { self != .rclone }
    }

    /// The kinds to test with: `usual`, or those that VERNEUIL_TEST_SERVERS names, separated by commas.
    public static func underTest(_ usual: [Kind]) -> [Kind] {
        guard let names = getenv("VERNEUIL_TEST_SERVERS").map({ String(cString: $0) }), !names.isEmpty else { return usual }
        return names.split(separator: ",").compactMap { Kind(rawValue: String($0)) }
    }

    public let kind: Kind
    public let port: Int
    public let isTLS: Bool
    public let accessKey: String
    public let secretKey: String
    public let process: SupervisedProcess

    /// By address, for path-style requests.
    public var endpoint: String { "\(isTLS ? "https" : "http")://127.0.0.1:\(port)" }
    /// By name, for buckets as subdomains.
    public var domainEndpoint: String { "\(isTLS ? "https" : "http")://s3.localhost:\(port)" }

    private static let lock = Lock()
    nonisolated(unsafe) private static var shared: [Kind: Result<S3Server, any Error>] = [:]

    /// The one that all tests of this process share: take bucket names of your own.
    public static func rclone() throws -> S3Server { try shared(.rclone) }
    public static func ceph() throws -> S3Server { try shared(.ceph) }
    public static func ministack() throws -> S3Server { try shared(.ministack) }

    public static func shared(_ kind: Kind) throws -> S3Server {
        try lock.withLock {
            let result = shared[kind] ?? Result { try S3Server(kind) }
            shared[kind] = result
            return try result.get()
        }
    }

    /// Starts one of one's own.
    /// - Parameters:
    ///   - certificate: speaks HTTPS with it.
    ///   - virtualHosts: rclone alone has to be told; it then knows no path style.
    public init(_ kind: Kind, certificate: TestCertificate? = nil, virtualHosts: Bool = false) throws {
        self.kind = kind
        isTLS = certificate != nil
        accessKey = kind == .swift ? "test:tester" : "testkey"
        secretKey = "testsecret"
        var environment = ["S3_KEY": accessKey, "S3_SECRET": secretKey]
        if let certificate {
            environment["TLS_CERT"] = certificate.certificate
            environment["TLS_KEY"] = certificate.key
        }
        if virtualHosts && kind == .rclone { environment["VHOST"] = "1" }
        // Ceph takes the ports after its own.
        port = SupervisedProcess.freePort(count: kind == .ceph ? 20 : 4)
        process = try SupervisedProcess(
            ["\(SupervisedProcess.scripts)/start-\(kind.rawValue).sh", String(port), "DIR"], environment: environment)
        // What it has to install first takes its time.
        try process.awaitPort(port, seconds: 300)
    }

    public func stop() { process.stop() }

    /// A name for a bucket that no other test has.
    public static func uniqueBucket(_ purpose: String = "bucket") -> String {
        "\(purpose)-\(String(UInt64.random(in: 0 ... .max), radix: 36))"
    }
}

/// A self-signed certificate for localhost, s3.localhost, *.s3.localhost and 127.0.0.1.
public final class TestCertificate: Sendable {
    public let certificate: String
    public let key: String
    private let directory: String

    public init() throws {
        directory = SupervisedProcess.temporaryName()
        certificate = "\(directory)/cert.pem"
        key = "\(directory)/key.pem"
        try SupervisedProcess.run(["bash", "\(SupervisedProcess.scripts)/mkcert.sh", directory])
    }

    deinit { try? Files.removeTree(directory) }
}
