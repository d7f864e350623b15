import VerneuilFormat

/// What a stored manifest says, without the list of chunks.
public struct ReplicationInfo: Sendable, Hashable {
    /// The object's name; nil where only its bytes were given.
    public var manifestName: String?
    public var headerFingerprint: Fingerprint
    public var contentsFingerprint: Fingerprint
    /// The source file's ctime: seconds since 1970, and nanoseconds; 0 where not known.
    public var ctime: Int64
    public var ctimeNanoseconds: Int32
    /// The manifest as it is stored.
    public var manifest: [UInt8]

    /// - Parameter manifest: as stored, compressed or not.
    public init(manifest: [UInt8], name: String? = nil) throws(FormatError) {
        let decoded = try StoredManifest(decoding: manifest)
        manifestName = name
        headerFingerprint = decoded.headerFingerprint
        contentsFingerprint = decoded.contentsFingerprint
        ctime = decoded.ctime
        ctimeNanoseconds = decoded.ctimeNanoseconds
        self.manifest = manifest
    }
}
