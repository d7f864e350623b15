import VerneuilReplica

/// Everything that can be configured (SYSTEM 7), with its defaults. The default
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
    /// How much of a snapshot is fetched before a replica opens.
    public var snapshotLoading = LoadingPolicy.default
    public var pacing = Pacing()
    /// What is odd but usable, such as unknown keys; one sentence each, with its place.
    public var warnings: [String] = []

    public init() {}

    public enum Target: Sendable, Hashable {
        case s3(S3)
        case directory(Directory)
        /// A cache that is read and written.
        case local(Cache)
        /// A cache that is only read.
        case readOnly(Cache)
    }

    public struct S3: Sendable, Hashable {
        public var region: String
        /// nil: derived from the region.
        public var endpoint: String?
        public var chunkBucket: String
        public var manifestBucket: String
        /// Buckets are part of the host name (AWS's way), not of the path.
        public var domainAddressing = true
        public var createBucketsOnDemand = false

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
        public init(path: String) { self.path = path }
    }

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
        public var uploadsInFlight = 100
        /// Seconds that one commit may spend on a database that has no usable snapshot yet.
        public var commitBudget = 0.020

        public init() {}
    }
}
