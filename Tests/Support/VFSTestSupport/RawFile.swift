import CSQLite

/// A database file opened through a VFS without a connection: the methods as SQLite calls them.
public final class RawFile {
    private let memory: UnsafeMutablePointer<sqlite3_file>
    private let name: UnsafePointer<CChar>?
    public let outFlags: Int32

    public struct Failure: Error, CustomStringConvertible {
        public let code: Int32
        public var description: String { "xOpen answered \(code)" }
    }

    public static let defaultFlags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MAIN_DB

    /// `path` as xFullPathname gives it; nil for a temporary file.
    public init(vfs: String, path: String?, flags: Int32 = RawFile.defaultFlags) throws(Failure) {
        precondition(LinuxVFSInstallation.isDone)
        guard let vfs = sqlite3_vfs_find(vfs), let open = vfs.pointee.xOpen else { throw Failure(code: SQLITE_ERROR) }
        let raw = UnsafeMutableRawPointer.allocate(byteCount: Int(vfs.pointee.szOsFile), alignment: 16)
        // SQLite clears pMethods and leaves the rest as it is.
        raw.initializeMemory(as: UInt8.self, repeating: 0xDB, count: Int(vfs.pointee.szOsFile))
        memory = raw.assumingMemoryBound(to: sqlite3_file.self)
        memory.pointee.pMethods = nil
        name = path.map { UnsafePointer(sqlite3_create_filename($0, "", "", 0, nil)) } ?? nil
        var out: Int32 = 0
        let code = open(vfs, name, memory, flags, &out)
        outFlags = out
        if code != SQLITE_OK {
            if memory.pointee.pMethods != nil { _ = memory.pointee.pMethods.pointee.xClose(memory) }
            raw.deallocate()
            sqlite3_free_filename(name)
            isOpen = false
            throw Failure(code: code)
        }
    }

    private var isOpen = true

    @discardableResult
    public func close() -> Int32 {
        guard isOpen else { return SQLITE_OK }
        isOpen = false
        let code = methods.xClose(memory)
        memory.deallocate()
        sqlite3_free_filename(name)
        return code
    }

    deinit { close() }

    private var methods: sqlite3_io_methods { memory.pointee.pMethods.pointee }

    public func lock(_ level: Int32) -> Int32 { methods.xLock(memory, level) }
    public func unlock(_ level: Int32) -> Int32 { methods.xUnlock(memory, level) }
    public func checkReserved() -> (code: Int32, reserved: Bool) {
        var answer: Int32 = -1
        let code = methods.xCheckReservedLock(memory, &answer)
        return (code, answer != 0)
    }
    public func read(_ count: Int, at offset: Int64) -> (code: Int32, bytes: [UInt8]) {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let code = methods.xRead(memory, &bytes, Int32(count), offset)
        return (code, bytes)
    }
    public func write(_ bytes: [UInt8], at offset: Int64) -> Int32 {
        methods.xWrite(memory, bytes, Int32(bytes.count), offset)
    }
    public func truncate(_ size: Int64) -> Int32 { methods.xTruncate(memory, size) }
    public func sync(_ flags: Int32 = SQLITE_SYNC_NORMAL) -> Int32 { methods.xSync(memory, flags) }
    public func size() -> (code: Int32, size: Int64) {
        var size: sqlite3_int64 = -1
        let code = methods.xFileSize(memory, &size)
        return (code, size)
    }
    public func control(_ operation: Int32, _ argument: UnsafeMutableRawPointer?) -> Int32 {
        methods.xFileControl(memory, operation, argument)
    }
    public func control(_ operation: Int32, value: inout Int32) -> Int32 {
        withUnsafeMutablePointer(to: &value) { control(operation, UnsafeMutableRawPointer($0)) }
    }
    public func control(_ operation: Int32, value: inout Int64) -> Int32 {
        withUnsafeMutablePointer(to: &value) { control(operation, UnsafeMutableRawPointer($0)) }
    }
    /// The answer of a control that gives a string.
    public func string(_ operation: Int32) -> (code: Int32, text: String?) {
        var text: UnsafeMutablePointer<CChar>?
        let code = withUnsafeMutablePointer(to: &text) { control(operation, UnsafeMutableRawPointer($0)) }
        defer { sqlite3_free(text) }
        return (code, text.map { String(cString: $0) })
    }
    public var level: Int32 {
        var level: Int32 = -1
        _ = control(SQLITE_FCNTL_LOCKSTATE, value: &level)
        return level
    }
    public var sectorSize: Int32 { methods.xSectorSize(memory) }
    public var characteristics: Int32 { methods.xDeviceCharacteristics(memory) }
    public var version: Int32 { methods.iVersion }
}
