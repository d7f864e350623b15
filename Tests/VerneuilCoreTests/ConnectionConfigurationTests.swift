import Testing
import VerneuilCore
import VerneuilVFS

/// What a file name's parameters make of the process's configuration.
@Suite struct ConnectionConfigurationTests {
    private let process: Configuration = {
        var configuration = Configuration()
        configuration.makeDefault = true
        configuration.spoolingDirectory = "/spool"
        configuration.targets = [.directory(.init(path: "/store")), .local(.init(directory: "/cache")), .readOnly(.init(directory: "/other"))]
        configuration.pacing.workers = 3
        configuration.warnings = ["odd"]
        return configuration
    }()

    private func changed(
        _ parameters: KeyValuePairs<String, String>, for purpose: ConnectionSettings.Purpose = .replication
    ) throws -> Configuration {
        let all = parameters.map { ConnectionParameters.Parameter(name: $0.key, value: $0.value) }
        return try process.changed(by: ConnectionParameters(all), for: purpose)
    }

    @Test func whatIsNotNamedIsTheProcesss() throws {
        var expected = process
        expected.spoolingDirectory = "/other-spool"
        expected.spoolingDirectoryPermissions = 0o770
        expected.warnings = []
        #expect(
            try changed(["verneuil_spooling_dir": "/other-spool", "verneuil_spooling_dir_permissions": "504"]) == expected)
    }

    @Test func targetsReplaceStoresAndLeaveCaches() throws {
        let caches = Array(process.targets.dropFirst())
        let s3 = Configuration.Target.s3(.init(region: "eu-west-1", chunkBucket: "c", manifestBucket: "m"))
        let directory = Configuration.Target.directory(.init(path: "/elsewhere"))
        for (text, targets) in [
            ("directory:/elsewhere", [directory]),
            ("s3:eu-west-1/c/m", [s3]),
            (#"{"directory": {"path": "/elsewhere"}}"#, [directory]),
            (#"["s3:eu-west-1/c/m", {"directory": {"path": "/elsewhere"}}]"#, [s3, directory]),
        ] {
            #expect(try changed(["verneuil_target": text, "verneuil_spooling_dir": "/s"]).targets == targets + caches, "\(text)")
        }
    }

    @Test func everyTargetIsTheSameAfterItWasWrittenAsText() throws {
        var s3 = Configuration.S3(region: "r", endpoint: "https://h:1", chunkBucket: "c", manifestBucket: "m")
        s3.domainAddressing = false
        s3.createBucketsOnDemand = true
        var cache = Configuration.Cache(directory: "/a \"b\"")
        (cache.shards, cache.appendInstanceID) = (7, false)
        var capacious = cache
        capacious.capacity = 12
        let targets: [Configuration.Target] = [
            .s3(s3), .s3(.init(region: "r", chunkBucket: "c", manifestBucket: "m")), .directory(.init(path: "/é?&%")),
            .readOnly(cache), .local(capacious), .local(.init(directory: "/l")),
        ]
        let text = JSON.array(targets.map(\.json)).text
        #expect(
            try changed(["verneuil_target": text, "verneuil_spooling_dir": "/s"]).targets == targets + process.targets.dropFirst())
    }

    @Test func readersOfOtherTargetsDontLookIntoTheProcesssSpool() throws {
        #expect(try changed(["verneuil_target": "directory:/elsewhere"], for: .reading).spoolingDirectory == nil)
        #expect(
            try changed(["verneuil_target": "directory:/elsewhere", "verneuil_spooling_dir": "/s"], for: .reading)
                .spoolingDirectory == "/s")
    }

    @Test(arguments: [
        "s3://bucket/key", "s3:", "s3:a/b", "s3:a/b/c/d", "s3://b/c", "directory:", "directory:a", "/plain/path", "gs:a/b/c", "3", "null", "[3]", "[null]",
        "{}", "[[]]", #"{"local": {}}"#, #"{"s3": {"region": "r", "chunk_bucket": "../x", "manifest_bucket": "m"}}"#,
        #"{"s3": {"endpoint": "http://key:secret@host", "chunk_bucket": "c", "manifest_bucket": "m"}}"#,
        #"["directory:/a", {"directory": {"path": "/b", "password": "x"}}]"#, "\u{0}", "{", "[\"directory:/a\"",
    ])
    func whatIsNoTargetIsRefused(text: String) throws {
        #expect(throws: ConfigurationError.self) { try changed(["verneuil_target": text, "verneuil_spooling_dir": "/s"]) }
    }

    @Test func secretsAreNotRepeated() throws {
        for (name, value) in [
            ("verneuil_target", #"{"s3": {"region": "r", "chunk_bucket": "c", "manifest_bucket": "m", "aws_secret_access_key": "hunter2"}}"#),
            ("verneuil_target", #"{"s3": {"endpoint": "http://key:hunter2@host", "chunk_bucket": "c", "manifest_bucket": "m"}}"#),
            ("verneuil_target", "s3:AKIA:hunter2@bucket"), ("verneuil_session_token", "hunter2"), ("verneuil_target", "hunter2"),
        ] {
            do {
                _ = try changed([name: value, "verneuil_spooling_dir": "/s"])
                Issue.record("\(name)=\(value) was accepted")
            } catch { #expect(!"\(error)".contains("hunter2"), "\(error)") }
        }
    }
}
