import VerneuilSystem

/// What a store has done in this process since it was made.
public struct S3Counters: Sendable, Hashable {
    /// HTTP requests sent, retries included, by operation.
    public var gets = 0
    public var puts = 0
    public var touches = 0
    public var lists = 0
    /// HEAD of objects and buckets, and questions about buckets.
    public var heads = 0
    /// Replication deletes nothing; tools remove what they put for a trial.
    public var deletes = 0
    public var bucketCreations = 0
    /// Bytes of bodies.
    public var bytesSent = 0
    public var bytesReceived = 0
    /// Operations that failed in the end.
    public var failures = 0
    /// Tries after the first one.
    public var retries = 0
    /// Answers 429 and 503.
    public var throttled = 0
    public var connectionsOpened = 0
    /// Requests moved to another connection, since the server had closed the kept one.
    public var staleConnections = 0

    public init() {}

    public var requests: Int { gets + puts + touches + lists + heads + bucketCreations + deletes }
}

/// The state of a store, for status reports. Holds no secrets.
public struct S3Status: Sendable, Hashable {
    public var counters = S3Counters()
    /// Where the credentials in use come from; nil before the first request, and without any.
    public var credentialSource: String?
    /// Seconds since 1970.
    public var credentialExpiration: Int64?
    /// Seconds that the server's clock is ahead of this machine's, as far as it mattered.
    public var clockOffset: Int64 = 0
    /// Whether the store refuses Content-MD5: PUTs then go without it.
    public var refusesContentMD5 = false
    /// What is known of the store's conditional PUTs.
    public var conditionalWrites = ConditionalWrites()

    public init() {}
}

/// Whether the store honours conditions on PUT: nil where that is not known
/// yet. Found out with the first conditional PUT, and the same for its life.
public struct ConditionalWrites: Sendable, Hashable {
    /// If-None-Match: *
    public var ifAbsent: Bool?
    /// If-Match
    public var ifTag: Bool?
    /// Whether If-Match wants the tag without quotes (Ceph).
    public var bareTags = false

    public init(ifAbsent: Bool? = nil, ifTag: Bool? = nil, bareTags: Bool = false) {
        self.ifAbsent = ifAbsent
        self.ifTag = ifTag
        self.bareTags = bareTags
    }
}

/// A status that several threads look at and change.
final class S3StatusCell: Sendable {
    private let lock = Lock()
    nonisolated(unsafe) private var value = S3Status()

    var snapshot: S3Status { lock.withLock { value } }

    func update(_ body: (inout S3Status) -> Void) {
        lock.withLock { body(&value) }
    }

    func count(_ counter: WritableKeyPath<S3Counters, Int>, _ amount: Int = 1) {
        lock.withLock { value.counters[keyPath: counter] += amount }
    }
}
