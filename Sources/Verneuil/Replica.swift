import VerneuilFormat
import VerneuilReplica
import VerneuilSystem

/// A database elsewhere, as this process knows it: the newest snapshot, and how to get a newer one.
///
/// Replicas are read with SQLite: open ``uri`` with any library. Connections of this process
/// and this object share what is known; a connection moves on to what ``refresh()`` fetched at its next
/// `PRAGMA verneuil_snapshot_refresh`, or at its next transaction after `PRAGMA verneuil_snapshot_auto_refresh(1)`.
///
/// ```swift
/// let replica = try await Replica.open(DatabaseSource(path: "/srv/app.db", host: "db1.example.com"))
/// print(replica.snapshot.length, "bytes as of", replica.snapshot.changed ?? .zero)
/// let uri = replica.uri
/// ```
///
/// Safe from any thread.
public final class Replica: Sendable {
    /// Which database.
    public let source: DatabaseSource
    private let replica: VerneuilReplica.Replica

    private init(_ source: DatabaseSource, _ uri: String, _ replica: VerneuilReplica.Replica) {
        self.source = source
        self.uri = uri
        self.replica = replica
    }

    /// Opens a replica: at once where this process has it open already, else when its manifest has been fetched.
    ///
    /// - Parameter source: a database in the configured stores, or a manifest file.
    /// - Throws: where there is no such database, or no store can be asked; where the source is an `https://` or `s3://` reference, which
    ///   can only be restored.
    public static func open(_ source: DatabaseSource) async throws(ReplicaError) -> Replica {
        // Connections look there, too, once the process is configured.
        _ = try Replication.readingEngine()
        guard let place = source.place, let uri = source.uri else {
            throw .refused("\(source): replicas are opened by verneuil://HOST/PATH or a manifest file; restore this one")
        }
        let replica = Replicas.registry.replica(at: place.location)
        _ = try await onThreadOfItsOwn("verneuil-open") { () throws(ReplicaError) in try replica.open() }
        return Replica(source, uri, replica)
    }

    /// What SQLite opens: `file:verneuil://HOST/PATH?vfs=verneuil_snapshot`, or a manifest file's path in place of that URL.
    public let uri: String

    /// The newest snapshot that this process knows of.
    public var snapshot: SnapshotFacts { SnapshotFacts(replica.newest) }

    /// Fetches the newest snapshot.
    ///
    /// ```swift
    /// let facts = try await replica.refresh()
    /// ```
    ///
    /// - Returns: what is known then, at least as new as what was stored when this was called.
    /// - Throws: where it can't be fetched; what is known stays.
    @discardableResult
    public func refresh() async throws(ReplicaError) -> SnapshotFacts {
        let replica = replica
        let newest = try await onThreadOfItsOwn("verneuil-refresh") { () throws(ReplicaError) in try replica.refresh() }
        return SnapshotFacts(newest)
    }
}

/// What a manifest says of a snapshot.
public struct SnapshotFacts: Sendable, Hashable {
    /// Bytes of the database.
    public var length: UInt64
    /// When the source file was last changed: the time since 1970 (UTC), by its own machine's clock; `nil` where that isn't known.
    public var changed: Duration?
    /// When this process fetched it, or last found it to be the newest: the time since 1970 (UTC), by this machine's clock.
    public var fetched: Duration
    /// Of the list of chunks, as 32 hexadecimal digits: equal for equal databases.
    public var fingerprint: String
    /// Chunks of 64 KiB.
    public var chunkCount: Int
    /// Program and version that wrote the manifest.
    public var generatedBy: String

    init(_ snapshot: Snapshot?) {
        length = snapshot?.length ?? 0
        changed = snapshot.flatMap { $0.ctime == FileTime(seconds: 0, nanoseconds: 0) ? nil : Duration($0.ctime) }
        fetched = snapshot.map { Duration($0.updated) } ?? .zero
        fingerprint = (snapshot?.contentsFingerprint).map { $0.chunkName.replacing("%2F", with: "") } ?? ""
        chunkCount = snapshot?.chunkCount ?? 0
        generatedBy = String(decoding: snapshot?.generatedBy ?? [], as: UTF8.self)
    }
}

extension Duration {
    init(_ time: FileTime) {
        self = .seconds(time.seconds) + .nanoseconds(time.nanoseconds)
    }
}
