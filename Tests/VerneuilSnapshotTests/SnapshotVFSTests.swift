import CSQLite
import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilReplica
import VerneuilStore
import VerneuilVFS

/// All tests of the VFS, one after the other: SQLite knows one
/// `verneuil_snapshot` per process, and each test configures it.
@Suite(.serialized) enum SnapshotVFSTests {
    /// Registers the VFS with these stores.
    static func configure(
        _ stores: [any ObjectStore], policy: LoadingPolicy = .default, caches: [CacheDirectory] = [],
        hostName: String = "this.example.com", parallelism: Int = 64, autoRefreshInterval: Double? = nil,
        tempDirectory: String? = nil, tap: @escaping @Sendable (String) -> [UInt8]? = { _ in nil }
    ) {
        SQLiteTable.install()
        let code = SnapshotVFS.register(
            environment: ReplicaEnvironment(
                caches: caches, stores: stores, policy: policy, tempDirectory: tempDirectory, hostName: hostName,
                parallelism: parallelism, autoRefreshInterval: autoRefreshInterval, tap: tap))
        #expect(code == SQLITE_OK)
    }

    /// Opens a replica by its plain name.
    static func open(_ name: String) throws -> SQLiteConnection {
        try SQLiteConnection(name, vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
    }

    /// The error that something fails with.
    static func error(_ body: () throws -> Void) -> SQLiteError? {
        do {
            try body()
            return nil
        } catch {
            return error as? SQLiteError
        }
    }
}

/// A database and a store with its replica.
final class Source {
    let scratch: Scratch
    let store: MemoryStore
    let writer: StoreWriter
    var path: String { scratch.file("db") }
    var uri: String { writer.uri }

    /// - Parameter path: under which it is replicated.
    init(_ path: String = "/srv/app.db", rows: Int = 1000, rowBytes: Int = 500, pageSize: Int = 4096, indexFirst: Bool = false) throws {
        scratch = try Scratch()
        store = MemoryStore()
        writer = StoreWriter(path: path, stores: [store])
        try Databases.make(scratch.file("db"), rows: rows, rowBytes: rowBytes, pageSize: pageSize, indexFirst: indexFirst)
        try replicate()
    }

    /// - Parameter ctime: of the source, in seconds.
    func replicate(ctime: Int64 = 1_700_000_000) throws {
        try writer.store(scratch.bytes("db"), ctime: (ctime, 42))
    }

    /// Runs SQL on the source, and replicates it.
    func commit(_ sql: String) throws {
        try SQLiteConnection(path).rows(sql)
        try replicate()
    }
}
