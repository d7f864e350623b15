/// Where and how to store.
public struct S3Configuration: Sendable, Hashable {
    /// AWS's name of a region, or where there is no endpoint, one of the short
    /// forms that S3Endpoint explains.
    public var region: String
    /// "http://host:port" or "https://host"; nil: by the region.
    public var endpoint: String?
    public var chunkBucket: String
    public var manifestBucket: String
    /// Buckets as subdomains of the endpoint (virtual-host style) instead of in
    /// the path. An endpoint that is an IP address is always addressed by path.
    public var domainAddressing: Bool
    /// Make buckets that don't exist.
    public var createBucketsOnDemand: Bool
    public var pacing: S3Pacing
    /// Connections open at one time.
    public var maximumConnections: Int
    /// Tries after the first one, for what may go better the next time.
    public var retries: Int
    /// Longest pause before the first of those tries, in seconds. It doubles
    /// for each further one; the pause is random up to that (full jitter).
    public var retryPause: Double
    /// Until a connection stands (name, TCP, TLS), in seconds.
    public var connectTimeout: Double
    /// Without a byte sent or received, in seconds.
    public var idleTimeout: Double
    /// A try may take twice `idleTimeout`, and as long as what it has moved of both bodies takes at so many bytes a second.
    public var leastRate: Double
    /// How long the absence of credentials is believed, in seconds.
    public var credentialsPause: Double
    /// Whether PUTs carry Content-MD5 besides the signed SHA-256. For the
    /// stores that refuse it; where they do, off.
    public var contentMD5: Bool

    public init(
        region: String, endpoint: String? = nil, chunkBucket: String, manifestBucket: String,
        domainAddressing: Bool = true, createBucketsOnDemand: Bool = false, pacing: S3Pacing = S3Pacing()
    ) {
        self.region = region
        self.endpoint = endpoint
        self.chunkBucket = chunkBucket
        self.manifestBucket = manifestBucket
        self.domainAddressing = domainAddressing
        self.createBucketsOnDemand = createBucketsOnDemand
        self.pacing = pacing
        maximumConnections = 64
        retries = 3
        retryPause = 0.5
        connectTimeout = 10
        idleTimeout = 30
        leastRate = 1024
        credentialsPause = 60
        contentMD5 = true
    }
}

/// Budgets of HTTP requests, retries included, per store and process (docs/REPLICATION.md, Requests).
public struct S3Pacing: Sendable, Hashable {
    public struct Budget: Sendable, Hashable {
        /// On average. Above 0.
        public var requestsPerSecond: Double
        /// At once, after a pause. At least 1.
        public var burst: Double

        public init(requestsPerSecond: Double, burst: Double) {
            self.requestsPerSecond = max(requestsPerSecond, 0.001)
            self.burst = max(burst, 1)
        }
    }

    /// nil: not paced.
    public var background: Budget?
    public var flush: Budget?
    public var interactive: Budget?

    public init(
        background: Budget? = Budget(requestsPerSecond: 30, burst: 100),
        flush: Budget? = Budget(requestsPerSecond: 1000, burst: 1000),
        interactive: Budget? = nil
    ) {
        self.background = background
        self.flush = flush
        self.interactive = interactive
    }
}
