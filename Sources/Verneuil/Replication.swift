import CSQLite
import CVerneuil
import VerneuilCore
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem
import VerneuilVFS
import VerneuilVerify

/// What can be configured, with its defaults; the default value replicates nothing.
///
/// A value type: set what differs, and hand it to ``Replication/configure(_:)``.
///
/// ```swift
/// var configuration = Configuration()
/// configuration.spoolingDirectory = "/var/spool/app"
/// configuration.targets = [
///     .s3(.init(region: "us-east-1", chunkBucket: "app-chunks", manifestBucket: "app-manifests"))
/// ]
/// configuration.pacing.requestsPerSecond = 10
/// ```
///
/// - `spoolingDirectory`: where commits wait for their upload; `nil` replicates nothing.
/// - `targets`: where everything is stored (`.s3`, `.directory`), and caches (`.local`, `.readOnly`).
/// - `makeDefault`: whether connections that name no VFS use `verneuil`.
/// - `snapshotLoading`: which chunks of a replica are fetched unasked.
/// - `pacing`: how hard replication may work.
///
/// `Configuration(json:source:)` and `Configuration(specification:source:)` read the JSON that
/// `VERNEUIL_CONFIG` takes; both throw ``ConfigurationError`` with the place, what was found and what is expected.
/// What a program sets is looked at by ``Replication/configure(_:)``, or by `validate()`: paths are absolute, numbers in their bounds
/// (docs/CONFIGURATION.md).
public typealias Configuration = VerneuilCore.Configuration

/// A configuration that can't be used, or not now: its `cause`, its `source`, `position` and `key`, and the `reason` with what is expected.
public typealias ConfigurationError = VerneuilCore.ConfigurationError

/// One spooling directory: its `problems`, and its `databases`.
public typealias SpoolReport = VerneuilReplication.SpoolReport

/// One database in a ``SpoolReport``: what is staged, and its lag and problems on each target.
public typealias DatabaseReport = VerneuilReplication.DatabaseReport

/// One target of a ``DatabaseReport``.
public typealias TargetReport = VerneuilReplication.TargetReport

/// What was found out about one database in one store: its `outcome`, and `findings` with what is wrong.
public typealias Verification = VerneuilVerify.Verification

/// Replication in a program that links the system's SQLite.
///
/// After ``configure(_:)``, whatever opens SQLite databases in this process can name a
/// VFS: `verneuil` for databases to be replicated (`file:/srv/app.db?vfs=verneuil`),
/// `verneuil_snapshot` for replicas (`file:verneuil://host/srv/app.db?vfs=verneuil_snapshot`).
///
/// Every function is safe from any thread. Those that are `async` do their waiting on a thread
/// of their own, never on one of Swift concurrency's; cancelling the task doesn't stop them.
///
/// Logs go through swift-log: bootstrap `LoggingSystem` as you like; labels begin with `verneuil`. Metrics go through
/// swift-metrics, to whatever `MetricsSystem` was bootstrapped with before.
public enum Replication {
    /// Configures this process as the environment variable `VERNEUIL_CONFIG` says, and registers the VFSs.
    ///
    /// ```swift
    /// try Replication.configure()
    /// ```
    ///
    /// - Throws: where the variable is set and can't be used, and as ``configure(_:)``. Where it is unset, nothing is asked for.
    public static func configure() throws(ConfigurationError) {
        try configure(.fromEnvironment())
    }

    /// Configures this process, and registers the VFSs.
    ///
    /// Replication is configured once. Asking for the same again is fine, so is asking for nothing (`Configuration()`), which
    /// changes nothing; and where replication was off until then (no `spoolingDirectory`), anything may be asked for, and holds
    /// for what is opened from then on. Nothing is opened or contacted before the first use.
    ///
    /// ```swift
    /// var configuration = Configuration()
    /// configuration.spoolingDirectory = "/var/spool/app"
    /// configuration.targets = [.directory(.init(path: "/mnt/backup"))]
    /// try Replication.configure(configuration)
    /// ```
    ///
    /// - Parameter configuration: what is to be replicated where.
    /// - Throws: where a setting can't be used, a target not be set up or this machine's name not be read; where this process
    ///   replicates with other settings (`cause` is `.alreadyConfigured` then); where SQLite refuses (`.sqlite`). Nothing has
    ///   changed then, and nothing is replicated by it.
    public static func configure(_ configuration: Configuration) throws(ConfigurationError) {
        try attach()
        try Engine.install(configuration)
    }

