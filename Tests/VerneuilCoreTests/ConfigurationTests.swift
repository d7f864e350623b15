import CVerneuil
import Testing
import VerneuilCore
import VerneuilReplica
import VerneuilSystem

private func parse(_ json: String) throws -> Configuration {
    try Configuration(json: Array(json.utf8), source: "test")
}

@Suite struct ConfigurationTests {
    @Test func nothingSetMeansNoReplication() throws {
        for text in ["", " \n\t"] {
            let configuration = try Configuration(specification: text, source: "test")
            #expect(configuration == Configuration())
            #expect(configuration.spoolingDirectory == nil)
        }
        #expect(try parse("{}") == Configuration())
    }

    @Test func everyKeyIsRead() throws {
        let configuration = try parse(
            """
            {
              "make_default": true,
              "tempdir": "/var/tmp",
              "replication_spooling_dir": "/var/spool/verneuil",
              "replication_spooling_dir_permissions": 504,
              "replication_targets": [
                { "s3": { "region": "eu-west-3", "endpoint": "http://127.0.0.1:9000", "chunk_bucket": "my.chunks-1",
                          "manifest_bucket": "manifests", "domain_addressing": false, "create_buckets_on_demand": true } },
                { "s3": { "region": "us-east-1", "chunk_bucket": "c", "manifest_bucket": "m" } },
                { "directory": { "path": "/mnt/backup/verneuil" } },
                { "local": { "directory": "/var/cache/verneuil", "num_shards": 7, "capacity": 500, "append_instance_id": false } },
                { "read_only": { "directory": "/var/cache/other" } }
              ],
              "snapshot_loading_policy": { "partial": { "min": 2, "max": 30 } },
              "replication_pacing": {
                "requests_per_second": 12.5, "burst": 3, "flush_requests_per_second": 2000,
                "manifest_interval_seconds": 0, "pass_interval_seconds": 2, "workers": 4, "uploads_in_flight": 64,
                "commit_budget_milliseconds": 5
              }
            }
            """)
        var expected = Configuration()
        expected.makeDefault = true
        expected.temporaryDirectory = "/var/tmp"
        expected.spoolingDirectory = "/var/spool/verneuil"
        expected.spoolingDirectoryPermissions = 0o770
        var first = Configuration.S3(
            region: "eu-west-3", endpoint: "http://127.0.0.1:9000", chunkBucket: "my.chunks-1", manifestBucket: "manifests")
        first.domainAddressing = false
        first.createBucketsOnDemand = true
        var cache = Configuration.Cache(directory: "/var/cache/verneuil")
        cache.shards = 7
        cache.capacity = 500
        cache.appendInstanceID = false
        expected.targets = [
            .s3(first), .s3(.init(region: "us-east-1", chunkBucket: "c", manifestBucket: "m")),
            .directory(.init(path: "/mnt/backup/verneuil")), .local(cache), .readOnly(.init(directory: "/var/cache/other")),
        ]
        expected.snapshotLoading = .partial(min: 2, max: 30)
        expected.pacing.requestsPerSecond = 12.5
        expected.pacing.burst = 3
        expected.pacing.flushRequestsPerSecond = 2000
        expected.pacing.manifestInterval = 0
        expected.pacing.passInterval = 2
        expected.pacing.workers = 4
        expected.pacing.uploadsInFlight = 64
        expected.pacing.commitBudget = 0.005
        #expect(configuration == expected)
    }

