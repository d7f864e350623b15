/// A manifest: what one snapshot of a database is made of (FORMAT 6), after
/// undoing the xor with its base chunk.
public struct Manifest: Hashable, Sendable {
    /// Of the first 100 bytes of the file.
    public var headerFingerprint: Fingerprint
    /// Opaque to readers; empty is equal to nothing (FORMAT 7).
    public var versionID: [UInt8]
    /// Bytes of the database file.
    public var length: UInt64
    /// The file's ctime in seconds since 1970; advisory, 0 where unknown.
    public var ctime: Int64
    public var ctimeNanoseconds: Int32
    /// Program and version that wrote it, free text.
    public var generatedBy: [UInt8]
    /// Of every chunk, in file order.
    public var chunks: [Fingerprint]
    /// Chunks that are stored in the manifest and perhaps nowhere else.
    public var bundled: [BundledChunk]
    /// The base chunk that it is, or was, stored with.
    public var baseChunk: Fingerprint?

    public init(
        headerFingerprint: Fingerprint, versionID: [UInt8], length: UInt64, ctime: Int64 = 0,
        ctimeNanoseconds: Int32 = 0, generatedBy: [UInt8], chunks: [Fingerprint], bundled: [BundledChunk] = [],
        baseChunk: Fingerprint? = nil
    ) {
        self.headerFingerprint = headerFingerprint
        self.versionID = versionID
        self.length = length
        self.ctime = ctime
        self.ctimeNanoseconds = ctimeNanoseconds
        self.generatedBy = generatedBy
        self.chunks = chunks
        self.bundled = bundled
        self.baseChunk = baseChunk
    }

    /// Of the list of chunks. Computed from `chunks` at each call: about 20 µs per GiB of database.
    public var contentsFingerprint: Fingerprint {
        chunks.withLittleEndianBytes { FingerprintKey.directory.fingerprint($0) }
    }

    /// The manifest as protobuf, not compressed.
    /// - Parameter base: the words of the base chunk that `baseChunk` names, to xor
    ///   the list with; nil to store the list as it is, and no base chunk's name.
    public func encoded(base: [UInt64]?) -> [UInt8] {
        var list = chunks
        var baseName: Fingerprint?
        if let base {
            list.xor(with: base)
            baseName = baseChunk ?? BaseChunk.fingerprint(base)
        }
        let contents = contentsFingerprint

        let size =
            Wire.size(1, headerFingerprint) + Wire.size(2, bytes: versionID) + Wire.size(3, contents)
            + Wire.size(5, varint: length) + Wire.size(6, varint: UInt64(bitPattern: ctime))
            + Wire.size(7, fixed32: UInt32(bitPattern: ctimeNanoseconds))
            + (baseName.map { Wire.size(8, $0) } ?? 0) + Wire.size(9, bytes: generatedBy)
            + (list.isEmpty ? 0 : Wire.size(15, length: 16 * list.count))
            + bundled.reduce(0) { $0 + Wire.size(16, length: $1.encodedSize) }

        var wire = Wire(capacity: Wire.size(1, length: size))
        wire.header(1, length: size)
        wire.fingerprint(1, headerFingerprint)
        wire.bytes(2, versionID)
        wire.fingerprint(3, contents)
        wire.varint(5, length)
        wire.varint(6, UInt64(bitPattern: ctime))
        wire.fixed32(7, UInt32(bitPattern: ctimeNanoseconds))
        if let baseName { wire.fingerprint(8, baseName) }
        wire.bytes(9, generatedBy)
        if !list.isEmpty {
            wire.header(15, length: 16 * list.count)
            list.withLittleEndianBytes { wire.raw($0) }
        }
        for chunk in bundled {
            wire.header(16, length: chunk.encodedSize)
            wire.varint(1, UInt64(truncatingIfNeeded: chunk.index))
            wire.varint(2, chunk.offset)
            wire.fingerprint(3, chunk.fingerprint)
            wire.bytes(15, chunk.data)
        }
        return wire.bytes
    }
}

/// A chunk that travels inside the manifest (FORMAT 6.1): chunk 0, which changes at every commit.
public struct BundledChunk: Hashable, Sendable {
    public var index: Int
    /// Where it begins in the database file: `index` times `Chunk.size`.
    public var offset: UInt64
    public var fingerprint: Fingerprint
    public var data: [UInt8]

    public init(index: Int, offset: UInt64, fingerprint: Fingerprint, data: [UInt8]) {
        self.index = index
        self.offset = offset
        self.fingerprint = fingerprint
        self.data = data
    }

    fileprivate var encodedSize: Int {
        Wire.size(1, varint: UInt64(truncatingIfNeeded: index)) + Wire.size(2, varint: offset)
            + Wire.size(3, fingerprint)
            + Wire.size(15, bytes: data)
    }
}

private typealias Wire = ProtobufWriter

extension ProtobufWriter {
    fileprivate static func size(_ number: UInt32, _ fingerprint: Fingerprint) -> Int {
        size(number, length: size(fields: fingerprint))
    }
    private static func size(fields fingerprint: Fingerprint) -> Int {
        size(1, fixed64: fingerprint.primary) + size(2, fixed64: fingerprint.secondary)
    }
    fileprivate mutating func fingerprint(_ number: UInt32, _ value: Fingerprint) {
        header(number, length: Self.size(fields: value))
        fixed64(1, value.primary)
        fixed64(2, value.secondary)
    }
}
