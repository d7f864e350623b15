import Testing
import VerneuilCore
import VerneuilReplica

/// A configuration that a program made is looked at as one in JSON is.
@Suite struct ValidationTests {
    private static let usable: Configuration = {
        var configuration = Configuration()
        configuration.spoolingDirectory = "/var/spool/app"
        configuration.targets = [
            .s3(.init(region: "us-east-1", chunkBucket: "c", manifestBucket: "m")), .directory(.init(path: "/mnt/backup")),
            .local(.init(directory: "/cache")), .readOnly(.init(directory: "/other")),
        ]
        return configuration
    }()

    private static func s3(_ change: (inout Configuration.S3) -> Void) -> Configuration.Target {
        var s3 = Configuration.S3(region: "us-east-1", chunkBucket: "c", manifestBucket: "m")
        change(&s3)
        return .s3(s3)
    }

    private static func cache(_ change: (inout Configuration.Cache) -> Void) -> Configuration.Cache {
        var cache = Configuration.Cache(directory: "/cache")
        change(&cache)
        return cache
    }

    @Test func whatAProgramSetsIsLookedAtBeforeItIsUsed() throws {
        let wrong: [(message: String, change: (inout Configuration) -> Void)] = [
            ("temporaryDirectory: found the string \"tmp\", expected an absolute path", { $0.temporaryDirectory = "tmp" }),
            ("spoolingDirectory: found the string \"\", expected an absolute path", { $0.spoolingDirectory = "" }),
            ("spoolingDirectory: found the string \"spool\", expected an absolute path", { $0.spoolingDirectory = "spool" }),
            ("spoolingDirectory: found the string \"/a\\u0000b\", expected an absolute path", { $0.spoolingDirectory = "/a\u{0}b" }),
            ("spoolingDirectoryPermissions: found 0o70, expected permission bits from 0o700", { $0.spoolingDirectoryPermissions = 0o70 }),
            ("targets[0].region: found the string \"\", expected a string such as", { $0.targets[0] = Self.s3 { $0.region = "" } }),
            ("targets[0].chunkBucket: found the string \"a/b\", expected a bucket's name", { $0.targets[0] = Self.s3 { $0.chunkBucket = "a/b" } }),
            ("targets[0].manifestBucket: found the string \"..\", expected a bucket's", { $0.targets[0] = Self.s3 { $0.manifestBucket = ".." } }),
            ("targets[0].endpoint: found something else, expected a URL", { $0.targets[0] = Self.s3 { $0.endpoint = "http://key:hunter2@host" } }),
            ("targets[1].path: found the string \"backup\", expected an absolute path", { $0.targets[1] = .directory(.init(path: "backup")) }),
            ("targets[2].directory: found the string \"c\", expected an absolute path", { $0.targets[2] = .local(Self.cache { $0.directory = "c" }) }),
            ("targets[2].shards: found 0, expected a number from 1 to 100000", { $0.targets[2] = .local(Self.cache { $0.shards = 0 }) }),
            ("targets[2].capacity: found 0, expected a number from 1", { $0.targets[2] = .local(Self.cache { $0.capacity = 0 }) }),
            ("targets[3].shards: found -1, expected a number from 1", { $0.targets[3] = .readOnly(Self.cache { $0.shards = -1 }) }),
            ("snapshotLoading.min: found -1, expected a number from 0", { $0.snapshotLoading = .partial(min: -1, max: 4) }),
            ("snapshotLoading.max: found 4, expected a number from 5", { $0.snapshotLoading = .partial(min: 5, max: 4) }),
            ("pacing.requestsPerSecond: found inf, expected a number from 0.01 to 100000.0", { $0.pacing.requestsPerSecond = .infinity }),
            ("pacing.requestsPerSecond: found nan", { $0.pacing.requestsPerSecond = .nan }),
            ("pacing.burst: found 0", { $0.pacing.burst = 0 }),
            ("pacing.flushRequestsPerSecond: found 0.0", { $0.pacing.flushRequestsPerSecond = 0 }),
            ("pacing.manifestInterval: found -1.0", { $0.pacing.manifestInterval = -1 }),
            ("pacing.passInterval: found nan", { $0.pacing.passInterval = .nan }),
            ("pacing.workers: found 0, expected a number from 1 to 1000", { $0.pacing.workers = 0 }),
            ("pacing.uploadsInFlight: found 10001", { $0.pacing.uploadsInFlight = 10_001 }),
            ("pacing.commitBudget: found 61.0, expected a number from 0.0 to 60.0", { $0.pacing.commitBudget = 61 }),
            ("pacing.patrolMaxAge: found 60.0, expected a number from 21600.0", { $0.pacing.patrolMaxAge = 60 }),
            ("pacing.scanInterval: found 0.0", { $0.pacing.scanInterval = 0 }),
            ("pacing.lagThreshold: found inf", { $0.pacing.lagThreshold = .infinity }),
        ]
        for (message, change) in wrong {
            var changed = Self.usable
            change(&changed)
            let configuration = changed
            // Also by whatever puts it to work.
            for attempt in [{ try configuration.validate() }, { _ = try Engine(configuration) }] as [() throws -> Void] {
                let error = try #require(throws: ConfigurationError.self, "taken: \(message)") { try attempt() }
                #expect(error.description.hasPrefix("configuration: \(message)") && error.cause == .invalid, "\(error)")
                #expect(!error.description.contains("hunter2"))
            }
        }
    }

    @Test func whatJSONMayHoldAProgramMaySet() throws {
        try Configuration().validate()
        try Self.usable.validate()
        func pacing(_ rate: Double, _ count: Int, _ interval: Double, _ milliseconds: Int, _ days: Double, _ scan: Double) -> String {
            """
            {"replication_pacing": {"requests_per_second": \(rate), "burst": \(count), "flush_requests_per_second": \(rate),
            "manifest_interval_seconds": \(interval), "pass_interval_seconds": \(interval), "workers": \(min(count, 1000)),
            "uploads_in_flight": \(min(count, 10_000)), "commit_budget_milliseconds": \(milliseconds), "patrol_max_age_days": \(days),
            "scan_interval_seconds": \(scan), "lag_threshold_seconds": \(interval)}}
            """
        }
        for json in [
            pacing(0.01, 1, 0, 0, 0.25, 0.1), pacing(100_000, 1_000_000, 86_400, 60_000, 1000, 3600), pacing(0.07, 77, 0.3, 17, 0.7, 0.7),
            #"{"replication_spooling_dir": "spool", "tempdir": "t", "replication_spooling_dir_permissions": 511}"#,
            #"{"snapshot_loading_policy": {"partial": {"min": 1000000000, "max": 1000000000}}}"#, #"{"snapshot_loading_policy": "eager"}"#,
            #"{"replication_targets": [{"s3": {"endpoint": "HTTP://h:1/", "chunk_bucket": "A.b-c_0", "manifest_bucket": "m"}}]}"#,
            #"{"replication_targets": [{"local": {"directory": "c", "num_shards": 100000, "capacity": 1000000000}}, {"directory": {"path": "d"}}]}"#,
        ] {
            try Configuration(json: Array(json.utf8), source: "test").validate()
        }
    }
}
