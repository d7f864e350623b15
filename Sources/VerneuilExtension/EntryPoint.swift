import CVerneuil
import Logging
import VerneuilCore

/// What sqlite3_load_extension calls; its contract is in verneuil.h.
@c(sqlite3_verneuilvfs_init)
public func sqlite3VerneuilvfsInit(
    _ db: OpaquePointer?, _ message: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?,
    _ api: UnsafePointer<sqlite3_api_routines>?
) -> CInt {
    guard let api else { return SQLITE_MISUSE }
    // The VFSs of the first that came call back through that one's table, and free by its allocator.
    if vrn_sqlite3_has_other_api(api) != 0, Engine.current != nil {
        message?.pointee = vrn_sqlite3_strdup_for(
            api, "verneuil: another SQLite of this process has loaded the extension already: it serves one. Use that SQLite's connections, "
                + "or have both libraries use the same libsqlite3 (docs/HOSTS.md)")
        return SQLITE_ERROR
    }
    vrn_sqlite3_set_api(api)
    LogOutput.bootstrap()
    do throws(ConfigurationError) {
        try Engine.install(.fromEnvironment())
    } catch {
        if error.cause == .alreadyConfigured {
            // Loaded once more, as each connection of a program may: what is in force stays, and so do the connections.
            Logger(label: "verneuil").warning("VERNEUIL_CONFIG has changed, and is not looked at: \(error)")
            return VRN_OK_LOAD_PERMANENTLY
        }
        message?.pointee = "verneuil: \(error)".withCString { vrn_sqlite3_strdup($0) }
        return SQLITE_ERROR
    }
    return VRN_OK_LOAD_PERMANENTLY
}