    @Test(
        "wrong types and values name the key, what was found and what is expected",
        arguments: [
            ("[]", "test:1:1: found an array of 0 elements, expected an object"),
            ("\"x\"", "test:1:1: found the string \"x\", expected an object"),
            ("{\"make_default\": 1}", "test:1:18: make_default: found the number 1, expected true or false"),
            ("{\"tempdir\": true}", "test:1:13: tempdir: found true, expected a path"),
            ("{\"tempdir\": \"\"}", "tempdir: found the string \"\", expected a path"),
            ("{\"tempdir\": \"a\\u0000b\"}", "tempdir: found the string \"a\\u0000b\", expected a path"),
            (
                "{\"replication_spooling_dir_permissions\": 700}",
                "replication_spooling_dir_permissions: found the number 700, expected permission bits as a decimal number"
            ),
            ("{\"replication_spooling_dir_permissions\": \"0700\"}", "found the string \"0700\", expected permission bits"),
            ("{\"replication_targets\": {}}", "replication_targets: found an empty object, expected an array of targets"),
            (
                "{\"replication_targets\": [{\"local\": {\"directory\": \"/a\"}},\n {\"s3\": {\"region\": 5, \"chunk_bucket\": \"c\"}}]}",
                "test:2:20: replication_targets[1].s3.region: found the number 5, expected a string such as \"us-east-1\""
            ),
            ("{\"replication_targets\": [7]}", "replication_targets[0]: found the number 7, expected an object with one key"),
            ("{\"replication_targets\": [{}]}", "replication_targets[0]: found an empty object, expected an object with one key"),
            (
                "{\"replication_targets\": [{\"S3\": {}}]}",
                "replication_targets[0]: found the unknown kind of target \"S3\", expected \"s3\", \"directory\""
            ),
            ("{\"replication_targets\": [{\"s3\": []}]}", "replication_targets[0].s3: found an array of 0 elements"),
            ("{\"replication_targets\": [{\"s3\": {}}]}", "replication_targets[0].s3.region: missing, expected a string"),
            (
                "{\"replication_targets\": [{\"s3\": {\"region\": \"r\", \"manifest_bucket\": \"m\"}}]}",
                "replication_targets[0].s3.chunk_bucket: missing, expected a bucket's name"
            ),
            (
                "{\"replication_targets\": [{\"s3\": {\"region\": \"r\", \"chunk_bucket\": \"a/b\", \"manifest_bucket\": \"m\"}}]}",
                "replication_targets[0].s3.chunk_bucket: found the string \"a/b\", expected a bucket's name"
            ),
            (
                "{\"replication_targets\": [{\"s3\": {\"endpoint\": \"s3.example.com\"}}]}",
                "s3.endpoint: found the string \"s3.example.com\", expected a URL"
            ),
            ("{\"replication_targets\": [{\"s3\": {\"endpoint\": \"https://a/b\"}}]}", "s3.endpoint: found"),
            ("{\"replication_targets\": [{\"directory\": {}}]}", "replication_targets[0].directory.path: missing, expected a path"),
            (
                "{\"replication_targets\": [{\"local\": {\"directory\": \"/a\", \"num_shards\": 0}}]}",
                "replication_targets[0].local.num_shards: found the number 0, expected a whole number from 1 to 100000"
            ),
            (
                "{\"replication_targets\": [{\"local\": {\"directory\": \"/a\", \"capacity\": 2.5}}]}",
                "replication_targets[0].local.capacity: found the number 2.5, expected a whole number"
            ),
            ("{\"snapshot_loading_policy\": \"lazy\"}", "snapshot_loading_policy: found the string \"lazy\", expected \"default\""),
            (
                "{\"snapshot_loading_policy\": {\"partial\": {\"min\": 5, \"max\": 4}}}",
                "snapshot_loading_policy.partial.max: found the number 4, expected a whole number from 5"
            ),
            (
                "{\"replication_pacing\": {\"requests_per_second\": 0}}",
                "replication_pacing.requests_per_second: found the number 0, expected a number of requests from 0.01"
            ),
            ("{\"replication_pacing\": {\"workers\": 1e1}}", "replication_pacing.workers: found the number 1e1"),
            ("{\"make_default\": true,\n \"make_default\": false}", "test:2:2: not JSON: the key \"make_default\" is given twice"),
            ("{\n // no\n}", "test:2:2: not JSON: a comment"),
        ])
    func wrongValue(json: String, message: String) throws {
        let error = try #require(throws: ConfigurationError.self) { try parse(json) }
        #expect(error.description.contains(message), "\(error)")
    }

