import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// What tells one state of a database file from another without reading it
/// whole: the evidence on which a new snapshot builds on the one before.
///
/// Every writer that uses this VFS replaces `tag` before its first physical
/// write; every writer at all changes SQLite's change counter (in the header's
/// fingerprint) and the file's mtime. `ctime` is not evidence (link, chmod and
/// our own tag change it): it is there for the manifest.
public struct SourceState: Hashable, Sendable {
    public var device: UInt64 = 0
    public var inode: UInt64 = 0
    /// Bytes.
    public var length: UInt64 = 0
    public var modified = FileTime(seconds: 0, nanoseconds: 0)
    public var changed = FileTime(seconds: 0, nanoseconds: 0)
    /// Of the first 100 bytes (FORMAT 3), or of all where there are fewer.
    public var header = Fingerprint(primary: 0, secondary: 0)
    public var tag = VersionTag()

    public init() {}

    /// Whether the file that `self` describes is, beyond doubt, as `recorded` says.
    @inline(__always)
    public func proves(_ recorded: SourceState) -> Bool {
        device == recorded.device && inode == recorded.inode && length == recorded.length
            && modified == recorded.modified && header == recorded.header && tag == recorded.tag
    }

    /// The manifest's version id (FORMAT 7).
    public var versionID: [UInt8] {
        var bytes = tag.bytes
        withUnsafeBytes(of: header.primary.littleEndian) { bytes += $0 }
        withUnsafeBytes(of: header.secondary.littleEndian) { bytes += $0 }
        return bytes
    }

    /// Takes the state of an open file: three system calls.
    public static func read(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> SourceState {
        var state = SourceState()
        var st = stat()
        try SystemError.check(vrn_fstat(fd, &st), "fstat", path())
        state.take(st)
        state.tag = try VersionTag.read(fd, path: path())
        state.header = try headerFingerprint(fd, path: path())
        return state
    }

    @inline(__always)
    mutating func take(_ st: stat) {
        device = UInt64(truncatingIfNeeded: st.st_dev)
        inode = UInt64(st.st_ino)
        length = UInt64(truncatingIfNeeded: st.st_size)
        modified = withUnsafePointer(to: st) { FileTime(vrn_stat_mtime($0)) }
        changed = withUnsafePointer(to: st) { FileTime(vrn_stat_ctime($0)) }
    }

    static func headerFingerprint(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> Fingerprint {
        let key = FingerprintKey.header
        var n = 0
        let fingerprint = withUnsafeTemporaryAllocation(byteCount: 100, alignment: 8) { buffer in
            n = vrn_pread(fd, buffer.baseAddress, 100, 0)
            return n < 0
                ? Fingerprint(primary: 0, secondary: 0)
                : key.fingerprint(UnsafeRawBufferPointer(rebasing: buffer[..<n]))
        }
        try SystemError.check(n, "pread", path())
        return fingerprint
    }
}

/// The value of the extended attribute `user.verneuil.version_id` (FORMAT 7):
/// 36 characters of a UUID, or nothing where there is none or the file system
/// has no extended attributes. A longer value is nobody's whom we know: it
/// reads as a tag that equals no other.
public struct VersionTag: Hashable, Sendable {
    public static let attribute = "user.verneuil.version_id"
    static let capacity = 40

    /// `attribute` as a C string. A literal: a String that is passed to C is copied to the heap first.
    @inline(__always)
    private static var attributeName: UnsafePointer<CChar> {
        let name: StaticString = "user.verneuil.version_id"
        return UnsafeRawPointer(name.utf8Start).assumingMemoryBound(to: CChar.self)
    }

    var count: UInt64 = 0
    var words: (UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0)

    public init() {}

    public static func == (a: VersionTag, b: VersionTag) -> Bool {
        a.count == b.count && a.words == b.words && a.count <= UInt64(capacity)
    }
    public func hash(into hasher: inout Hasher) { hasher.combine(words.0) }

    public var isEmpty: Bool { count == 0 }

    public var bytes: [UInt8] {
        withUnsafeBytes(of: words) { Array($0.prefix(Int(min(count, UInt64(Self.capacity))))) }
    }

    public static func read(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> VersionTag {
        var tag = VersionTag()
        let n = withUnsafeMutableBytes(of: &tag.words) { vrn_fgetxattr(fd, attributeName, $0.baseAddress, $0.count) }
        switch n {
        case Int(-ENODATA), Int(-EOPNOTSUPP): return VersionTag()
        case Int(-ERANGE):
            tag.count = UInt64.max
            return tag
        default:
            tag.count = UInt64(try SystemError.check(n, "fgetxattr", path()))
            return tag
        }
    }

    /// Gives the file a tag that it never had. Empty where the file system has no attributes.
    public static func replace(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> VersionTag {
        var random: (UInt64, UInt64) = (0, 0)
        let got = withUnsafeMutableBytes(of: &random) { vrn_getrandom($0.baseAddress, $0.count) }
        try SystemError.check(got, "getrandom", "")
        var tag = VersionTag()
        tag.count = 36
        withUnsafeMutableBytes(of: &tag.words) { text in
            withUnsafeMutableBytes(of: &random) { bytes in
                // RFC 9562: version 4 in the high bits of byte 6, variant in those of byte 8.
                bytes[6] = bytes[6] & 0x0F | 0x40
                bytes[8] = bytes[8] & 0x3F | 0x80
                var at = 0
                for i in 0..<16 {
                    if i == 4 || i == 6 || i == 8 || i == 10 {
                        text[at] = UInt8(ascii: "-")
                        at += 1
                    }
                    text[at] = hexDigit(bytes[i] >> 4)
                    text[at + 1] = hexDigit(bytes[i] & 15)
                    at += 2
                }
            }
        }
        let r = withUnsafeBytes(of: tag.words) { vrn_fsetxattr(fd, attributeName, $0.baseAddress, 36) }
        if r == -EOPNOTSUPP { return VersionTag() }
        try SystemError.check(r, "fsetxattr", path())
        return tag
    }

    @inline(__always)
    private static func hexDigit(_ v: UInt8) -> UInt8 { v < 10 ? 48 + v : 87 + v }
}
