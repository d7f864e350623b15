import CVerneuil
import VerneuilReplica
import VerneuilSystem

extension Configuration {
    /// The longest configuration that is read, in bytes.
    static let maximumLength = 1 << 20

    /// The configuration that the environment asks for: the default one where
    /// `VERNEUIL_CONFIG` is unset or empty.
    public static func fromEnvironment() throws(ConfigurationError) -> Configuration {
        guard let value = getenv("VERNEUIL_CONFIG") else { return Configuration() }
        return try Configuration(specification: String(cString: value), source: "VERNEUIL_CONFIG")
    }

    /// - Parameters:
    ///   - specification: JSON text, or `@` and the path of a file with such text. Empty: the default.
    ///   - source: what the text is called in messages, where it is no file.
    public init(specification: String, source: String) throws(ConfigurationError) {
        if specification.utf8.allSatisfy({ $0 == 0x20 || $0 == 0x0A || $0 == 0x0D || $0 == 0x09 }) {
            self.init()
        } else if specification.utf8.first == UInt8(ascii: "@") {
            let path = String(specification.dropFirst())
            let text: [UInt8]?
            do throws(SystemError) {
                text = try Files.read(path, limit: Self.maximumLength)
            } catch {
                throw ConfigurationError(source: source, reason: "can't read the configuration file: \(error)")
            }
            guard let text else {
                throw ConfigurationError(
                    source: source, reason: "there is no configuration file \(JSON.quoted(path)); name an existing one after the @")
            }
            try self.init(json: text, source: path)
        } else {
            try self.init(json: Array(specification.utf8), source: source)
        }
    }

    /// - Parameters:
    ///   - json: one object with the keys of docs/CONFIGURATION.md.
    ///   - source: what the text is called in messages.
    public init(json text: [UInt8], source: String) throws(ConfigurationError) {
        let root: JSON
        do throws(JSONError) {
            root = try JSON(parsing: text)
        } catch {
            throw ConfigurationError(
                source: source, position: TextPosition(of: error.offset, in: text),
                reason: "not JSON: \(error.reason)")
        }
        try self.init(root, ConfigurationReader.Context(source: source, text: text))
    }

    /// Paths of the keys that decoding looks for in `json`, such as `replication_targets[].s3.region`: the
    /// reference (docs/CONFIGURATION.md) has them all.
    package static func keys(askedBy json: [UInt8]) throws -> Set<String> {
        let context = ConfigurationReader.Context(source: "", text: json)
        _ = try Configuration(JSON(parsing: json), context)
        return context.asked
    }

    private init(_ root: JSON, _ context: ConfigurationReader.Context) throws(ConfigurationError) {
        let source = context.source
        var fields = try ConfigurationReader(
            root, path: "", expected: "an object such as {\"replication_spooling_dir\": …}", context: context)
        self.init()
        makeDefault = try fields.bool("make_default", default: makeDefault)
        temporaryDirectory = try fields.path("tempdir")
        spoolingDirectory = try fields.path("replication_spooling_dir")
        spoolingDirectoryPermissions = try fields.permissions("replication_spooling_dir_permissions")
        if let json = fields.value("replication_targets") {
            guard case .array(let elements) = json.value else {
                throw context.error(
                    "replication_targets", json.offset, "found \(json.summary), expected an array of targets")
            }
            for (i, element) in elements.enumerated() {
                targets.append(try Target(element, path: "replication_targets[\(i)]", context))
            }
        }
        snapshotLoading = try LoadingPolicy(&fields, "snapshot_loading_policy")
        if let json = fields.value("replication_pacing") {
            pacing = try Pacing(json, path: "replication_pacing", context)
        }
        fields.finish()
        warnings = context.warnings
        if spoolingDirectory != nil, !targets.contains(where: \.isStore) {
            warnings.append(
                "\(source): replication_spooling_dir is set, but no target in replication_targets stores anything: "
                    + "nothing will be uploaded; add an \"s3\" or \"directory\" target")
        }
    }
}

/// The settings that C's `verneuil_options` can override, checked as the JSON ones are.
extension Configuration {
    /// As `tempdir`; relative to the working directory.
    public mutating func setTemporaryDirectory(_ path: String) throws(ConfigurationError) {
        temporaryDirectory = try Self.checked(path, "tempdir")
    }

