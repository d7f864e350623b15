import Synchronization
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Everything that replicas need to know of the process's configuration.
public struct ReplicaEnvironment: Sendable {
    /// Asked in order, before the stores.
    public var caches: [CacheDirectory]
    /// Asked in order; the first that has a manifest is believed.
    public var stores: [any ObjectStore]
    public var policy: LoadingPolicy
    /// Where the chunks of open replicas go; nil: a directory for temporary files (`SlotFile.candidates`).
    public var tempDirectory: String?
    /// This machine's, which an empty host in `verneuil:///path` stands for.
    public var hostName: String
    /// GETs in flight at most.
    public var parallelism: Int
    /// Connections with `verneuil_snapshot_auto_refresh` have a fetch started
    /// where the last one is older than this many seconds; nil: only when they are told to.
    public var autoRefreshInterval: Double?
    /// The last manifest that this machine uploaded under a name, if there is one. Called on any thread.
    public var tap: @Sendable (_ manifestName: String) -> [UInt8]?

    public init(
        caches: [CacheDirectory] = [], stores: [any ObjectStore] = [], policy: LoadingPolicy = .default,
        tempDirectory: String? = nil, hostName: String = Host.name(), parallelism: Int = 64,
        autoRefreshInterval: Double? = nil,
        tap: @escaping @Sendable (_ manifestName: String) -> [UInt8]? = { _ in nil }
    ) {
        self.caches = caches
        self.stores = stores
        self.policy = policy
        self.tempDirectory = tempDirectory
        self.hostName = hostName
        self.parallelism = parallelism
        self.autoRefreshInterval = autoRefreshInterval
        self.tap = tap
    }
}

/// A process's open replicas under one configuration, and what they share.
///
/// Replicas are kept as long as somebody uses them, so that connections to the
/// same database share snapshots and chunks, and whoever opens the first one gets fresh data.
public final class ReplicaRegistry: @unchecked Sendable {
    public let environment: ReplicaEnvironment
    public let manifests: ManifestSource
    package let cache: ChunkCache

    private struct Weak {
        weak var replica: Replica?
    }
    private let lock = Lock()
    private var replicas: [ReplicaLocation: Weak] = [:]

    public init(_ environment: ReplicaEnvironment) {
        self.environment = environment
        let chunks = ChunkSource(
            caches: environment.caches, stores: environment.stores, parallelism: environment.parallelism)
        manifests = ManifestSource(chunks: chunks, tap: environment.tap)
        cache = ChunkCache(source: chunks, directory: environment.tempDirectory)
    }

    /// The replica at a location, the same for all who have it open. Nothing is fetched yet.
    public func replica(at location: ReplicaLocation) -> Replica {
        lock.lock()
        defer { lock.unlock() }
        if let known = replicas[location]?.replica { return known }
        let new = Replica(at: location, in: self)
        replicas = replicas.filter { $0.value.replica != nil }
        replicas[location] = Weak(replica: new)
        return new
    }
}

/// The configuration of this process, which may be replaced: replicas that are
/// open then keep theirs.
public enum Replicas {
    /// A retained `Configured`. An atomic and no lock: a child
    /// that is forked while another thread holds a lock would wait for it for ever.
    private static let current = Atomic<UInt>(local(ReplicaEnvironment()))

    private static func local(_ environment: ReplicaEnvironment) -> UInt {
        UInt(bitPattern: Unmanaged.passRetained(Configured(environment)).toOpaque())
    }

    private final class Configured: Sendable {
        private let environment: ReplicaEnvironment
        private let local = ProcessLocal<ReplicaRegistry>()
        init(_ environment: ReplicaEnvironment) { self.environment = environment }
        var registry: ReplicaRegistry { local.value { ReplicaRegistry(environment) } }
    }

    /// Replaces the configuration. Safe from any thread.
    public static func configure(_ environment: ReplicaEnvironment) {
        // Before there are threads that may want the same at the same time.
        FingerprintKey.makeAll()
        _ = Zeros.address
        // The old one is leaked: somebody may be about to use it, and a process is configured once or twice.
        current.store(local(environment), ordering: .releasing)
    }

    /// This process's registry: a forked child has its own.
    public static var registry: ReplicaRegistry {
        let bits = current.load(ordering: .acquiring)
        guard let pointer = UnsafeRawPointer(bitPattern: bits) else { return ReplicaRegistry(ReplicaEnvironment()) }
        return Unmanaged<Configured>.fromOpaque(pointer).takeUnretainedValue().registry
    }
}
