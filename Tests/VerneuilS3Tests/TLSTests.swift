import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// HTTPS against a real server: whom the client trusts, and what it says where it doesn't.
@Suite struct TLSTests {
    private struct Fixture {
        let certificate: TestCertificate
        let server: S3Server
    }
    private static let shared = Result {
        let certificate = try TestCertificate()
        return Fixture(certificate: certificate, server: try S3Server(.rclone, certificate: certificate))
    }
    private let certificate: TestCertificate
    private let server: S3Server

    init() throws {
        let fixture = try Self.shared.get()
        (certificate, server) = (fixture.certificate, fixture.server)
    }

    private func stores(_ host: String) -> Stores {
        var stores = Stores(server)
        stores.endpoint = "https://\(host):\(server.port)"
        return stores
    }

    @Test(arguments: ["localhost", "127.0.0.1", "s3.localhost"])
    func theBundlesAuthoritiesAreTrusted(host: String) throws {
        let store = try stores(host).make(environment: ["AWS_CA_BUNDLE": certificate.certificate])
        try store.prepare()
        let body = randomBytes(300_000)
        try store.put(PutRequest(.chunks, "k", body))
        #expect(try store.body(.chunks, "k") == body)
        #expect(store.counters.connectionsOpened <= 2)
    }

    @Test(arguments: ["localhost", "127.0.0.1"]) func anUnknownAuthorityIsRefused(host: String) throws {
        let store = try stores(host).make()
        let errors = [
            failure { () throws(StoreError) in try store.prepare() },
            failure { () throws(StoreError) in try store.put(PutRequest(.chunks, "k", [1])) },
        ]
        for error in errors {
            #expect(error?.kind == .invalid)
            #expect(error?.reason.contains("not signed by an authority that this machine trusts") == true)
            #expect(error?.reason.contains("AWS_CA_BUNDLE") == true && error?.reason.contains("https://\(host)") == true)
        }
        // Another try won't help.
        #expect(store.counters.retries == 0)
    }

    /// A bundle is instead of the system's authorities, not in addition.
    @Test func anotherBundleIsRefused() throws {
        let other = try TestCertificate()
        let store = try stores("localhost").make(environment: ["AWS_CA_BUNDLE": other.certificate])
        #expect(failure { () throws(StoreError) in try store.prepare() }?.kind == .invalid)
    }

    /// Also where the certificate names the address that the host has: who can lead a name to an address of his own must not
    /// get by with a certificate for that.
    @Test(arguments: ["wrong.localhost", "x.y.s3.localhost"]) func anotherHostIsRefused(host: String) throws {
        let store = try stores(host).make(environment: ["AWS_CA_BUNDLE": certificate.certificate])
        let error = failure { () throws(StoreError) in try store.prepare() }
        #expect(error?.kind == .invalid)
        #expect(error?.reason.contains("not made out to the host \(host)") == true, "\(error?.description ?? "")")
        #expect(store.counters.retries == 0)
    }

    @Test func aBundleThatCannotBeReadIsNamed() throws {
        for (path, says) in [("/no/such/bundle.pem", "can't be read"), (certificate.key, "no certificates")] {
            let store = try stores("localhost").make(environment: ["AWS_CA_BUNDLE": path])
            let error = failure { () throws(StoreError) in try store.prepare() }
            #expect(error?.kind == .invalid)
            #expect(error?.reason.contains("AWS_CA_BUNDLE") == true && error?.reason.contains(says) == true, "\(error?.description ?? "")")
        }
    }

    @Test func aServerWithoutTLSIsSeen() throws {
        let plain = try FakeS3()
        let store = try Stores(endpoint: "https://localhost:\(plain.port)").make()
        let error = failure { () throws(StoreError) in try store.prepare() }
        #expect(error?.kind == .invalid)
        #expect(error?.reason.contains("https://localhost:\(plain.port) does not speak TLS") == true, "\(error?.description ?? "")")
        #expect(plain.requests.isEmpty)
    }

    @Test func aRedirectionToHTTPSIsFollowed() throws {
        let plain = try FakeS3()
        let stores = Stores(endpoint: plain.endpoint)
        let place = "https://localhost:\(server.port)"
        let buckets = [stores.chunks, stores.manifests]
        plain.change { $0.elsewhere = [buckets[0]: place, buckets[1]: place] }
        let store = try stores.make(environment: ["AWS_CA_BUNDLE": certificate.certificate])
        try store.prepare()
        try store.put(PutRequest(.chunks, "k", [1, 2]))
        #expect(try store.body(.chunks, "k") == [1, 2])
        #expect(plain.requests.allSatisfy { $0.status == 307 })
    }

    /// What is under TLS stays there.
    @Test func aRedirectionFromHTTPSToHTTPIsNot() throws {
        let plain = try FakeS3()
        let port = SupervisedProcess.freePort()
        let redirecting = try SupervisedProcess([
            "python3", "\(SupervisedProcess.scripts)/tlsredirect.py", String(port), certificate.certificate, certificate.key,
            plain.endpoint,
        ])
        defer { redirecting.stop() }
        try redirecting.awaitPort(port, seconds: 30)
        let store = try Stores(endpoint: "https://localhost:\(port)").make(
            environment: ["AWS_CA_BUNDLE": certificate.certificate])
        let errors = [
            failure { () throws(StoreError) in try store.prepare() },
            failure { () throws(StoreError) in try store.put(PutRequest(.chunks, "k", [1])) },
            failure { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 1)) },
        ]
        for error in errors { #expect(error?.kind == .invalid && error?.reason.contains(plain.endpoint) == true) }
        #expect(plain.requests.isEmpty)
    }

    /// The system's store is one file: in a mount namespace of its own, a program finds another one there.
    @Test func theSystemsAuthoritiesAreTrusted() throws {
        let tool = try #require(Self.beside("store-fork-tool"))
        let run = "\(tool) https://localhost:\(server.port) \(server.accessKey) \(server.secretKey) \(S3Server.uniqueBucket()) 2 2"
        let system = "/etc/ssl/certs/ca-certificates.crt"
        let refused = #expect(throws: SupervisedProcess.Failure.self) { try SupervisedProcess.run(["bash", "-c", run]) }
        #expect(refused?.description.contains("not signed by an authority") == true, "\(refused?.description ?? "")")
        let namespace = "mount --bind '\(certificate.certificate)' \(system) && exec \(run)"
        // Who isn't root may do that in a user namespace.
        try SupervisedProcess.run([
            "bash", "-c", "[ $(id -u) = 0 ] || user=--map-root-user; exec unshare --mount $user bash -c \"$0\"", namespace,
        ])
    }

    static func beside(_ name: String) -> String? {
        var directory = Files.directory(of: Files.canonical(CommandLine.arguments[0]) ?? "")
        while directory.count > 1 {
            let candidate = "\(directory)/\(name)"
            if (try? Files.status(candidate)) ?? nil != nil { return candidate }
            directory = Files.directory(of: directory)
        }
        return nil
    }
}

/// Stores in a parent that is busy while it forks, and in its children.
@Suite struct ForkTests {
    @Test func childrenUploadAsTheirParentsDo() throws {
        let server = try S3Server.rclone()
        let tool = try #require(TLSTests.beside("store-fork-tool"))
        try SupervisedProcess.run([
            tool, server.endpoint, server.accessKey, server.secretKey, S3Server.uniqueBucket(), "20", "3",
        ])
    }
}
