import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// The standard chain, each provider against a local fake of its endpoint, as
/// AWS's own variables set it. What arrives at a store is what counts.
@Suite struct CredentialTests {
    let s3: FakeS3
    let log = LogCapture()
    let directory: String

    init() throws {
        s3 = try FakeS3()
        s3.put("bucket", "k", [1, 2, 3])
        directory = "/tmp/verneuil-credentials-\(String(UInt64.random(in: 0 ... .max), radix: 36))"
        try Files.makeDirectories(directory)
    }

    private func file(_ name: String, _ text: String) throws -> String {
        try Files.writeAtomically(Array(text.utf8), to: "\(directory)/\(name)", isOnlyWriter: true)
        return "\(directory)/\(name)"
    }

    /// A store with the chain, or with `provider`, in that environment alone.
    private func store(_ environment: [String: String], provider: (any CredentialProvider)? = nil) throws -> S3Store {
        var environment = environment
        if environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] == nil { environment["AWS_EC2_METADATA_DISABLED"] = "true" }
        let configuration = S3Configuration(
            region: "eu-west-1", endpoint: s3.endpoint, chunkBucket: "bucket", manifestBucket: "bucket",
            domainAddressing: false, pacing: S3Pacing(background: nil, flush: nil))
        return try S3Store(
            configuration, credentials: provider, environment: Environment(environment), logger: log.logger)
    }

    /// Fetches an object; answers with who asked, as the server saw it: "key/token".
    private func identity(_ store: S3Store) throws -> String {
        _ = try store.get(GetRequest(.chunks, "k", limit: 10))
        let request = try #require(s3.requests.last)
        #expect(!log.text.contains("TOPSECRET"), "\(log.text)")
        return request.accessKey + (request.headers["x-amz-security-token"].map { "/\($0)" } ?? "")
    }

    private func refusal(_ store: S3Store) -> StoreError? {
        let error = failure { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 10)) }
        #expect(error?.kind == .denied)
        #expect(s3.requests.isEmpty)
        #expect(error?.description.contains("TOPSECRET") == false && !log.text.contains("TOPSECRET"))
        return error
    }

    private static func document(_ name: String, seconds: Int64 = 3600, type: String = "Token") -> String {
        """
        {"Code": "Success", "Version": 1, "AccessKeyId": "AK\(name)", "SecretAccessKey": "TOPSECRET\(name)",
         "\(type)": "TOKEN\(name)", "Expiration": "\(Clock.iso(wallClock().seconds + seconds))"}
        """
    }

    // MARK: Environment and files

    @Test func theEnvironmentComesFirst() throws {
        let credentials = try file("credentials", "[default]\naws_access_key_id=AKfile\naws_secret_access_key=TOPSECRETfile\n")
        let environment = [
            "AWS_ACCESS_KEY_ID": "AKenv", "AWS_SECRET_ACCESS_KEY": "TOPSECRETenv", "AWS_SESSION_TOKEN": "T",
            "AWS_SHARED_CREDENTIALS_FILE": credentials,
        ]
        #expect(try identity(store(environment)) == "AKenv/T")
        #expect(try identity(store(environment.filter { !$0.key.hasSuffix("_KEY_ID") && !$0.key.hasSuffix("TOKEN") })) == "AKfile")
    }

    /// In a process that runs on. The first request after the correction may still come too early.
    @Test func aFileThatIsCorrectedServesSoonAfterItsKeyWasRefused() throws {
        let path = try file("credentials", "[default]\naws_access_key_id=AKwrong\naws_secret_access_key=TOPSECRETwrong\n")
        s3.change { $0.judge = { key, _ in key == "AKwrong" ? (403, "SignatureDoesNotMatch") : nil } }
        let store = try store(["AWS_SHARED_CREDENTIALS_FILE": path])
        #expect(throws: StoreError.self) { try store.get(GetRequest(.chunks, "k", limit: 10)) }
        let refused = MonotonicTime.now
        _ = try file("credentials", "[default]\naws_access_key_id=AKright\naws_secret_access_key=TOPSECRETright\n")
        var seconds = 0.0, isServed = false
        while !isServed, seconds < 8 {
            Threads.pause(microseconds: 100_000)
            isServed = (try? store.get(GetRequest(.chunks, "k", limit: 10))) != nil
            seconds = MonotonicTime.now.seconds(since: refused)
        }
        #expect(isServed, "not within \(seconds) s")
        #expect(try identity(store) == "AKright")
    }

    @Test func halfAnIdentityIsAnErrorNotAnother() throws {
        let credentials = try file("credentials", "[default]\naws_access_key_id=AKfile\naws_secret_access_key=TOPSECRETfile\n")
        let error = refusal(try store(["AWS_ACCESS_KEY_ID": "AKenv", "AWS_SHARED_CREDENTIALS_FILE": credentials]))
        #expect(error?.reason.contains("AWS_SECRET_ACCESS_KEY is not") == true)
    }

    @Test func profilesComeFromBothFiles() throws {
        let environment = [
            "AWS_SHARED_CREDENTIALS_FILE": try file(
                "credentials",
                """
                # a comment
                [default]
                aws_access_key_id = AKdefault
                aws_secret_access_key = TOPSECRETdefault

                [other]
                aws_access_key_id=AKother ; another comment
                aws_secret_access_key=TOPSECRETother
                aws_session_token=Tother
                """),
            "AWS_CONFIG_FILE": try file(
                "config",
                """
                [default]
                region = eu-west-1
                [profile other]
                aws_access_key_id = AKwrong
                aws_secret_access_key = TOPSECRETwrong
                s3 =
                  aws_access_key_id = AKnested
                [profile  third ]
                aws_access_key_id = AKthird
                aws_secret_access_key = TOPSECRETthird
                """),
        ]
        #expect(try identity(store(environment)) == "AKdefault")
        #expect(try identity(store(environment.merging(["AWS_PROFILE": "other"]) { $1 })) == "AKother/Tother")
        #expect(try identity(store(environment.merging(["AWS_PROFILE": "third"]) { $1 })) == "AKthird")
        s3.reset()
        let error = refusal(try store(environment.merging(["AWS_PROFILE": "fourth"]) { $1 }))
        #expect(error?.reason.contains("has no profile \"fourth\"") == true)
    }

    @Test func homeHasTheFilesUnlessToldOtherwise() throws {
        try Files.makeDirectories("\(directory)/.aws")
        _ = try file(".aws/credentials", "[default]\naws_access_key_id=AKhome\naws_secret_access_key=TOPSECREThome\n")
        #expect(try identity(store(["HOME": directory])) == "AKhome")
        let given = ["HOME": directory, "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"]
        #expect(try identity(store(given)) == "AKhome")
    }

    @Test func rotatedFilesAreReadAgainOnceTheOldKeysAreRefused() throws {
        let path = try file("credentials", "[default]\naws_access_key_id=AKold\naws_secret_access_key=TOPSECRETold\n")
        let store = try store(["AWS_SHARED_CREDENTIALS_FILE": path])
        #expect(try identity(store) == "AKold")
        _ = try file("credentials", "[default]\naws_access_key_id=AKnew\naws_secret_access_key=TOPSECRETnew\n")
        s3.change { $0.judge = { key, _ in key == "AKold" ? (403, "InvalidAccessKeyId") : nil } }
        #expect(try identity(store) == "AKnew")
    }

    @Test func aProgramIsAsked() throws {
        let output = try file("output", Self.document("process", type: "SessionToken"))
        let config = try file("config", "[profile p]\ncredential_process = cat \(output)\n")
        let store = try store(["AWS_CONFIG_FILE": config, "AWS_PROFILE": "p"])
        #expect(try identity(store) == "AKprocess/TOKENprocess")
        #expect(try #require(store.status.credentialExpiration) > wallClock().seconds + 3000)
    }

    @Test(arguments: [
        ("echo TOPSECRET; exit 0", "did not print a JSON object"), ("echo '{\"Version\": 1}'; exit 3", "failed"),
        ("echo '{\"Version\": 2, \"SecretAccessKey\": \"TOPSECRET\"}'", "without \"Version\": 1"),
        ("echo '{\"Version\": 1, \"SecretAccessKey\": \"TOPSECRET\"}'", "no AccessKeyId"),
        ("/no/such/program", "failed"),
    ]) func aProgramThatFailsIsNamedAndItsOutputNotShown(command: String, says: String) throws {
        let config = try file("config", "[default]\ncredential_process = \(command)\n")
        let error = refusal(try store(["AWS_CONFIG_FILE": config]))
        #expect(error?.reason.contains("credential_process") == true, "\(error?.reason ?? "")")
        #expect(error?.reason.contains(says) == true, "\(error?.reason ?? "")")
    }

    @Test func whatIsNotSupportedIsSaid() throws {
        let config = try file("config", "[default]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = x\n")
        let error = refusal(try store(["AWS_CONFIG_FILE": config]))
        #expect(error?.reason.contains("role_arn") == true && error?.reason.contains("credential_process") == true)
    }

    // MARK: Web identity

    /// An STS that gives `name` for the token "WEBTOKEN".
    private func sts(_ name: String = "sts") throws -> (server: LoopbackServer, forms: Box<[String]>) {
        let forms = Box<[String]>([])
        let server = try LoopbackServer { request in
            let form = String(decoding: request.body, as: UTF8.self)
            forms.change { $0.append(form) }
            guard request.method == "POST", form.contains("WebIdentityToken=WEBTOKEN") else {
                return .answer(
                    .init(400, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>bad: TOPSECRETWEB</Message></Error></ErrorResponse>"))
            }
            return .answer(
                .init(
                    200,
                    """
                    <AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
                    <SessionToken>TOKEN\(name)</SessionToken><SecretAccessKey>TOPSECRET\(name)</SecretAccessKey>
                    <Expiration>\(Clock.iso(wallClock().seconds + 3600))</Expiration><AccessKeyId>AK\(name)</AccessKeyId>
                    </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>
                    """))
        }
        return (server, forms)
    }

    @Test func aWebIdentityIsExchanged() throws {
        let (server, forms) = try sts()
        let environment = [
            "AWS_WEB_IDENTITY_TOKEN_FILE": try file("token", "WEBTOKEN\n"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_ROLE_SESSION_NAME": "session", "AWS_ENDPOINT_URL_STS": server.endpoint,
        ]
        let store = try store(environment)
        #expect(try identity(store) == "AKsts/TOKENsts")
        #expect(store.status.credentialSource == "web identity as arn:aws:iam::1:role/r")
        let form = try #require(forms.value.first)
        for part in [
            "Action=AssumeRoleWithWebIdentity", "Version=2011-06-15", "RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr",
            "RoleSessionName=session",
        ] { #expect(form.contains(part)) }
    }

    @Test func aProfileMayHaveAWebIdentity() throws {
        let (server, _) = try sts("profile")
        let config = try file(
            "config",
            "[profile w]\nweb_identity_token_file = \(try file("token", "WEBTOKEN"))\nrole_arn = arn:aws:iam::1:role/w\n")
        let environment = ["AWS_CONFIG_FILE": config, "AWS_PROFILE": "w", "AWS_ENDPOINT_URL_STS": server.endpoint]
        #expect(try identity(store(environment)) == "AKprofile/TOKENprofile")
    }

    @Test func aRefusedWebIdentityIsExplainedWithoutIt() throws {
        let (server, forms) = try sts()
        let environment = [
            "AWS_WEB_IDENTITY_TOKEN_FILE": try file("token", "TOPSECRETWEB"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_ENDPOINT_URL_STS": server.endpoint,
        ]
        let error = refusal(try store(environment))
        #expect(error?.reason.contains("400 InvalidIdentityToken: bad: [the token]") == true, "\(error?.reason ?? "")")
        #expect(forms.value.count == 1)
        let missing = refusal(try store(environment.merging(["AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token"]) { $1 }))
        #expect(missing?.reason.contains("/no/token") == true)
    }

    @Test func theRegionsOwnSTSIsAsked() {
        #expect(WebIdentityCredentials.host(ofSTSIn: "eu-west-1") == "sts.eu-west-1.amazonaws.com")
        #expect(WebIdentityCredentials.host(ofSTSIn: "cn-north-1") == "sts.cn-north-1.amazonaws.com.cn")
        #expect(WebIdentityCredentials.host(ofSTSIn: "storage") == "sts.amazonaws.com")
        #expect(WebIdentityCredentials.host(ofSTSIn: nil) == "sts.amazonaws.com")
    }

    // MARK: Containers

    private func agent(_ answer: @escaping @Sendable (LoopbackServer.Request) -> LoopbackServer.Answer) throws -> LoopbackServer {
        try LoopbackServer { .answer(answer($0)) }
    }

    @Test func aContainersFullURIIsAskedWithItsTokenFile() throws {
        let seen = Box<[String]>([])
        let server = try agent { request in
            seen.change { $0.append("\(request.method) \(request.path)?\(request.query) \(request.headers["authorization"] ?? "-")") }
            return .init(200, Self.document("eks"))
        }
        let token = try file("token", "AUTH1\n")
        let environment = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "\(server.endpoint)/v1/credentials?x=1",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not this one",
        ]
        let store = try store(environment)
        #expect(try identity(store) == "AKeks/TOKENeks")
        // The file is read anew.
        _ = try file("token", "AUTH2\n")
        s3.change { $0.judge = { _, _ in (403, "ExpiredToken") } }
        #expect(throws: StoreError.self) { try store.get(GetRequest(.chunks, "k", limit: 10)) }
        #expect(seen.value == ["GET /v1/credentials?x=1 AUTH1", "GET /v1/credentials?x=1 AUTH2"])
    }

    @Test func aContainersRelativeURIIsAsked() throws {
        let seen = Box<[String]>([])
        let server = try agent { request in
            seen.change { $0.append("\(request.path) \(request.headers["authorization"] ?? "-")") }
            return .init(200, Self.document("ecs"))
        }
        let environment = Environment([
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/uuid",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "AUTH",
        ])
        let provider = ContainerCredentials(environment, host: server.endpoint)
        #expect(try identity(store([:], provider: provider)) == "AKecs/TOKENecs")
        #expect(seen.value == ["/v2/credentials/uuid AUTH"])
    }

    @Test func aContainersTokenIsNotSentThroughANetworkInTheClear() throws {
        for url in ["http://192.0.2.1/credentials", "http://credentials.example.com/", "ftp://localhost/"] {
            let error = refusal(try store(["AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "TOPSECRET"]))
            #expect(error?.reason.contains(url) == true)
        }
    }

    @Test func anAgentThatStumblesIsAskedAgain() throws {
        let asked = Box(0)
        let server = try agent { _ in
            asked.change { $0 += 1 }
            return asked.value < 3 ? .init(500, "") : .init(200, Self.document("late"))
        }
        #expect(try identity(store(["AWS_CONTAINER_CREDENTIALS_FULL_URI": server.endpoint])) == "AKlate/TOKENlate")
        #expect(asked.value == 3)
        let broken = try agent { _ in .init(404, "{\"message\": \"no such task\"}") }
        s3.reset()
        let error = refusal(try store(["AWS_CONTAINER_CREDENTIALS_FULL_URI": broken.endpoint]))
        #expect(error?.reason.contains("404 no such task") == true)
    }

    // MARK: Instance metadata

    private enum Metadata { case two, one(Int), silentToken, twoForOthersOnly }

    /// The service of an instance with the role "app role".
    private func metadata(_ kind: Metadata, seconds: Int64 = 3600, tokens: Box<Set<String>> = Box([])) throws -> (LoopbackServer, Box<[String]>) {
        let seen = Box<[String]>([])
        let server = try LoopbackServer { request in
            seen.change { $0.append("\(request.method) \(request.path)") }
            if request.path == "/latest/api/token" {
                switch kind {
                case .one(let status): return .answer(.init(status, ""))
                case .silentToken, .twoForOthersOnly: return .silence
                case .two: break
                }
                guard request.method == "PUT", request.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "21600" else {
                    return .answer(.init(400, ""))
                }
                let token = "session-\(seen.value.count)"
                tokens.change { $0 = [token] }
                return .answer(.init(200, token))
            }
            switch kind {
            case .two:
                guard let token = request.headers["x-aws-ec2-metadata-token"], tokens.value.contains(token) else {
                    return .answer(.init(401, ""))
                }
            case .twoForOthersOnly: return .answer(.init(401, ""))
            case .one, .silentToken:
                if request.headers["x-aws-ec2-metadata-token"] != nil { return .answer(.init(400, "")) }
            }
            switch request.path {
            case "/latest/meta-data/iam/security-credentials/": return .answer(.init(200, "app role\n"))
            case "/latest/meta-data/iam/security-credentials/app%20role":
                return .answer(.init(200, Self.document("imds", seconds: seconds)))
            default: return .answer(.init(404, ""))
            }
        }
        return (server, seen)
    }

    private let path = "/latest/meta-data/iam/security-credentials/"

    @Test func instanceMetadataIsAskedWithASessionToken() throws {
        let (server, seen) = try metadata(.two)
        let store = try store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint])
        #expect(try identity(store) == "AKimds/TOKENimds")
        #expect(seen.value == ["PUT /latest/api/token", "GET \(path)", "GET \(path)app%20role"])
        #expect(store.status.credentialSource == "instance metadata, role app role")
    }

    /// 401: the service has forgotten the token, by a restart.
    @Test func aForgottenSessionTokenIsRenewed() throws {
        let tokens = Box<Set<String>>([])
        let (server, seen) = try metadata(.two, tokens: tokens)
        let store = try store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint])
        #expect(try identity(store) == "AKimds/TOKENimds")
        tokens.change { $0 = [] }
        s3.change { $0.faults = [FakeS3.Fault(.refuse(403, "ExpiredToken"), times: 1)] }
        // The same credentials come back: refused for good. What was asked is what matters.
        #expect(throws: StoreError.self) { try store.get(GetRequest(.chunks, "k", limit: 10)) }
        #expect(seen.value.dropFirst(3) == ["GET \(path)", "PUT /latest/api/token", "GET \(path)", "GET \(path)app%20role"])
    }

    @Test(arguments: [403, 404, 405]) func versionOneHasToDoWhereThereIsNoTwo(status: Int) throws {
        let (server, seen) = try metadata(.one(status))
        let environment = ["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint]
        #expect(try identity(store(environment)) == "AKimds/TOKENimds")
        #expect(seen.value.count == 3)
        s3.reset()
        let error = refusal(try store(environment.merging(["AWS_EC2_METADATA_V1_DISABLED": "true"]) { $1 }))
        #expect(error?.reason.contains("AWS_EC2_METADATA_V1_DISABLED is true") == true)
    }

    @Test func aServiceThatIsIllIsNotAskedForVersionOne() throws {
        let (server, seen) = try metadata(.one(500))
        let error = refusal(try store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint]))
        #expect(error?.reason.contains("500") == true)
        #expect(seen.value.allSatisfy { $0 == "PUT /latest/api/token" })
    }

    /// In a container the token's answer has one hop too few, and never arrives.
    @Test func aTokenThatIsLostOnItsWayMeansVersionOneOrAHint() throws {
        let (server, _) = try metadata(.silentToken)
        #expect(try identity(store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint])) == "AKimds/TOKENimds")
        let (strict, _) = try metadata(.twoForOthersOnly)
        s3.reset()
        let error = refusal(try store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": strict.endpoint]))
        #expect(error?.reason.contains("HttpPutResponseHopLimit") == true)
    }

    /// An outage of the service leaves old credentials in place, which S3 still takes; or our clock is ahead.
    @Test func credentialsThatLookExpiredAreTriedAndWarnedOf() throws {
        let (server, _) = try metadata(.two, seconds: -7200)
        #expect(try identity(store(["AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint])) == "AKimds/TOKENimds")
        #expect(log.lines(from: .warning).filter { $0.contains("expired already") }.count == 1)
    }

    // MARK: The chain

    @Test func theOrderIsTheSpecifications() throws {
        let (sts, _) = try sts()
        let agent = try agent { _ in .init(200, Self.document("agent")) }
        let (metadata, _) = try metadata(.two)
        var environment = [
            "AWS_ACCESS_KEY_ID": "AKenv", "AWS_SECRET_ACCESS_KEY": "TOPSECRETenv",
            "AWS_SHARED_CREDENTIALS_FILE": try file("c", "[default]\naws_access_key_id=AKfile\naws_secret_access_key=TOPSECRETfile\n"),
            "AWS_WEB_IDENTITY_TOKEN_FILE": try file("token", "WEBTOKEN"), "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
            "AWS_ENDPOINT_URL_STS": sts.endpoint, "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.endpoint,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint,
        ]
        for (key, variable) in [
            ("AKenv", "AWS_ACCESS_KEY_ID"), ("AKfile", "AWS_SHARED_CREDENTIALS_FILE"),
            ("AKsts/TOKENsts", "AWS_WEB_IDENTITY_TOKEN_FILE"), ("AKagent/TOKENagent", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
            ("AKimds/TOKENimds", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
        ] {
            #expect(try identity(store(environment)) == key)
            environment[variable] = nil
        }
        s3.reset()
        let error = refusal(try store([:]))
        for tried in ["the environment", "the shared files", "web identity", "the container", "instance metadata"] {
            #expect(error?.reason.contains("\(tried) (") == true)
        }
        #expect(log.lines(from: .warning).count == 1)
    }

    @Test func missingCredentialsAreLookedForOnceAMinute() throws {
        let asked = Box(0)
        let server = try agent { _ in
            asked.change { $0 += 1 }
            return .init(404, "")
        }
        let store = try store(["AWS_CONTAINER_CREDENTIALS_FULL_URI": server.endpoint])
        for _ in 0..<50 { _ = refusal(store) }
        #expect(asked.value == 1)
        #expect(log.lines(from: .warning).count == 1)
    }
}

/// A value that several threads change.
final class Box<Value: Sendable>: Sendable {
    private let lock = Lock()
    nonisolated(unsafe) private var kept: Value
    init(_ value: Value) { kept = value }
    var value: Value { lock.withLock { kept } }
    func change(_ body: (inout Value) -> Void) { lock.withLock { body(&kept) } }
}
