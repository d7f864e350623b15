import CVerneuil
import CVerneuilInterface
import Logging
import VerneuilCore
import VerneuilFormat

// The functions of verneuil.h, where their contracts are. What they do is in
// VerneuilCore; here C's types are converted and memory changes hands, all of
// it by malloc(3), so that nothing of Swift's crosses.

@c @implementation
public func verneuil_configure(_ options: UnsafePointer<verneuil_options>?) -> CInt {
    LogOutput.bootstrap()
    do throws(ConfigurationError) {
        let configuration = try configuration(options?.pointee ?? verneuil_options())
        let code = vrn_sqlite3_need_api()
        if code != SQLITE_OK {
            Logger(label: "verneuil").error(
                "verneuil_configure: SQLite has not loaded the extension: call sqlite3_load_extension first, or link libverneuil.a")
            return code
        }
        try Engine.install(configuration)
        return 0
    } catch {
        log("verneuil_configure", error)
        switch error.cause {
        case .invalid, .system: return -1
        case .alreadyConfigured: return SQLITE_MISUSE
        case .sqlite(let code): return code
        }
    }
}

private func configuration(_ options: verneuil_options) throws(ConfigurationError) -> Configuration {
    var configuration =
        if let json = options.json_options {
            try Configuration(specification: String(cString: json), source: "json_options")
        } else {
            try Configuration.fromEnvironment()
        }
    if options.make_default { configuration.makeDefault = true }
    if let path = options.tempdir { try configuration.setTemporaryDirectory(String(cString: path)) }
    if let path = options.replication_spooling_dir { try configuration.setSpoolingDirectory(String(cString: path)) }
    if options.replication_spooling_dir_permissions != 0 {
        try configuration.setSpoolingDirectoryPermissions(options.replication_spooling_dir_permissions)
    }
    return configuration
}

@c @implementation
public func verneuil_replication_info_for_db(
    _ info: UnsafeMutablePointer<verneuil_replication_info>?, _ db: OpaquePointer?, _ name: UnsafePointer<CChar>?
) -> CInt {
    guard let info else { return SQLITE_MISUSE }
    info.pointee = verneuil_replication_info()
    guard let db, vrn_sqlite3_has_api() != 0 else { return SQLITE_MISUSE }
    let filename = if let name { vrn_sqlite3_db_filename(db, name) } else { vrn_sqlite3_db_filename(db, "main") }
    // Temporary and in-memory databases have an empty name.
    guard let filename, filename.pointee != 0 else { return SQLITE_NOTFOUND }
    let engine: Engine
    do throws(ConfigurationError) {
        guard let responsible = try Engine.responsible(forFileName: filename) else { return SQLITE_NOTFOUND }
        engine = responsible
    } catch {
        log("verneuil_replication_info_for_db", error)
        return -1
    }
    do throws(FormatError) {
        guard let found = try engine.lastUploaded(databasePath: String(cString: filename)) else { return SQLITE_NOTFOUND }
        return fill(info, found)
    } catch {
        log("verneuil_replication_info_for_db", error)
        return SQLITE_CORRUPT
    }
}

@c @implementation
public func verneuil_replication_info_for_manifest(
    _ info: UnsafeMutablePointer<verneuil_replication_info>?, _ bytes: UnsafePointer<CChar>?, _ count: Int
) -> CInt {
    guard let info else { return SQLITE_MISUSE }
    info.pointee = verneuil_replication_info()
    let manifest = Array(UnsafeRawBufferPointer(start: bytes, count: bytes == nil ? 0 : count))
    do throws(FormatError) {
        return fill(info, try ReplicationInfo(manifest: manifest))
    } catch {
        log("verneuil_replication_info_for_manifest", error)
        return SQLITE_CORRUPT
    }
}

@c @implementation
public func verneuil_replication_info_deinit(_ info: UnsafeMutablePointer<verneuil_replication_info>?) {
    guard let info else { return }
    free(info.pointee.blob_name)
    free(info.pointee.bytes)
    info.pointee = verneuil_replication_info()
}

@c @implementation
public func verneuil_manifest_name_for_hostname_path(
    _ hostname: UnsafePointer<CChar>?, _ path: UnsafePointer<CChar>?
) -> UnsafeMutablePointer<CChar>? {
    guard let path, path.pointee != 0 else { return nil }
    return strdup(DatabaseName(host: hostname.map { String(cString: $0) }, path: String(cString: path)).manifestName)
}

@c @implementation
public func verneuil_manifest_name_destroy(_ name: UnsafeMutablePointer<CChar>?) {
    free(name)
}

private func fill(_ info: UnsafeMutablePointer<verneuil_replication_info>, _ found: ReplicationInfo) -> CInt {
    var filled = verneuil_replication_info()
    filled.header_fprint = (found.headerFingerprint.primary, found.headerFingerprint.secondary)
    filled.contents_fprint = (found.contentsFingerprint.primary, found.contentsFingerprint.secondary)
    filled.ctime = UInt64(clamping: found.ctime)
    filled.ctime_ns = UInt32(clamping: found.ctimeNanoseconds)
    filled.num_bytes = found.manifest.count
    if let bytes = malloc(max(1, found.manifest.count)) {
        found.manifest.withUnsafeBytes { UnsafeMutableRawBufferPointer(start: bytes, count: $0.count).copyMemory(from: $0) }
        filled.bytes = bytes.assumingMemoryBound(to: CChar.self)
    }
    filled.blob_name = found.manifestName.flatMap { strdup($0) }
    if filled.bytes == nil || (found.manifestName != nil && filled.blob_name == nil) {
        verneuil_replication_info_deinit(&filled)
        return SQLITE_NOMEM
    }
    info.pointee = filled
    return 0
}

private func log(_ function: String, _ error: some Error) {
    Logger(label: "verneuil").error("\(function): \(error)")
}
