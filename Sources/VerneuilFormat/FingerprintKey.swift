import CVerneuil

/// What bytes are fingerprinted *as*: UMASH parameters derived from a purpose
/// string (FORMAT 3), so that a chunk and a header with the same bytes have
/// different fingerprints.
///
/// A value is one pointer to memory that is written once and never freed: cheap
/// to copy, safe from any thread, and no reference counting where it is used.
/// The statics below are made on first use, which costs each access a check:
/// in a tight loop over small inputs, copy the key to a local first.
public struct FingerprintKey: @unchecked Sendable {
    /// Of chunks, and of base chunks: the bytes of an object in the chunk bucket.
    public static let chunk = FingerprintKey(purpose: "verneuil db chunk params")
    /// Of the first 100 bytes of a database file.
    public static let header = FingerprintKey(purpose: "verneuil sqlite header params")
    /// Of a list of chunk fingerprints.
    public static let directory = FingerprintKey(purpose: "verneuil db directory params")
    /// Of a database's path.
    public static let path = FingerprintKey(purpose: "verneuil path params")
    /// Of a host name.
    public static let hostname = FingerprintKey(purpose: "verneuil hostname params")
    /// Of an object or file name that is too long to be used as it is.
    public static let mangling = FingerprintKey(purpose: "verneuil path mangling params")

    let parameters: UnsafePointer<vrn_umash_parameters>

    /// Makes all of the above, and what else here is made on first use. For the one thread that is there before others
    /// begin: in a child of fork(2), two threads that come to the same first use at once may wait for each other for
    /// ever (vrn_fork.c).
    public static func makeAll() {
        for key in [chunk, header, directory, path, hostname, mangling] { _ = key.fingerprint([0]) }
        Decompressor.prepare()
    }

    /// - Parameter purpose: the first 32 bytes count. Every call allocates some
    ///   300 bytes for good: make a key once.
    public init(purpose: String) {
        let memory = UnsafeMutablePointer<vrn_umash_parameters>.allocate(capacity: 1)
        memory.initialize(to: UMASHParameters.derive(purpose: Array(purpose.utf8)))
        memory.pointee.accelerated = vrn_umash_available()
        parameters = UnsafePointer(memory)
    }

    /// Both hashes in one pass. No allocation.
    public func fingerprint(_ bytes: UnsafeRawBufferPointer) -> Fingerprint {
        guard bytes.count > 8, parameters.pointee.accelerated, let base = bytes.baseAddress else {
            return portableFingerprint(bytes)
        }
        let pair = vrn_umash_long(parameters, base, bytes.count)
        return Fingerprint(primary: pair.primary, secondary: pair.secondary)
    }

    public func fingerprint(_ bytes: [UInt8]) -> Fingerprint {
        bytes.withUnsafeBytes { fingerprint($0) }
    }

    /// The first of the two hashes, where the format uses only that.
    public func primary(_ bytes: [UInt8]) -> UInt64 {
        fingerprint(bytes).primary
    }

    /// The same as `fingerprint`, without asking for anything of the CPU: what
    /// `fingerprint` falls back on, and is tested against.
    public func portableFingerprint(_ bytes: UnsafeRawBufferPointer) -> Fingerprint {
        PortableUMASH.hash(bytes, parameters)
    }

    /// Whether this CPU has the instruction that makes `fingerprint` fast.
    public var isAccelerated: Bool { parameters.pointee.accelerated }
}