    // MARK: Settings of one database

    /// What SQLite opens to replicate a database with settings of its own, over the process's configuration.
    ///
    /// ```swift
    /// let uri = Replication.uri(
    ///     forDatabase: "/srv/b.db", spoolingDirectory: "/var/spool/b", targets: [.directory(.init(path: "/mnt/b"))])
    /// ```
    ///
    /// Nothing is looked at here: opening the name fails with SQLITE_CANTOPEN (14) where a setting can't be used, there is no
    /// spooling directory or no store, or the spooling directory is in use for other targets; the log says which. Paths are absolute.
    ///
    /// - Parameters:
    ///   - path: the database's file.
    ///   - spoolingDirectory: of this database, and of others that go to the same targets; `nil` is the process's.
    ///   - targets: in place of the process's stores; none are the process's.
    /// - Returns: `file:PATH?vfs=verneuil&…`, to be opened with SQLITE_OPEN_URI.
    public static func uri(
        forDatabase path: String, spoolingDirectory: String? = nil, targets: [Configuration.Target] = []
    ) -> String {
        var uri = "file:\(percentEncoded(path))?vfs=\(ReplicatedVFS.name)"
        if let spoolingDirectory {
            uri += "&\(ConnectionParameters.spoolingDirectory)=\(percentEncoded(spoolingDirectory))"
        }
        if !targets.isEmpty {
            uri += "&\(ConnectionParameters.target)=\(percentEncoded(JSON.array(targets.map(\.json)).text))"
        }
        return uri
    }

    // MARK: Flush

    /// Makes sure that everything committed to a database before the call is stored on every target.
    ///
    /// ```swift
    /// try await Replication.flush("/srv/app.db", timeout: .seconds(30))
    /// ```
    ///
    /// - Parameters:
    ///   - path: the database's file.
    ///   - timeout: how long all of it may take.
    /// - Throws: where anything is left that isn't stored on every target, with its cause and the reason. It stays
    ///   spooled, and is tried again in the background.
    public static func flush(_ path: String, timeout: Duration = .seconds(600)) async throws(FlushError) {
        try await onThreadOfItsOwn("verneuil-flush") { () throws(FlushError) in try flushNow(path, timeout) }
    }

    /// ``flush(_:timeout:)`` for callers that aren't asynchronous: waits for the network on the calling thread.
    ///
    /// ```swift
    /// try Replication.flushBlocking("/srv/app.db", timeout: .seconds(30))
    /// ```
    ///
    /// - Parameters:
    ///   - path: the database's file.
    ///   - timeout: how long all of it may take.
    /// - Throws: where anything is left that isn't stored on every target, with the reason.
    @available(*, noasync, message: "await flush instead")
    public static func flushBlocking(_ path: String, timeout: Duration = .seconds(600)) throws(FlushError) {
        try flushNow(path, timeout)
    }

    private static func flushNow(_ path: String, _ timeout: Duration) throws(FlushError) {
        try forEachReplicator(of: path, timeout) { replicator, canonical, status, deadline in
            replicator.flush(
                SpoolDatabase(replicator.spool, path: canonical, device: status.device, inode: status.inode), deadline: deadline)
        }
    }

    /// All by one deadline: a database may be spooled in two places, where it was opened with settings of its own and without.
    private static func forEachReplicator(
        of path: String, _ timeout: Duration,
        _ store: (Replicator, _ canonical: String, FileStatus, _ deadline: MonotonicTime) -> FlushFailure?
    ) throws(FlushError) {
        let deadline = MonotonicTime.now.advanced(seconds: timeout.inSeconds)
        let canonical = Files.canonical(path) ?? path
        let status: FileStatus?
        do throws(SystemError) { status = try Files.status(canonical) } catch {
            throw FlushError(path: path, cause: .noDatabase, reason: "\(error)")
        }
        guard let status else { throw FlushError(path: path, cause: .noDatabase, reason: "there is no such file") }
        let replicators = Engine.responsible(forPath: canonical, device: status.device, inode: status.inode)
            .compactMap(\.replicator)
        if replicators.isEmpty {
            throw FlushError(path: path, cause: .off, reason: "replication is off: configure a spooling directory")
        }
        for replicator in replicators {
            if let failure = store(replicator, canonical, status, deadline) {
                throw FlushError(path: path, cause: failure.cause, reason: failure.reason)
            }
        }
    }

