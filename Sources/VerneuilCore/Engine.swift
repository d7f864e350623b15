import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// A configuration put to work: the stores and caches that it names.
///
/// Safe from any thread.
public final class Engine: Sendable {
    public let configuration: Configuration
    /// Where replicated data is kept, in the order in which readers try them.
    public let stores: [any ObjectStore]
    /// nil where replication is off.
    public let spool: SpoolDirectory?

    /// Fails where a target can't be set up: one that is left out in silence is a missing backup.
    public init(_ configuration: Configuration) throws(ConfigurationError) {
        self.configuration = configuration
        stores = try Self.stores(configuration)
        spool = configuration.spoolingDirectory.map {
            SpoolDirectory($0, permissions: configuration.spoolingDirectoryPermissions)
        }
    }

    private static func stores(_ configuration: Configuration) throws(ConfigurationError) -> [any ObjectStore] {
        var stores: [any ObjectStore] = []
        for target in configuration.targets {
            switch target {
            case .directory(let directory): stores.append(DirectoryStore(path: directory.path))
            case .s3: continue
            case .local, .readOnly: continue
            }
        }
        return stores
    }

    /// The manifest of a database as this machine last uploaded it, since it
    /// started; nil where it hasn't.
    /// - Parameter databasePath: canonical.
    public func lastUploaded(databasePath: String) throws(FormatError) -> ReplicationInfo? {
        let name = ManifestName.make(host: Host.name(), path: databasePath)
        guard let manifest = spool?.tap(name) else { return nil }
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
            _ = LinuxVFS.register(makeDefault: configuration.makeDefault)
            installed = engine
            return true
        }
    }
}
