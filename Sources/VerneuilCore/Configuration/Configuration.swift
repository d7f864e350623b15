import VerneuilReplica

/// Everything that can be configured, with its defaults; docs/CONFIGURATION.md says more. The default
/// value replicates nothing.
public struct Configuration: Sendable, Hashable {
    /// Make `verneuil` the VFS of connections that name none.
    public var makeDefault = false
    /// Where temporary files go, before the places that SQLite would try.
    public var temporaryDirectory: String?
    /// Absolute. nil: nothing is replicated.
    public var spoolingDirectory: String?
    /// Permission bits of the spooling directory.
    public var spoolingDirectoryPermissions: UInt32 = 0o700
    /// In the order in which readers try them.
    public var targets: [Target] = []
    /// Which chunks of a snapshot a replica fetches unasked. Opening waits for them with `.eager` only.
    public var snapshotLoading = LoadingPolicy.default
    /// How hard replication may work.
    public var pacing = Pacing()
    /// What is odd but usable, such as unknown keys; one sentence each, with its place.
    public var warnings: [String] = []

    /// Replicates nothing.
    public init() {}

    /// A store, which must have everything, or a cache of chunks.
    public enum Target: Sendable, Hashable {
        /// A store that speaks S3.
        case s3(S3)
        /// A store in a plain directory.
        case directory(Directory)
        /// A cache that is read and written.
        case local(Cache)
        /// A cache that is only read.
        case readOnly(Cache)
    }

    /// Two buckets of an S3 store. Credentials come from the environment, AWS's files or the machine's role.
    public struct S3: Sendable, Hashable {
        /// Of AWS; or, without an endpoint, `name.domain` for region `name` at `https://domain`.
        public var region: String
        /// nil: derived from the region.
        public var endpoint: String?
        /// Shared by databases, and by machines that trust one another.
        public var chunkBucket: String
        /// One object for each database.
        public var manifestBucket: String
        /// Buckets are part of the host name (AWS's way), not of the path.
        public var domainAddressing = true
        /// Whether buckets that aren't there are created.
        public var createBucketsOnDemand = false

        /// With the defaults for all else.
        public init(region: String, endpoint: String? = nil, chunkBucket: String, manifestBucket: String) {
            self.region = region
            self.endpoint = endpoint
            self.chunkBucket = chunkBucket
            self.manifestBucket = manifestBucket
        }
    }

    /// A store in a plain directory: `chunks/` and `manifests/` below `path`.
    public struct Directory: Sendable, Hashable {
        /// Absolute.
        public var path: String
        /// - Parameter path: absolute.
        public init(path: String) { self.path = path }
    }

    /// A directory of chunk files.
    public struct Cache: Sendable, Hashable {
        /// Absolute.
        public var directory: String
        /// Subdirectories that the files are spread over.
        public var shards = 100
        /// Files, about; a cache that is only read has no use for it.
        public var capacity = 20_000
        /// Add this boot's id to the path: files of an earlier boot, which a power
        /// failure may have torn, are not looked at.
        public var appendInstanceID = true
        /// - Parameter directory: absolute.
        public init(directory: String) { self.directory = directory }
    }

    /// How hard replication may work, in each process. Requests are counted for each target.
    public struct Pacing: Sendable, Hashable {
        /// On average, in the background.
        public var requestsPerSecond = 30.0
        /// Requests that may be sent at once after a pause.
        public var burst = 100
        /// On average, while somebody waits for a flush.
        public var flushRequestsPerSecond = 1000.0
        /// Seconds between two uploads of one database's manifest.
        public var manifestInterval = 1.1
        /// Seconds between two passes over one database.
        public var passInterval = 0.5
        /// Threads that look after databases.
        public var workers = 10
        /// For each target.
        public var uploadsInFlight = 100
        /// Seconds that one commit may spend on a database that has no usable snapshot yet.
        public var commitBudget = 0.020
        /// Seconds: no live chunk is left untouched for longer. Shorter than what a bucket's rule deletes after, by a day or two.
        public var patrolMaxAge = 5 * 86_400.0
        /// Seconds between two looks at all of the spooling directory: for what other processes left, and for lag.
        public var scanInterval = 60.0
        /// Seconds of lag from which on it is logged.
        public var lagThreshold = 120.0

        /// The defaults.
        public init() {}
    }
}