    // MARK: Sync

    /// Stores a database as it is now, whether or not this process has it open; also over what another machine has stored under its name.
    ///
    /// ```swift
    /// do { try await Replication.flush("/srv/app.db") } catch where error.cause == .fenced {
    ///     // Where somebody has decided that this machine is the right one.
    ///     try await Replication.sync("/srv/app.db", takeOver: true)
    /// }
    /// ```
    ///
    /// - Parameters:
    ///   - path: the database's file, in a rollback-journal mode. It may be in use; what is stored is one committed state.
    ///   - takeOver: overwrite the manifest even if another machine with this host name has written it, which then stops. Two machines
    ///     that take over in turn overwrite each other's data: let one of them be stopped before (docs/REPLICATION.md, Fencing).
    ///   - timeout: how long all of it may take.
    /// - Throws: where the database isn't stored on every target then, with the reason.
    public static func sync(
        _ path: String, takeOver: Bool = false, timeout: Duration = .seconds(3600)
    ) async throws(FlushError) {
        try await onThreadOfItsOwn("verneuil-sync") { () throws(FlushError) in
            try forEachReplicator(of: path, timeout) { replicator, canonical, status, deadline in
                // SQLite's file format, 1.3. An empty file is a database without tables.
                let header = try? Files.read(canonical, prefix: 16)
                guard let header, header.isEmpty || header == Array("SQLite format 3\0".utf8) else {
                    return FlushFailure(.noDatabase, "this is no SQLite database: nothing is stored")
                }
                return replicator.sync(path: canonical, deadline: deadline, takeOver: takeOver)
            }
        }
    }

    // MARK: Status

    /// How far replication is: for each spooling directory of this process's configuration and of file names, what is told by
    /// what producers and copiers of all processes wrote down. No store is asked, nothing waits for the network.
    ///
    /// ```swift
    /// for spool in await Replication.status() where !spool.isFine(limit: 60) {
    ///     print(spool.directory, spool.problems, spool.databases.filter { $0.lag ?? 0 > 60 }.map(\.path))
    /// }
    /// ```
    ///
    /// - Returns: empty where replication is off.
    public static func status() async -> [SpoolReport] {
        await onThreadOfItsOwn("verneuil-status") {
            Engine.all.compactMap { engine in
                engine.replicator.map { SpoolReport($0.spool, targets: $0.targets) }
            }
        }
    }

    /// How far replication of one database is; see ``status()``.
    ///
    /// ```swift
    /// if let database = await Replication.status(of: "/srv/app.db") {
    ///     print(database.lag ?? 0, "s behind", database.problems, database.targets.flatMap(\.problems))
    /// }
    /// ```
    ///
    /// - Parameter path: the database's file.
    /// - Returns: `nil` where nothing is known of it: it was never opened through the `verneuil` VFS since this machine started.
    public static func status(of path: String) async -> DatabaseReport? {
        let canonical = Files.canonical(path) ?? path
        return await status().flatMap(\.databases).first { $0.path == canonical }
    }

    // MARK: Restore

    /// Writes a database as it was stored to a file: verified, synced, and under its name only when it is whole.
    ///
    /// ```swift
    /// let source = try DatabaseSource(reference: "verneuil://db1.example.com/srv/app.db")
    /// try await Replication.restore(source, to: "/srv/restored.db")
    /// ```
    ///
    /// - Parameters:
    ///   - source: which database, or which manifest of one.
    ///   - path: the file to write. An interrupted restore leaves `path.partial`, which the next one goes on from.
    ///   - options: what may be replaced, and who is told of the progress.
    /// - Returns: where the bytes came from.
    /// - Throws: where a chunk can't be had, isn't what its name promises, or the file can't be written; what
    ///   stood at `path` is still there then.
    @discardableResult
    public static func restore(
        _ source: DatabaseSource, to path: String, options: RestoreOptions = RestoreOptions()
    ) async throws(ReplicaError) -> RestoreReport {
        try await onThreadOfItsOwn("verneuil-restore") { () throws(ReplicaError) in
            let report = try readingEngine().restore(source.reference).write(to: path, options: options.forCore)
            return RestoreReport(report)
        }
    }