    /// As `replication_spooling_dir`; relative to the working directory.
    public mutating func setSpoolingDirectory(_ path: String) throws(ConfigurationError) {
        spoolingDirectory = try Self.checked(path, "replication_spooling_dir")
    }

    /// As `replication_spooling_dir_permissions`: 0o700 to 0o777.
    public mutating func setSpoolingDirectoryPermissions(_ bits: UInt32) throws(ConfigurationError) {
        guard Limits.permissions.contains(bits) else {
            throw ConfigurationError(
                source: "options", key: "replication_spooling_dir_permissions", reason: "found \(bits), expected \(Limits.permissionHint)")
        }
        spoolingDirectoryPermissions = bits
    }

    private static func checked(_ path: String, _ key: String) throws(ConfigurationError) -> String {
        if path.isEmpty { throw ConfigurationError(source: "options", key: key, reason: "found an empty string, expected a path") }
        return absolutePath(path)
    }
}

extension Configuration.Target {
    /// Whether data is safe once it is there; caches are not.
    public var isStore: Bool {
        switch self {
        case .s3, .directory: true
        case .local, .readOnly: false
        }
    }

    init(_ json: JSON, path: String, _ context: ConfigurationReader.Context) throws(ConfigurationError) {
        let kinds = "\"s3\", \"directory\", \"local\" or \"read_only\""
        let expected = "an object with one key: \(kinds)"
        guard case .object(let members) = json.value, members.count == 1, let member = members.first else {
            throw context.error(path, json.offset, "found \(json.summary), expected \(expected)")
        }
        let inner = "\(path).\(member.key)"
        switch member.key {
        case "s3": self = .s3(try Configuration.S3(member.value, path: inner, context))
        case "directory": self = .directory(try Configuration.Directory(member.value, path: inner, context))
        case "local": self = .local(try Configuration.Cache(member.value, path: inner, writable: true, context))
        case "read_only": self = .readOnly(try Configuration.Cache(member.value, path: inner, writable: false, context))
        default:
            // Unknown keys are only warned of, but a target left out in silence is a missing backup.
            throw context.error(
                path, member.keyOffset, "found the unknown kind of target \(JSON.quoted(member.key)), expected \(kinds)")
        }
    }
}

extension Configuration.S3 {
    init(_ json: JSON, path: String, _ context: ConfigurationReader.Context) throws(ConfigurationError) {
        var fields = try ConfigurationReader(json, path: path, expected: "an object with the store's settings", context: context)
        endpoint = try fields.optional("endpoint", Limits.endpointHint) { $0.text.flatMap { Limits.isEndpoint($0) ? $0 : nil } }
        // Stores of one's own hardly look at the region, but the signature must name one.
        region =
            endpoint == nil
            ? try fields.required("region", Limits.regionHint, \.text)
            : try fields.optional("region", Limits.regionHint, \.text) ?? "us-east-1"
        chunkBucket = try fields.bucket("chunk_bucket")
        manifestBucket = try fields.bucket("manifest_bucket")
        domainAddressing = try fields.bool("domain_addressing", default: true)
        createBucketsOnDemand = try fields.bool("create_buckets_on_demand", default: false)
        fields.finish()
    }
}

extension Configuration.Directory {
    init(_ json: JSON, path: String, _ context: ConfigurationReader.Context) throws(ConfigurationError) {
        var fields = try ConfigurationReader(json, path: path, expected: "an object such as {\"path\": …}", context: context)
        self.path = try fields.requiredPath("path")
        fields.finish()
    }
}

extension Configuration.Cache {
    init(
        _ json: JSON, path: String, writable: Bool, _ context: ConfigurationReader.Context
    ) throws(ConfigurationError) {
        var fields = try ConfigurationReader(
            json, path: path, expected: "an object such as {\"directory\": …}", context: context)
        self.init(directory: try fields.requiredPath("directory"))
        shards = try fields.integer("num_shards", in: Limits.shards, default: shards)
        if writable { capacity = try fields.integer("capacity", in: Limits.capacity, default: capacity) }
        appendInstanceID = try fields.bool("append_instance_id", default: true)
        fields.finish()
    }
}

