import CVerneuil
import Logging
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilS3
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// A configuration put to work: the stores and caches that it names, and the
/// replication through them.
///
/// Safe from any thread. Nothing is opened or contacted before the first use.
public final class Engine: Sendable {
    public let configuration: Configuration
    /// Where replicated data is kept, in the order in which readers try them.
    public let stores: [any ObjectStore]
    /// What replicas and restores read from.
    public let replicas: ReplicaEnvironment
    /// nil where replication is off.
    public let replicator: Replicator?
    private let fillers: [CacheFiller]
    /// Replicas that connections with settings of their own have open.
    var registry: ReplicaRegistry { registries.value { ReplicaRegistry(replicas) } }
    private let registries = ProcessLocal<ReplicaRegistry>()

    /// - Throws: where a target can't be set up: one left out in silence would be a missing backup.
    public init(_ configuration: Configuration) throws(ConfigurationError) {
        self.configuration = configuration
        let stores = try Self.stores(configuration)
        let caches = Self.caches(configuration)
        let spool = configuration.spoolingDirectory.map {
            SpoolDirectory($0, permissions: configuration.spoolingDirectoryPermissions)
        }
        self.stores = stores
        replicas = ReplicaEnvironment(
            caches: caches, stores: stores, policy: configuration.snapshotLoading,
            tempDirectory: configuration.temporaryDirectory, tap: { spool?.tap($0) })
        let fillers = caches.filter { !$0.isReadOnly }.map { CacheFiller($0) }
        let publish: @Sendable (Fingerprint, [UInt8]) -> Void = { for filler in fillers { filler.add($0, $1) } }
        self.fillers = fillers
        replicator = spool.map {
            Replicator(
                spool: $0, targets: stores.map { ReplicationTarget($0) }, options: ReplicationOptions(configuration),
                logger: Logger(label: "verneuil.replication"),
                didStoreChunk: fillers.isEmpty ? nil : publish)
        }
    }

    /// Waits until caches have what was uploaded, for two seconds each at most: for a program that ends now.
    public func finishCaches() {
        for filler in fillers { filler.finish(within: 2) }
    }

    private static func stores(_ configuration: Configuration) throws(ConfigurationError) -> [any ObjectStore] {
        var stores: [any ObjectStore] = []
        for (i, target) in configuration.targets.enumerated() {
            switch target {
            case .directory(let directory): stores.append(DirectoryStore(path: directory.path))
            case .s3(let s3):
                do throws(StoreError) {
                    stores.append(try S3Store(S3Configuration(s3, configuration.pacing)))
                } catch {
                    throw ConfigurationError(
                        source: "configuration", key: "replication_targets[\(i)].s3", reason: error.reason)
                }
            case .local, .readOnly: continue
            }
        }
        return stores
    }

    private static func caches(_ configuration: Configuration) -> [CacheDirectory] {
        configuration.targets.compactMap { target in
            switch target {
            case .local(let cache):
                CacheDirectory(
                    local: cache.directory, shards: cache.shards, capacity: cache.capacity,
                    appendInstanceID: cache.appendInstanceID)
            case .readOnly(let cache):
                CacheDirectory(readOnly: cache.directory, shards: cache.shards, appendInstanceID: cache.appendInstanceID)
            case .s3, .directory: nil
            }
        }
    }

    /// The manifest of a database as this machine last uploaded it, since it
    /// started; nil where it hasn't.
    /// - Parameter databasePath: canonical.
    public func lastUploaded(databasePath: String) throws(FormatError) -> ReplicationInfo? {
        let name = ManifestName.make(host: Host.name(), path: databasePath)
        guard let manifest = replicator?.spool.tap(name) else { return nil }
        return try ReplicationInfo(manifest: manifest, name: name)
    }

    // MARK: the process's engine

    private static let lock = Lock()
    nonisolated(unsafe) private static var installed: Engine?

    /// The engine behind the VFSs of this process; nil until `install`.
    public static var current: Engine? { lock.withLock { installed } }

    /// Registers the VFSs in this process. SQLite's function table must be
    /// set before (`vrn_sqlite3_set_api`).
    ///
    /// The configuration is set once. Asking for the same again is fine, and so
    /// is configuring a process in which nothing was configured.
    /// - Returns: false where another configuration is in force; nothing has changed then.
    @discardableResult
    public static func install(_ configuration: Configuration) throws(ConfigurationError) -> Bool {
        try lock.withLock { () throws(ConfigurationError) in
            if let installed {
                if installed.configuration == configuration || configuration == Configuration() { return true }
                if installed.configuration != Configuration() { return false }
            }
            let engine = try Engine(configuration)
            let logger = Logger(label: "verneuil.configuration")
            for warning in configuration.warnings { logger.warning("\(warning)") }
            engine.registerVFSs(logger)
            installed = engine
            return true
        }
    }

    private func registerVFSs(_ logger: Logger) {
        if let directory = configuration.temporaryDirectory { LinuxVFS.setTemporaryDirectory(directory) }
        // Before the VFS is known: no connection may be opened without it.
        ReplicatedVFS.replicator = replicator
        ConnectionSettings.resolve { ConnectionEngines.shared.answer(to: $0, for: $1, path: $2) }
        for (name, result) in [
            (LinuxVFS.name, LinuxVFS.register(makeDefault: false)),
            (SnapshotVFS.name, SnapshotVFS.register(environment: replicas)),
            (ReplicatedVFS.name, ReplicatedVFS.register(makeDefault: configuration.makeDefault)),
        ] where result != SQLITE_OK {
            logger.error("SQLite refuses the VFS", metadata: ["vfs": "\(name)", "code": "\(result)"])
        }
    }
}

extension S3Configuration {
    init(_ s3: Configuration.S3, _ pacing: Configuration.Pacing) {
        self.init(
            region: s3.region, endpoint: s3.endpoint, chunkBucket: s3.chunkBucket, manifestBucket: s3.manifestBucket,
            domainAddressing: s3.domainAddressing, createBucketsOnDemand: s3.createBucketsOnDemand,
            pacing: S3Pacing(
                background: .init(requestsPerSecond: pacing.requestsPerSecond, burst: Double(pacing.burst)),
                flush: .init(requestsPerSecond: pacing.flushRequestsPerSecond, burst: pacing.flushRequestsPerSecond)))
        maximumConnections = pacing.uploadsInFlight
    }
}

extension ReplicationOptions {
    init(_ configuration: Configuration) {
        self.init()
        commitBudget = configuration.pacing.commitBudget
        manifestInterval = configuration.pacing.manifestInterval
        passInterval = configuration.pacing.passInterval
        workers = configuration.pacing.workers
        uploadWindow = configuration.pacing.uploadsInFlight
        backgroundWindow = min(uploadWindow, max(10, Int(configuration.pacing.requestsPerSecond)))
        patrolMaxAge = configuration.pacing.patrolMaxAge
        touchesPerSecond = configuration.pacing.requestsPerSecond / 2
        scanInterval = configuration.pacing.scanInterval
        lagThreshold = configuration.pacing.lagThreshold
        generatedBy = "verneuil-swift \(Version.description)"
        // For tests: an oracle, not a setting that an application should know.
        isParanoid = getenv("VERNEUIL_PARANOID").map { String(cString: $0) == "1" } ?? false
    }
}