    // MARK: Verify

    /// Is what is stored good? Asks each configured store.
    ///
    /// ```swift
    /// for found in try await Replication.verify(DatabaseSource(path: "/srv/app.db"), deep: true) {
    ///     print(found.store, found.outcome, found.findings)
    /// }
    /// ```
    ///
    /// - Parameters:
    ///   - source: which database, or which manifest of one.
    ///   - deep: fetch every chunk and check its fingerprint, instead of asking whether it is there.
    ///   - file: the live database's path, with which the stored snapshot must agree.
    /// - Returns: for each store, its `outcome` (`.good`, `.bad`, or `.unknown` where it can't be told), and `findings`
    ///   with the object, what was expected and what was found.
    /// - Throws: where there is no store to ask, or a manifest that isn't in the stores can't be had.
    public static func verify(
        _ source: DatabaseSource, deep: Bool = false, against file: String? = nil
    ) async throws(ReplicaError) -> [Verification] {
        try await onThreadOfItsOwn("verneuil-verify") { () throws(ReplicaError) in
            let engine = try readingEngine()
            if engine.stores.isEmpty { throw .refused("\(source): no store is configured to look into") }
            var options = VerificationOptions()
            options.deep = deep
            options.against = file
            var results: [Verification] = []
            for store in engine.stores {
                let verifier = Verifier(store)
                switch source.reference {
                case .stored(let database):
                    results.append(verifier.verify(name: database.manifestName, options: options))
                case .file, .url, .object:
                    let manifest = try engine.manifest(source.reference)
                    results.append(verifier.verify(manifest: manifest, named: source.description, options: options))
                }
            }
            return results
        }
    }

    /// Where replicas and restores read from: the process's configuration, or none at all.
    static func readingEngine() throws(ReplicaError) -> Engine {
        if let current = Engine.current { return current }
        do throws(ConfigurationError) { return try Engine(Configuration()) } catch { throw .refused("\(error)") }
    }

    // MARK: SQLite

    /// The core calls SQLite through the table that extensions get. SQLite hands
    /// that out when a connection is opened, and to extensions alone; so, for a
    /// moment, this program is one.
    private static func attach() throws(ConfigurationError) {
        if vrn_sqlite3_has_api() != 0 { return }
        let entry: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, UnsafePointer<sqlite3_api_routines>?) -> Int32 = {
            if vrn_sqlite3_has_api() == 0 { vrn_sqlite3_set_api($2) }
            // Anything else would fail the connection.
            return SQLITE_OK
        }
        // SQLite declares the parameter as void (*)(void), and casts it back before the call.
        let opaque = unsafeBitCast(entry, to: (@convention(c) () -> Void).self)
        var code = sqlite3_auto_extension(opaque)
        var reason = "sqlite3_auto_extension answers \(code)"
        if code == SQLITE_OK {
            var db: OpaquePointer?
            code = sqlite3_open(":memory:", &db)
            reason = "opening \":memory:\" fails: \(String(cString: sqlite3_errmsg(db))) (\(code))"
            sqlite3_close(db)
            sqlite3_cancel_auto_extension(opaque)
        }
        // An extension of the program's own that failed after ours is no obstacle.
        if vrn_sqlite3_has_api() == 0 {
            throw ConfigurationError(
                source: "configuration", reason: "SQLite doesn't take extensions: \(reason)",
                cause: .sqlite(code: code == SQLITE_OK ? SQLITE_MISUSE : code))
        }
    }
}

/// What keeps a flush from being true.
public struct FlushError: Error, Sendable, CustomStringConvertible {
    /// What kind of obstacle it is: `off`, `noTarget`, `noDatabase`, `walMode`, `hotJournal`, `fenced`, `timedOut`, or
    /// `notStored` for all else that a store or the system answered.
    public typealias Cause = FlushFailure.Cause
    /// The database, as the caller named it.
    public var path: String
    /// What kind of obstacle it is; of several targets, `fenced` where one is, else that of the first.
    public var cause: Cause
    /// What happened, for people.
    public var reason: String
    /// One line with the path and the reason.
    public var description: String { "\(path) is not stored: \(reason)" }
}

extension Duration {
    var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
