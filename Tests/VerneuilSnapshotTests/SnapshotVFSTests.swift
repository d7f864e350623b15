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

extension SnapshotVFSTests {
    @Suite struct Opening {
        @Test(arguments: [LoadingPolicy.default, .eager, .partial(min: 1, max: 1)])
        func aReplicaAnswersAsItsSourceDoes(policy: LoadingPolicy) throws {
            let scratch = try Scratch()
            try Databases.make(scratch.file("db"), rows: 5000)
            let source = try SQLiteConnection(scratch.file("db"))
            let store = MemoryStore()
            let writer = StoreWriter(path: "/srv/a.db", stores: [store])
            try writer.store(scratch.bytes("db"))
            configure([store], policy: policy)
            let replica = try open(writer.uri)
            #expect(try replica.rows(Databases.checksum) == source.rows(Databases.checksum))
            #expect(try replica.rows("SELECT id, k FROM t ORDER BY k LIMIT 100") == source.rows("SELECT id, k FROM t ORDER BY k LIMIT 100"))
            #expect(try replica.value("PRAGMA integrity_check") == "ok")
        }
    }
}
