import CSQLite
import CVerneuil
import Logging
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// The directory in which a run happens: databases, a spool, stores, logs. All processes of a run share it.
struct Arena: Sendable {
    let root: String

    /// A new one. In memory where that can be had: a run is about what is written, not about disks.
    static func make(in parent: String?, label: String) throws -> Arena {
        let parent = parent ?? (vrn_access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp")
        try Files.makeDirectories(parent, mode: 0o755)
        guard let canonical = Files.canonical(parent) else { throw SystemError("realpath", parent, ENOENT) }
        let arena = Arena(root: "\(canonical)/verneuil-stress-\(label)-\(getpid())-\(UInt32.random(in: 0 ... .max))")
        for directory in ["db", "side", "log", "store.0", "store.1", "store.2"] {
            try Files.makeDirectories("\(arena.root)/\(directory)", mode: 0o755)
        }
        return arena
    }

    func remove() { try? Files.removeTree(root) }

    func database(_ index: Int) -> String { "\(root)/db/\(index).db" }
    /// For files that are nobody's database.
    func side(_ name: String) -> String { "\(root)/side/\(name)" }
    var spool: SpoolDirectory { SpoolDirectory("\(root)/spool") }
    func storePath(_ index: Int) -> String { "\(root)/store.\(index)" }
    /// Nothing here survives the machine, so nothing is synced.
    func store(_ index: Int) -> DirectoryStore { DirectoryStore(path: storePath(index), sync: false) }

    static let hostName = "stress.example"
    func manifestName(_ path: String) -> String { ManifestName.make(host: Self.hostName, path: path) }

    /// As the spool knows the file that is at `path` now.
    func spooled(_ path: String) throws -> SpoolDatabase {
        guard let status = try Files.status(path) else { throw SystemError("stat", path, ENOENT) }
        return SpoolDatabase(spool, path: path, device: status.device, inode: status.inode)
    }

    /// Times cut down, so that what takes minutes in production happens hundreds of times in a run.
    static func options() -> ReplicationOptions {
        var options = ReplicationOptions()
        options.hostName = hostName
        options.manifestInterval = 0.02
        options.passInterval = 0.01
        options.scanInterval = 0.5
        options.isParanoid = true
        // So that these databases, which are small, are treated as large ones are.
        options.removedWithinCommit = 100_000
        return options
    }
}

/// Registers the VFSs with the SQLite that this program is linked to.
enum VFSs {
    static func install(_ replicator: Replicator?, readers: ReplicaEnvironment? = nil) throws {
        typealias Entry = @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, OpaquePointer?
        ) -> Int32
        let entry: Entry = { _, _, table in
            vrn_sqlite3_set_api(UnsafePointer<CVerneuil.sqlite3_api_routines>(table))
            return SQLITE_OK
        }
        let plain = unsafeBitCast(entry, to: (@convention(c) () -> Void).self)
        sqlite3_auto_extension(plain)
        var connection: OpaquePointer?
        sqlite3_open(":memory:", &connection)
        sqlite3_close(connection)
        sqlite3_cancel_auto_extension(plain)
        guard LinuxVFS.register(makeDefault: false) == SQLITE_OK, ReplicatedVFS.register(makeDefault: false) == SQLITE_OK
        else { throw Finding("the VFSs can't be registered") }
        ReplicatedVFS.replicator = replicator
        if let readers {
            guard SnapshotVFS.register(environment: readers) == SQLITE_OK else {
                throw Finding("verneuil_snapshot can't be registered")
            }
        }
    }
}

/// Something is not as it should be: the end of a run.
struct Finding: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Keeps what replication says in a file of its own for each process, dead ones' as well.
struct StressLog: LogHandler {
    private static let lock = Lock()
    private nonisolated(unsafe) static var file: Int32 = -1

    var logLevel: Logger.Level = .info
    var metadata: Logger.Metadata = [:]

    /// - Parameter arena: in which `log/` the file goes.
    static func logger(_ arena: Arena) -> Logger {
        let path = "\(arena.root)/log/\(getpid())"
        lock.withLock { if file < 0 { file = vrn_open(path, O_WRONLY | O_CREAT | O_APPEND, 0o644) } }
        return Logger(label: "verneuil") { _ in StressLog() }
    }

    /// Throws where a process of the run, whatever became of it, said what no crash and no concurrency may lead to: only that
    /// somebody tampers with the spool.
    static func expectNoAlarm(_ arena: Arena) throws {
        for name in try Files.list(arena.root + "/log").sorted() where Int(name) != nil {
            let text = String(decoding: try Files.read("\(arena.root)/log/\(name)") ?? [], as: UTF8.self)
            for line in text.split(separator: "\n")
            where line.contains("changed without our knowing") || line.contains("doesn't hold what it should") {
                throw Finding("replication said, in process \(name): \(line)")
            }
        }
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line = "\(wallClock().seconds) \(event.level) \(event.message)"
        for (key, value) in event.metadata ?? [:] { line += " \(key)=\(value)" }
        line += "\n"
        _ = line.withCString { vrn_write(Self.file, $0, strlen($0)) }
    }
}
