import CVerneuil
import Logging
import Synchronization
import VerneuilReplica
import VerneuilReplication

/// What a file name's query string says of replication (`file:app.db?vfs=verneuil&verneuil_target=…`):
/// the parameters whose names begin with `verneuil_`, decoded by SQLite, in their order.
public struct ConnectionParameters: Hashable, Sendable {
    public struct Parameter: Hashable, Sendable {
        public var name: String
        /// Where a name is given twice, the first one's: SQLite answers no other.
        public var value: String
        public init(name: String, value: String) {
            self.name = name
            self.value = value
        }
    }
    public var all: [Parameter]

    public static let prefix = "verneuil_"
    public static let spoolingDirectory = "verneuil_spooling_dir"
    public static let permissions = "verneuil_spooling_dir_permissions"
    public static let target = "verneuil_target"
    public static let names = [spoolingDirectory, permissions, target]

    public init(_ all: [Parameter]) { self.all = all }

    /// nil where there is none, which is the usual case and costs no allocation.
    ///
    /// - Parameter filename: as xOpen got it, or sqlite3_db_filename answered it: SQLite finds the parameters behind its end.
    public init?(_ filename: UnsafePointer<CChar>) {
        var found: [Parameter] = []
        if vrn_sqlite3_libversion_number() >= 3_031_000 {
            var n: Int32 = 0
            while let key = vrn_sqlite3_uri_key(filename, n) {
                n += 1
                guard strncmp(key, Self.prefix, Self.prefix.utf8.count) == 0 else { continue }
                let value = vrn_sqlite3_uri_parameter(filename, key).map { String(cString: $0) } ?? ""
                found.append(Parameter(name: String(cString: key), value: value))
            }
        } else {
            // Can't tell what is there, only answer what is asked for.
            for name in Self.names {
                guard let value = vrn_sqlite3_uri_parameter(filename, name) else { continue }
                found.append(Parameter(name: name, value: String(cString: value)))
            }
        }
        if found.isEmpty { return nil }
        all = found
    }
}

/// Why a connection with parameters isn't opened.
public struct ConnectionRefusal: Error, Sendable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }

    /// SQLite's code says little: the reason goes to the application's error log and to ours.
    func report(vfs: String, path: UnsafePointer<CChar>) -> Int32 {
        // SQLite cuts a line of its log after 209 bytes.
        var rest = Substring("can't open \(String(cString: path)): \(description)")
        while !rest.isEmpty {
            let line = rest.prefix(150)
            vrn_sqlite3_log(SQLITE_CANTOPEN, "\(vfs): \(line)")
            rest = rest[line.endIndex...]
        }
        Logger(label: "verneuil.configuration").error(
            "this database is not opened: \(description)", metadata: ["database": "\(String(cString: path))"])
        return SQLITE_CANTOPEN
    }
}

/// Who knows what parameters mean: the layer above, which has the configuration.
public enum ConnectionSettings {
    public enum Purpose: Sendable {
        case replication
        case reading
    }
    /// What a connection uses.
    public struct Answer: Sendable {
        /// nil: it is not replicated.
        public var replicator: Replicator?
        public var replicas: ReplicaRegistry
        public init(replicator: Replicator?, replicas: ReplicaRegistry) {
            self.replicator = replicator
            self.replicas = replicas
        }
    }
    public typealias Resolver =
        @Sendable (_ parameters: ConnectionParameters, _ purpose: Purpose, _ path: String) -> Result<Answer, ConnectionRefusal>

    private final class Box: Sendable {
        let resolver: Resolver
        init(_ resolver: @escaping Resolver) { self.resolver = resolver }
    }
    /// A retained Box. An atomic and no lock: see `Replicas`.
    private static let current = Atomic<UInt>(0)

    /// Replaces the resolver. Safe from any thread.
    public static func resolve(by resolver: @escaping Resolver) {
        // The old one is leaked: somebody may be about to use it, and a process is configured once or twice.
        current.store(UInt(bitPattern: Unmanaged.passRetained(Box(resolver)).toOpaque()), ordering: .releasing)
    }

    static func answer(
        to parameters: ConnectionParameters, for purpose: Purpose, path: String
    ) throws(ConnectionRefusal) -> Answer {
        guard let pointer = UnsafeRawPointer(bitPattern: current.load(ordering: .acquiring)) else {
            throw ConnectionRefusal("this program takes no \(parameters.all[0].name) in a file's name")
        }
        return try Unmanaged<Box>.fromOpaque(pointer).takeUnretainedValue().resolver(parameters, purpose, path).get()
    }
}