extension LoadingPolicy {
    init(_ fields: inout ConfigurationReader, _ key: String) throws(ConfigurationError) {
        let expected = "\"default\", {\"eager\": null} or {\"partial\": {\"min\": 16, \"max\": 1024}}"
        let context = fields.context
        guard let json = fields.value(key) else {
            self = .default
            return
        }
        switch json.value {
        case .string("default"): self = .default
        case .string("eager"): self = .eager
        case .object(let members) where members.count == 1 && members[0].key == "default" && members[0].value.value == .null:
            self = .default
        case .object(let members) where members.count == 1 && members[0].key == "eager" && members[0].value.value == .null:
            self = .eager
        case .object(let members) where members.count == 1 && members[0].key == "partial":
            let path = "\(fields.path(of: key)).partial"
            var bounds = try ConfigurationReader(
                members[0].value, path: path, expected: "an object such as {\"min\": 16, \"max\": 1024}", context: context)
            let minimum = try bounds.integer("min", in: Limits.chunks, default: Limits.chunks.lowerBound)
            let maximum = try bounds.integer("max", in: minimum...Limits.chunks.upperBound, default: Limits.chunks.upperBound)
            bounds.finish()
            self = .partial(min: minimum, max: maximum)
        default:
            throw context.error(fields.path(of: key), json.offset, "found \(json.summary), expected \(expected)")
        }
    }
}

extension Configuration.Pacing {
    init(_ json: JSON, path: String, _ context: ConfigurationReader.Context) throws(ConfigurationError) {
        var fields = try ConfigurationReader(
            json, path: path, expected: "an object such as {\"requests_per_second\": 30}", context: context)
        self.init()
        requestsPerSecond = try fields.number(
            "requests_per_second", in: Limits.requestsPerSecond, unit: "requests", default: requestsPerSecond)
        burst = try fields.integer("burst", in: Limits.burst, default: burst)
        flushRequestsPerSecond = try fields.number(
            "flush_requests_per_second", in: Limits.requestsPerSecond, unit: "requests", default: flushRequestsPerSecond)
        manifestInterval = try fields.number(
            "manifest_interval_seconds", in: Limits.interval, unit: "seconds", default: manifestInterval)
        passInterval = try fields.number("pass_interval_seconds", in: Limits.interval, unit: "seconds", default: passInterval)
        workers = try fields.integer("workers", in: Limits.workers, default: workers)
        uploadsInFlight = try fields.integer("uploads_in_flight", in: Limits.uploadsInFlight, default: uploadsInFlight)
        commitBudget = try fields.number(
            "commit_budget_milliseconds", in: Limits.scaled(Limits.commitBudget, by: 1000), unit: "milliseconds", default: commitBudget * 1000) / 1000
        patrolMaxAge = try fields.number(
            "patrol_max_age_days", in: Limits.scaled(Limits.patrolMaxAge, by: 1 / 86_400), unit: "days", default: patrolMaxAge / 86_400) * 86_400
        scanInterval = try fields.number("scan_interval_seconds", in: Limits.scanInterval, unit: "seconds", default: scanInterval)
        lagThreshold = try fields.number("lag_threshold_seconds", in: Limits.interval, unit: "seconds", default: lagThreshold)
        fields.finish()
    }
}

extension ConfigurationReader {
    /// Made absolute at once: the process may change its directory later.
    mutating func path(_ key: String) throws(ConfigurationError) -> String? {
        try optional(key, "a path", \.text).map(absolutePath)
    }

    mutating func requiredPath(_ key: String) throws(ConfigurationError) -> String {
        absolutePath(try required(key, "a path", \.text))
    }

    mutating func permissions(_ key: String) throws(ConfigurationError) -> UInt32 {
        let range = Int(Limits.permissions.lowerBound)...Int(Limits.permissions.upperBound)
        return try optional(key, Limits.permissionHint) { $0.integer(in: range).map(UInt32.init) } ?? 0o700
    }

    mutating func bucket(_ key: String) throws(ConfigurationError) -> String {
        try required(key, Limits.bucketHint) { $0.text.flatMap { Limits.isBucket($0) ? $0 : nil } }
    }
}