    @Test(
        "unknown keys are warned of, with the nearest known one",
        arguments: [
            ("{\"make_defualt\": true}", "test:1:2: make_defualt: unknown key, ignored; did you mean \"make_default\"?"),
            (
                "{\"replication_spool_dir\": \"/a\"}",
                "replication_spool_dir: unknown key, ignored; did you mean \"replication_spooling_dir\"?"
            ),
            ("{\"colour\": 1}", "test:1:2: colour: unknown key, ignored"),
            (
                "{\"replication_targets\": [{\"read_only\": {\"directory\": \"/a\", \"shards\": 4}}]}",
                "replication_targets[0].read_only.shards: unknown key, ignored"
            ),
            ("{\"replication_pacing\": {\"brust\": 4}}", "replication_pacing.brust: unknown key, ignored; did you mean \"burst\"?"),
        ])
    func unknownKey(json: String, warning: String) throws {
        let warnings = try parse(json).warnings
        #expect(warnings.count == 1)
        #expect(warnings.first?.contains(warning) == true, "\(warnings)")
    }

    @Test func aSpoolThatNothingEmptiesIsWarnedOf() throws {
        let warnings = try parse(#"{"replication_spooling_dir": "/a", "replication_targets": [{"local": {"directory": "/c"}}]}"#).warnings
        #expect(warnings.count == 1 && warnings[0].contains("nothing will be uploaded"))
        #expect(
            try parse(#"{"replication_spooling_dir": "/a", "replication_targets": [{"directory": {"path": "/c"}}]}"#)
                .warnings.isEmpty)
    }

    @Test func nullIsTheSameAsLeftOut() throws {
        #expect(try parse(#"{"tempdir": null, "replication_targets": null, "snapshot_loading_policy": null}"#) == Configuration())
    }

    @Test(
        arguments: [
            (#""default""#, LoadingPolicy.default), (#""eager""#, .eager), (#"{"eager": null}"#, .eager),
            (#"{"default": null}"#, .default), (#"{"partial": {"min": 1, "max": 1}}"#, .partial(min: 1, max: 1)),
        ])
    func loadingPolicies(json: String, policy: LoadingPolicy) throws {
        #expect(try parse("{\"snapshot_loading_policy\": \(json)}").snapshotLoading == policy)
    }

    @Test func relativePathsBecomeAbsolute() throws {
        let current = try #require(Files.canonical("."))
        let configuration = try parse(#"{"replication_spooling_dir": "spool", "tempdir": "/t"}"#)
        #expect(configuration.spoolingDirectory.map { $0.hasPrefix("/") && $0.hasSuffix("/spool") } == true)
        #expect(Files.canonical(try #require(configuration.spoolingDirectory)) == "\(current)/spool")
        #expect(configuration.temporaryDirectory == "/t")
    }

    @Test func aFileIsReadAndNamedInMessages() throws {
        let directory = "/tmp/verneuil-configuration-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        try Files.makeDirectories(directory)
        defer { try? Files.removeTree(directory) }
        let path = "\(directory)/config.json"

        try Files.writeAtomically(Array(#"{"make_default": true}"#.utf8), to: path)
        #expect(try Configuration(specification: "@\(path)", source: "VERNEUIL_CONFIG").makeDefault)

        try Files.writeAtomically(Array("{\n\"make_default\": 3}".utf8), to: path)
        let wrong = try #require(throws: ConfigurationError.self) {
            try Configuration(specification: "@\(path)", source: "VERNEUIL_CONFIG")
        }
        #expect(wrong.description.hasPrefix("\(path):2:17: make_default: found the number 3"))

        let missing = try #require(throws: ConfigurationError.self) {
            try Configuration(specification: "@\(path).not", source: "VERNEUIL_CONFIG")
        }
        #expect(missing.description.hasPrefix("VERNEUIL_CONFIG: there is no configuration file \"\(path).not\""))

        let folder = try #require(throws: ConfigurationError.self) {
            try Configuration(specification: "@\(directory)", source: "VERNEUIL_CONFIG")
        }
        #expect(folder.description.contains("can't read the configuration file"))
    }
}
