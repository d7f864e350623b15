import CSQLite
import CVerneuil
import Logging
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// A database with its own spool, replicated by this process to any stores, with times cut down.
final class ReplicatedFile {
    let directory: String
    let path: String
    let replicator: Replicator
    static let host = "replication.example"

    /// - Parameters:
    ///   - shared: another one, whose file this one replicates as well.
    ///   - parent: where its directory is made.
    ///   - permissions: of the spooling directory.
    init(
        _ stores: [any ObjectStore], sharing shared: ReplicatedFile? = nil, spool: String = "spool", in parent: String = "/tmp",
        permissions: UInt32 = 0o700, _ change: (inout ReplicationOptions) -> Void = { _ in }
    ) throws {
        SQLiteTable.install()
        directory = shared?.directory ?? "\(parent)/verneuil-replication-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        try Files.makeDirectories(directory)
        path = "\(directory)/app.db"
        owner = shared
        var options = ReplicationOptions()
        options.hostName = Self.host
        options.manifestInterval = 0.05
        options.passInterval = 0.02
        options.scanInterval = 0.2
        change(&options)
        var logger = Logger(label: "replication tests") { _ in LogBook() }
        logger.logLevel = .info
        replicator = Replicator(
            spool: SpoolDirectory("\(directory)/\(spool)", permissions: permissions), targets: stores.map { ReplicationTarget($0) }, options: options,
            logger: logger)
        #expect(LinuxVFS.register(makeDefault: false) == SQLITE_OK)
        #expect(ReplicatedVFS.register(makeDefault: false) == SQLITE_OK)
    }

    /// Its directory goes with the last who uses it.
    private let owner: ReplicatedFile?
    deinit { if owner == nil { try? Files.removeTree(directory) } }

    func connect() throws -> SQLiteConnection {
        ReplicatedVFS.replicator = replicator
        let connection = try SQLiteConnection(path, vfs: "verneuil")
        sqlite3_busy_timeout(connection.handle, 60_000)
        return connection
    }

    var spooled: SpoolDatabase {
        get throws {
            let status = try #require(try Files.status(path))
            return SpoolDatabase(replicator.spool, path: path, device: status.device, inode: status.inode)
        }
    }

    /// nil: everything is stored.
    func flush(timeout: Double = 60) throws -> String? { try replicator.flush(spooled, timeout: timeout) }

    func report(now: UInt64? = nil) -> SpoolReport { SpoolReport(replicator.spool, targets: replicator.targets, now: now) }

    /// What a store alone gives back, opened with SQLite's own VFS.
    static func restored(from store: any ObjectStore, path: String, to out: String) throws -> SQLiteConnection {
        let chunks = ChunkSource(caches: [], stores: [store])
        let manifests = ManifestSource(chunks: chunks)
        let stored = try manifests.fetch(.manifest(name: ManifestName.make(host: host, path: path)))
        _ = try Restore(manifests.resolve(stored.manifest), from: chunks).write(to: out)
        return try SQLiteConnection(out, vfs: "unix")
    }
}

/// What was logged, for tests that look at it.
struct LogBook: LogHandler {
    private static let lock = Lock()
    private nonisolated(unsafe) static var lines: [String] = []

    var logLevel: Logger.Level = .info
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line = "\(event.level) \(event.message)"
        for (key, value) in (event.metadata ?? [:]).sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        Self.lock.withLock { Self.lines.append(line) }
    }

    /// Lines that hold all of the words.
    static func lines(_ words: String...) -> [String] {
        lock.withLock { lines }.filter { line in words.allSatisfy { line.contains($0) } }
    }
}

/// Waits until something is so; false where it isn't within `seconds`.
func eventually(_ seconds: Double = 20, _ isSo: () throws -> Bool) rethrows -> Bool {
    let deadline = MonotonicTime.now.advanced(seconds: seconds)
    while true {
        if try isSo() { return true }
        if MonotonicTime.now >= deadline { return false }
        usleep(10_000)
    }
}
