import CVerneuil
import VerneuilFormat
import VerneuilSystem

// Two versions of each chunk stand side by side: entry A and entry B in the
// table, places A and B in the pool. That is enough for what the protocol
// promises, a snapshot that stays still while commits go on:
//
//   A commit may write into a chunk's one place or the other, but never into
//   the one that the ready snapshot R needs, which is the version with the
//   largest sequence number up to R's. Of the other two cases it takes the
//   older version's place, so that the newest staged snapshot as well survives
//   the next commit.
//
// Reading an entry while it is being written is harmless for a reader of R:
// the words of the entry that R needs don't change, and the other entry's
// sequence number is, before and after, either larger than R's or smaller than
// that of the version that R needs.

/// One version of a chunk.
struct ChunkVersion {
    /// The transaction that wrote it; 0: never written.
    var sequence: UInt64
    var fingerprint: Fingerprint
    /// 1: its bytes stand in the pool. 0: they need not (the zero chunk).
    var flags: UInt64

    static let bytes = 32
    static let hasBytes: UInt64 = 1
}

/// Both versions of a chunk, as in the table.
struct ChunkVersions {
    var a: ChunkVersion
    var b: ChunkVersion
    static let bytes = 2 * ChunkVersion.bytes

    /// 0 or 1: the newer one's index; nil: there is none.
    @inline(__always)
    var newest: Int? {
        if a.sequence == 0 && b.sequence == 0 { return nil }
        return a.sequence >= b.sequence ? 0 : 1
    }

    @inline(__always)
    subscript(_ i: Int) -> ChunkVersion {
        get { i == 0 ? a : b }
        set { if i == 0 { a = newValue } else { b = newValue } }
    }

    /// The version that a snapshot at `sequence` has; nil: the base's.
    @inline(__always)
    func index(at sequence: UInt64) -> Int? {
        let useA = a.sequence != 0 && a.sequence <= sequence
        let useB = b.sequence != 0 && b.sequence <= sequence
        if useA && useB { return a.sequence >= b.sequence ? 0 : 1 }
        return useA ? 0 : (useB ? 1 : nil)
    }

    /// Where the next version goes. `pinned`: the sequence number of the ready snapshot, where that is in this epoch.
    @inline(__always)
    func placeForNext(pinned: UInt64?) -> Int {
        guard let newest else { return 0 }
        let older = 1 - newest
        if let pinned, index(at: pinned) == older { return newest }
        return older
    }
}

enum EpochTable {
    @inline(__always)
    static func load(_ p: UnsafeRawPointer) -> ChunkVersions {
        @inline(__always) func version(_ at: Int) -> ChunkVersion {
            ChunkVersion(
                sequence: p.load(fromByteOffset: at, as: UInt64.self),
                fingerprint: Fingerprint(
                    primary: p.load(fromByteOffset: at + 8, as: UInt64.self),
                    secondary: p.load(fromByteOffset: at + 16, as: UInt64.self)),
                flags: p.load(fromByteOffset: at + 24, as: UInt64.self))
        }
        return ChunkVersions(a: version(0), b: version(ChunkVersion.bytes))
    }

    @inline(__always)
    static func store(_ v: ChunkVersion, _ p: UnsafeMutableRawPointer) {
        p.storeBytes(of: v.sequence, as: UInt64.self)
        p.storeBytes(of: v.fingerprint.primary, toByteOffset: 8, as: UInt64.self)
        p.storeBytes(of: v.fingerprint.secondary, toByteOffset: 16, as: UInt64.self)
        p.storeBytes(of: v.flags, toByteOffset: 24, as: UInt64.self)
    }

    /// The byte offset in the pool of a version of chunk `i`.
    @inline(__always)
    static func poolOffset(_ i: Int, place: Int) -> Int64 { Int64(2 * i + place) * Int64(Chunk.size) }
}

/// The files of an epoch that producers write: open for as long as it is current.
final class EpochFiles: Sendable {
    let number: UInt64
    let table: Descriptor
    let pool: Descriptor

    private init(_ number: UInt64, table: consuming Descriptor, pool: consuming Descriptor) {
        self.number = number
        self.table = table
        self.pool = pool
    }

    /// Opens an epoch's files, making what isn't there.
    static func open(_ database: SpoolDatabase, _ number: UInt64) throws(SystemError) -> EpochFiles {
        let directory = database.epochPath(number)
        try database.spool.make(directory)
        let table = try database.spool.open("\(directory)/table")
        let pool = try database.spool.open("\(directory)/pool")
        return EpochFiles(number, table: table, pool: pool)
    }
}
