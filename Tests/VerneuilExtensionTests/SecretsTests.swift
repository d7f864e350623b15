import Foundation
import ProductSupport
import TestServers
import Testing
import VerneuilSystem

/// No secret is in any log at any level, and in no file: whatever goes well or wrong, and wherever the credentials come from.
@Suite struct SecretsTests {
    let here: Workspace
    /// Where secrets may stand.
    let secrets: Workspace
    init() throws {
        here = try Workspace()
        secrets = try Workspace()
    }

    /// Each starts with this, so that one search finds them all.
    private static let mark = "TOPSECRET"

    private static func document(_ name: String, type: String) -> String {
        """
        {"Code": "Success", "Version": 1, "AccessKeyId": "AK\(name)", "SecretAccessKey": "\(mark)-key-\(name)",
         "\(type)": "\(mark)-token-\(name)", "Expiration": "\(Clock.iso(wallClock().seconds + 3600))"}
        """
    }

    /// One of each provider's environments, with the servers that it needs.
    private func environments() throws -> (environments: [(key: String, variables: [String: String])], servers: [LoopbackServer]) {
        let sts = try LoopbackServer { _ in
            .answer(
                .init(
                    200,
                    """
                    <R><Credentials><SessionToken>\(Self.mark)-token-sts</SessionToken><SecretAccessKey>\(Self.mark)-key-sts</SecretAccessKey>
                    <Expiration>\(Clock.iso(wallClock().seconds + 3600))</Expiration><AccessKeyId>AKsts</AccessKeyId></Credentials></R>
                    """))
        }
        // An STS that refuses, and repeats what it was sent.
        let refusing = try LoopbackServer { request in
            .answer(.init(403, "<E><Error><Code>AccessDenied</Code><Message>not \(Self.mark)-web!</Message></Error></E>"))
        }
        let agent = try LoopbackServer { _ in .answer(.init(200, Self.document("agent", type: "Token"))) }
        let metadata = try LoopbackServer { request in
            switch request.path {
            case "/latest/api/token": .answer(.init(200, "\(Self.mark)-session"))
            case "/latest/meta-data/iam/security-credentials/": .answer(.init(200, "role"))
            default: .answer(.init(200, Self.document("metadata", type: "Token")))
            }
        }
        func secret(_ name: String, _ text: String) throws -> String {
            try secrets.write(Array(text.utf8), to: name)
            return secrets.file(name)
        }
        let web = try secret("web", "\(Self.mark)-web")
        let program = try secret("program", Self.document("program", type: "SessionToken"))
        return (
            [
                (
                    "AKenv",
                    [
                        "AWS_ACCESS_KEY_ID": "AKenv", "AWS_SECRET_ACCESS_KEY": "\(Self.mark)-key-env",
                        "AWS_SESSION_TOKEN": "\(Self.mark)-token-env",
                    ]
                ),
                (
                    "AKfile",
                    [
                        "AWS_SHARED_CREDENTIALS_FILE": try secret(
                            "credentials",
                            "[p]\naws_access_key_id=AKfile\naws_secret_access_key=\(Self.mark)-key-file\naws_session_token=\(Self.mark)-token-file\n"),
                        "AWS_PROFILE": "p",
                    ]
                ),
                ("AKprogram", ["AWS_CONFIG_FILE": try secret("config", "[default]\ncredential_process=cat \(program)\n")]),
                (
                    "AKsts",
                    ["AWS_WEB_IDENTITY_TOKEN_FILE": web, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_ENDPOINT_URL_STS": sts.endpoint]
                ),
                (
                    "",
                    [
                        "AWS_WEB_IDENTITY_TOKEN_FILE": web, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
                        "AWS_ENDPOINT_URL_STS": refusing.endpoint,
                    ]
                ),
                (
                    "AKagent",
                    [
                        "AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.endpoint,
                        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "\(Self.mark)-authorization",
                    ]
                ),
                (
                    "AKmetadata", ["AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint, "AWS_EC2_METADATA_DISABLED": "false"]
                ),
            ], [sts, refusing, agent, metadata]
        )
    }
    @Test func noSecretIsInALogOrAFile() throws {
        let server = try FakeS3()
        let (environments, servers) = try environments()
        defer { for server in servers { server.stop() } }
        let config = """
            {"replication_spooling_dir": "\(here.file("spool"))",
             "replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "\(server.endpoint)", "chunk_bucket": "chunks",
              "manifest_bucket": "manifests", "create_buckets_on_demand": true}},
              {"local": {"directory": "\(here.file("cache"))", "num_shards": 2, "capacity": 100}}]}
            """
        var said = ""
        for (key, variables) in environments {
            let environment = variables.merging(["VERNEUIL_LOG": "trace", "HOME": here.path]) { $1 }
            // All goes well; then the store refuses who we are, forgets the time, and stumbles. What has nothing to do with the
            // provider is tried with one of them.
            let all = key == "AKenv"
            for trouble in all ? ["", "SignatureDoesNotMatch", "ExpiredToken", "skew", "500"] : ["", "ExpiredToken"] {
                server.change {
                    $0.judge = { _, _ in nil }
                    $0.clockOffset = trouble == "skew" ? 7200 : 0
                    $0.faults = trouble == "500" ? [FakeS3.Fault(.refuse(500, "InternalError"), times: 3)] : []
                    if ["SignatureDoesNotMatch", "ExpiredToken"].contains(trouble) {
                        $0.judge = { _, token in (403, "\(trouble)") }
                    }
                }
                if trouble != "SignatureDoesNotMatch" {
                    let written = try here.extended(
                        "file:app.db?vfs=verneuil", "CREATE TABLE IF NOT EXISTS t(x)", "INSERT INTO t VALUES (randomblob(100000))",
                        "PRAGMA verneuil_flush_replication_data", config: config, environment: environment)
                    said += written.text + written.errors
                }
                for command in [["flush", "spool"], ["restore", "--source-path", "app.db", "--out", "r.db"]] {
                    let program = try Program.run(
                        [Products.verneuilctl(), "--log", "trace"] + command,
                        environment: environment.merging(["VERNEUIL_CONFIG": config]) { $1 }, directory: here.path)
                    said += program.text + program.errors
                }
            }
            if !key.isEmpty { #expect(server.requests.contains { $0.accessKey == key }) }
        }
        // The levels below the default are there, and what is searched for would be found.
        #expect(said.contains(" info ") && said.contains(" debug ") && said.contains("credentials found"))
        #expect(said.contains("[the token]"))
        let lines = said.split(separator: "\n").filter { $0.contains(Self.mark) }
        #expect(lines.isEmpty, "\(lines.first ?? "")")

        let needle = Data(Self.mark.utf8)
        var files = 0
        var foundPath = false
        for name in here.files("") {
            let data = try Data(contentsOf: URL(fileURLWithPath: here.file(name)))
            files += 1
            #expect(data.range(of: needle) == nil, "\(name)")
            if data.range(of: Data(here.file("app.db").utf8)) != nil { foundPath = true }
        }
        #expect(files > 10 && foundPath)
    }
}
