import VerneuilReplica

/// What settings may be, wherever they come from: the decoder looks at them where they stand in a text, `validate` at those
/// that a program set.
enum Limits {
    /// JSON has no octal numbers, so 0700 is written 448; the digits 700 taken as
    /// decimal would mean 01274, which nobody wants.
    static let permissions: ClosedRange<UInt32> = 0o700...0o777
    static let permissionHint =
        "permission bits as a decimal number that gives the owner read, write and search: 448 (octal 0700) to 511 (0777)"
    static let shards = 1...100_000
    /// Files.
    static let capacity = 1...1_000_000_000
    /// That are fetched before a replica opens.
    static let chunks = 0...1_000_000_000
    static let requestsPerSecond = 0.01...100_000.0
    static let burst = 1...1_000_000
    /// Seconds.
    static let interval = 0...86_400.0
    static let workers = 1...1000
    static let uploadsInFlight = 1...10_000
    /// Seconds.
    static let commitBudget = 0...60.0
    /// Seconds: six hours to 1000 days.
    static let patrolMaxAge = 21_600...86_400_000.0
    /// Seconds.
    static let scanInterval = 0.1...3600.0

    static func scaled(_ range: ClosedRange<Double>, by factor: Double) -> ClosedRange<Double> {
        range.lowerBound * factor...range.upperBound * factor
    }

    /// Says something and can be a C string.
    static func isText(_ text: String) -> Bool { !text.isEmpty && !text.utf8.contains(0) }

    static let regionHint = "a string such as \"us-east-1\""
    static let bucketHint = "a bucket's name: letters, digits, '.', '-' and '_'"
    /// Names are the store's business; what would change the request's path is ours.
    static func isBucket(_ name: String) -> Bool {
        isText(name) && name.utf8.count <= 255 && name != "." && name != ".."
            && name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "." || $0 == "-" || $0 == "_") }
    }

    static let endpointHint = "a URL such as \"https://s3.example.com\", without a path"
    /// `http://` or `https://`, a host, maybe a port, and nothing after that.
    static func isEndpoint(_ url: String) -> Bool {
        guard isText(url) else { return false }
        for scheme in ["http://", "https://"] where url.lowercased().hasPrefix(scheme) {
            var host = url.dropFirst(scheme.count)
            if host.last == "/" { host.removeLast() }
            return !host.isEmpty && !host.contains { "/?#@ ".contains($0) }
        }
        return false
    }
}

extension Configuration {
    /// Whether each setting can be used, as is asked of JSON. `Replication.configure` asks by itself.
    ///
    /// - Throws: names the property, such as `pacing.workers`, what was found and what is expected.
    public func validate() throws(ConfigurationError) {
        if let temporaryDirectory { try Self.check(path: temporaryDirectory, "temporaryDirectory") }
        if let spoolingDirectory { try Self.check(path: spoolingDirectory, "spoolingDirectory") }
        if !Limits.permissions.contains(spoolingDirectoryPermissions) {
            throw Self.failure(
                "spoolingDirectoryPermissions", "0o" + String(spoolingDirectoryPermissions, radix: 8), "permission bits from 0o700 to 0o777")
        }
        for (i, target) in targets.enumerated() { try target.validate("targets[\(i)]") }
        if case .partial(let minimum, let maximum) = snapshotLoading {
            try Self.check(minimum, in: Limits.chunks, "snapshotLoading.min")
            try Self.check(maximum, in: minimum...Limits.chunks.upperBound, "snapshotLoading.max")
        }
        try pacing.validate()
    }

    static func failure(_ key: String, _ found: String, _ expected: String) -> ConfigurationError {
        ConfigurationError(source: "configuration", key: key, reason: "found \(found), expected \(expected)")
    }

    static func check<Number: Comparable>(_ value: Number, in range: ClosedRange<Number>, _ key: String) throws(ConfigurationError) {
        // NaN is in no range.
        if !range.contains(value) { throw failure(key, "\(value)", "a number from \(range.lowerBound) to \(range.upperBound)") }
    }

    /// Absolute: the process may change its directory later.
    static func check(path: String, _ key: String) throws(ConfigurationError) {
        if !Limits.isText(path) || path.utf8.first != UInt8(ascii: "/") {
            throw failure(key, JSON(.string(path)).summary, "an absolute path")
        }
    }
}

extension Configuration.Target {
    func validate(_ key: String) throws(ConfigurationError) {
        func check(_ text: String, _ property: String, _ isValid: (String) -> Bool, _ hint: String) throws(ConfigurationError) {
            if !isValid(text) { throw Configuration.failure("\(key).\(property)", JSON(.string(text)).summary, hint) }
        }
        switch self {
        case .s3(let s3):
            try check(s3.region, "region", Limits.isText, Limits.regionHint)
            // Not repeated: it may have a password in it.
            if let endpoint = s3.endpoint, !Limits.isEndpoint(endpoint) {
                throw Configuration.failure("\(key).endpoint", "something else", Limits.endpointHint)
            }
            try check(s3.chunkBucket, "chunkBucket", Limits.isBucket, Limits.bucketHint)
            try check(s3.manifestBucket, "manifestBucket", Limits.isBucket, Limits.bucketHint)
        case .directory(let directory): try Configuration.check(path: directory.path, "\(key).path")
        case .local(let cache):
            try cache.validate(key)
            try Configuration.check(cache.capacity, in: Limits.capacity, "\(key).capacity")
        case .readOnly(let cache): try cache.validate(key)
        }
    }
}

extension Configuration.Cache {
    fileprivate func validate(_ key: String) throws(ConfigurationError) {
        try Configuration.check(path: directory, "\(key).directory")
        try Configuration.check(shards, in: Limits.shards, "\(key).shards")
    }
}

extension Configuration.Pacing {
    fileprivate func validate() throws(ConfigurationError) {
        try Configuration.check(requestsPerSecond, in: Limits.requestsPerSecond, "pacing.requestsPerSecond")
        try Configuration.check(burst, in: Limits.burst, "pacing.burst")
        try Configuration.check(flushRequestsPerSecond, in: Limits.requestsPerSecond, "pacing.flushRequestsPerSecond")
        try Configuration.check(manifestInterval, in: Limits.interval, "pacing.manifestInterval")
        try Configuration.check(passInterval, in: Limits.interval, "pacing.passInterval")
        try Configuration.check(workers, in: Limits.workers, "pacing.workers")
        try Configuration.check(uploadsInFlight, in: Limits.uploadsInFlight, "pacing.uploadsInFlight")
        try Configuration.check(commitBudget, in: Limits.commitBudget, "pacing.commitBudget")
        try Configuration.check(patrolMaxAge, in: Limits.patrolMaxAge, "pacing.patrolMaxAge")
        try Configuration.check(scanInterval, in: Limits.scanInterval, "pacing.scanInterval")
        try Configuration.check(lagThreshold, in: Limits.interval, "pacing.lagThreshold")
    }
}
