import GRDB
import GRDBSQLite

/// Verneuil as a loadable extension: GRDB and the extension use the same SQLite, the system's.
enum Verneuil {
    /// Registers the VFSs `verneuil` and `verneuil_snapshot` in this process, for every connection
    /// that is opened from now on. The extension stays loaded when this connection is closed.
    static func load(_ path: String) throws {
        var db: OpaquePointer?
        defer { sqlite3_close(db) }
        sqlite3_open(":memory:", &db)
        sqlite3_enable_load_extension(db, 1)
        var message: UnsafeMutablePointer<CChar>?
        defer { sqlite3_free(message) }
        let code = sqlite3_load_extension(db, path, "sqlite3_verneuilvfs_init", &message)
        guard code == SQLITE_OK else {
            throw DatabaseError(
                resultCode: ResultCode(rawValue: code), message: message.map { String(cString: $0) } ?? "can't load \(path)")
        }
    }
}

extension DatabaseWriter {
    /// Waits until everything committed so far is stored.
    func flushReplication() throws {
        let isStored = try writeWithoutTransaction { db in
            try Bool.fetchOne(db, sql: "PRAGMA verneuil_flush_replication_data") ?? false
        }
        guard isStored else { throw NotStored() }
    }
}

struct NotStored: Error, CustomStringConvertible {
    var description: String { "not everything is stored; the log says why" }
}

/// A replica that is read through GRDB.
struct ReplicaQueue {
    let queue: DatabaseQueue

    init(uri: String) throws {
        var configuration = Configuration()
        configuration.readonly = true
        queue = try DatabaseQueue(path: uri, configuration: configuration)
    }

    /// Fetches the newest state; later reads see it. Outside of transactions: a
    /// snapshot never changes under a reader.
    func refresh() throws {
        try queue.inDatabase { db in
            _ = try Row.fetchOne(db, sql: "PRAGMA verneuil_snapshot_refresh(1)")
        }
    }
}
