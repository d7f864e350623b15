import CSQLite
import CVerneuil
import VerneuilCore
import VerneuilSpool
import VerneuilSystem

public typealias Configuration = VerneuilCore.Configuration
public typealias ConfigurationError = VerneuilCore.ConfigurationError

/// Replication in a program that links the system's SQLite.
///
/// After `configure`, whatever opens SQLite databases in this process can name a
/// VFS: `verneuil` for databases to be replicated (`file:/srv/app.db?vfs=verneuil`),
/// `verneuil_snapshot` for replicas (`file:verneuil://host/srv/app.db?vfs=verneuil_snapshot`).
/// Safe from any thread.
public enum Replication {
    /// Configures this process as `VERNEUIL_CONFIG` says, and registers the VFSs.
    @discardableResult
    public static func configure() throws(ConfigurationError) -> Bool {
        try configure(.fromEnvironment())
    }

    /// Configures this process, and registers the VFSs. The configuration is set
    /// once; asking for the same again is fine.
    /// - Returns: false where another configuration is in force; nothing has changed then.
    @discardableResult
    public static func configure(_ configuration: Configuration) throws(ConfigurationError) -> Bool {
        attach()
        return try Engine.install(configuration)
    }

    /// Makes sure that everything committed to a database before the call is stored
    /// on every target. Waits for the network: call it from a thread of your own, not from a Task.
    /// - Parameters:
    ///   - path: the database's file.
    ///   - timeout: seconds.
    /// - Throws: where anything is left that isn't stored on every target.
    public static func flush(_ path: String, timeout: Double = 600) throws(FlushError) {
        guard let replicator = Engine.current?.replicator else {
            throw FlushError(path: path, reason: "replication is off: configure a spooling directory")
        }
        let canonical = Files.canonical(path) ?? path
        let status: FileStatus?
        do throws(SystemError) { status = try Files.status(canonical) } catch {
            throw FlushError(path: path, reason: "\(error)")
        }
        guard let status else { throw FlushError(path: path, reason: "there is no such file") }
        let reason = replicator.flush(
            SpoolDatabase(replicator.spool, path: canonical, device: status.device, inode: status.inode), timeout: timeout)
        if let reason { throw FlushError(path: path, reason: reason) }
    }

    /// The core calls SQLite through the table that extensions get. SQLite hands
    /// that out when a connection is opened, and to extensions alone; so, for a
    /// moment, this program is one.
    private static func attach() {
        if vrn_sqlite3_has_api() != 0 { return }
        let entry: @convention(c) (OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, UnsafePointer<sqlite3_api_routines>?) -> Int32 = {
            if vrn_sqlite3_has_api() == 0 { vrn_sqlite3_set_api($2) }
            // Anything else would fail the connection.
            return SQLITE_OK
        }
        // SQLite declares the parameter as void (*)(void), and casts it back before the call.
        let opaque = unsafeBitCast(entry, to: (@convention(c) () -> Void).self)
        sqlite3_auto_extension(opaque)
        var db: OpaquePointer?
        sqlite3_open(":memory:", &db)
        sqlite3_close(db)
        sqlite3_cancel_auto_extension(opaque)
    }
}

/// What keeps a flush from being true.
public struct FlushError: Error, Sendable, CustomStringConvertible {
    public var path: String
    public var reason: String
    public var description: String { "\(path) is not stored: \(reason)" }
}
