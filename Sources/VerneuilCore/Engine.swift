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

    /// - Throws: where a setting can't be used, or a target not be set up: one left out in silence would be a missing backup.
    public init(_ configuration: Configuration) throws(ConfigurationError) {
        try configuration.validate()
        self.configuration = configuration
        let hostName = try Self.hostName(configuration)
        let stores = try Self.stores(configuration)
        let caches = Self.caches(configuration)
        let spool = configuration.spoolingDirectory.map {
            SpoolDirectory($0, permissions: configuration.spoolingDirectoryPermissions)
        }
        self.stores = stores
        replicas = ReplicaEnvironment(
            caches: caches, stores: stores, policy: configuration.snapshotLoading,
            tempDirectory: configuration.temporaryDirectory, hostName: hostName, tap: { spool?.tap($0) })
        let fillers = caches.filter { !$0.isReadOnly }.map { CacheFiller($0) }
        let publish: @Sendable (Fingerprint, [UInt8]) -> Void = { for filler in fillers { filler.add($0, $1) } }
        self.fillers = fillers
        replicator = spool.map {
            Replicator(
                spool: $0, targets: stores.map { ReplicationTarget($0) }, options: ReplicationOptions(configuration, hostName: hostName),
                logger: Logger(label: "verneuil.replication"),
                didStoreChunk: fillers.isEmpty ? nil : publish)
        }
    }

    /// Waits until caches have what was uploaded, for two seconds each at most: for a program that ends now.
    public func finishCaches() {
        for filler in fillers { filler.finish(within: 2) }
    }

    /// What is stored under a false name would be found by nobody, or stand in another machine's place.
    private static func hostName(_ configuration: Configuration) throws(ConfigurationError) -> String {
        if configuration.spoolingDirectory == nil, configuration.targets.isEmpty { return Host.name() }
        do throws(SystemError) { return try Host.knownName() } catch {
            throw ConfigurationError(
                source: "configuration", reason: "this machine's name can't be read: \(error); configure again when it can",
                cause: .system(code: error.code))
        }
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
    /// Replication is configured once. Asking for the same again is fine, so is asking for nothing (an empty
    /// configuration), which changes nothing; and where replication was off until then, anything may be asked for.
    /// - Throws: where that can't be had; nothing has changed then.
    public static func install(_ configuration: Configuration) throws(ConfigurationError) {
        try configuration.validate()
        try lock.withLock { () throws(ConfigurationError) in
            if let installed {
                let wanted = configuration.withoutWarnings
                if wanted == installed.configuration.withoutWarnings || wanted == Configuration() { return }
                if let spool = installed.configuration.spoolingDirectory {
                    throw ConfigurationError(
                        source: "configuration",
                        reason: "this process replicates with other settings already, through \(spool): configure it once, or give databases "
                            + "settings of their own in their file names",
                        cause: .alreadyConfigured)
                }
            }
            let engine = try Engine(configuration)
            let logger = Logger(label: "verneuil.configuration")
            for warning in configuration.warnings { logger.warning("\(warning)") }
            if engine.replicator?.options.hostName == Host.unknownName {
                logger.warning("/etc/hostname can't be read: databases are stored as \(Host.unknownName)'s, as any other such machine's are")
            }
            try engine.registerVFSs(inPlaceOf: installed)
            installed = engine
        }
    }

    private func registerVFSs(inPlaceOf former: Engine?) throws(ConfigurationError) {
        func check(_ name: String, _ code: Int32) throws(ConfigurationError) {
            if code == SQLITE_OK { return }
            throw ConfigurationError(
                source: "configuration", reason: "SQLite refuses the VFS \(name): sqlite3_vfs_register answers \(code)",
                cause: .sqlite(code: code))
        }
        if former == nil, vrn_sqlite3_has_api() != 0, let vfs = vrn_sqlite3_vfs_find(nil) { Self.formerDefault = String(cString: vfs.pointee.zName) }
        // The one that changes nothing comes first: SQLite refuses all, where it can't be initialized, or none.
        try check(LinuxVFS.name, LinuxVFS.register(makeDefault: false))
        LinuxVFS.setTemporaryDirectory(configuration.temporaryDirectory)
        // Before the VFS is known: no connection may be opened without it.
        ReplicatedVFS.replicator = replicator
        ConnectionSettings.resolve { ConnectionEngines.shared.answer(to: $0, for: $1, path: $2) }
        try check(SnapshotVFS.name, SnapshotVFS.register(environment: replicas))
        try check(ReplicatedVFS.name, ReplicatedVFS.register(makeDefault: configuration.makeDefault))
        if let former, former.configuration.makeDefault, !configuration.makeDefault, let vfs = vrn_sqlite3_vfs_find(Self.formerDefault) {
            try check(Self.formerDefault, vrn_sqlite3_vfs_register(vfs, 1))
        }
    }

    /// The VFS of connections that named none before there was one of ours. Guarded by `lock`.
    nonisolated(unsafe) private static var formerDefault = "unix"
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

extension Configuration {
    /// What it asks for: a place in a text is no difference.
    fileprivate var withoutWarnings: Configuration {
        var same = self
        same.warnings = []
        return same
    }
}

extension ReplicationOptions {
    init(_ configuration: Configuration, hostName: String) {
        self.init()
        self.hostName = hostName
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
