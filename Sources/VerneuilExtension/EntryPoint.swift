import CVerneuil
import VerneuilCore

/// What sqlite3_load_extension calls; its contract is in verneuil.h.
@c(sqlite3_verneuilvfs_init)
public func sqlite3VerneuilvfsInit(
    _ db: OpaquePointer?, _ message: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?,
    _ api: UnsafePointer<sqlite3_api_routines>?
) -> CInt {
    guard let api else { return SQLITE_MISUSE }
    vrn_sqlite3_set_api(api)
    LogOutput.bootstrap()
    do throws(ConfigurationError) {
        try Engine.install(.fromEnvironment())
    } catch {
        message?.pointee = "verneuil: \(error)".withCString { vrn_sqlite3_strdup($0) }
        return SQLITE_ERROR
    }
    return VRN_OK_LOAD_PERMANENTLY
}
