import CSQLite
import CVerneuil
import VerneuilVFS

/// Hands SQLite's function table to the VFS, as an application does that links both.
@c
public func verneuil_test_entry(
    _ db: OpaquePointer?, _ error: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?,
    _ api: UnsafePointer<sqlite3_api_routines>?
) -> Int32 {
    vrn_sqlite3_set_api(api)
    return LinuxVFS.register(makeDefault: false)
}

public enum LinuxVFSInstallation {
    /// Whether `linux` is registered with the SQLite that this program is linked to; the first look does it.
    public static let isDone: Bool = {
        typealias Entry = @convention(c) (
            OpaquePointer?, UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?, UnsafePointer<sqlite3_api_routines>?
        ) -> Int32
        let entry = unsafeBitCast(verneuil_test_entry as Entry, to: (@convention(c) () -> Void).self)
        var db: OpaquePointer?
        sqlite3_auto_extension(entry)
        sqlite3_open(":memory:", &db)
        sqlite3_close(db)
        sqlite3_cancel_auto_extension(entry)
        return sqlite3_vfs_find("linux") != nil
    }()
}
