import CVerneuil
import VerneuilFormat
import VerneuilReplica

/// Makes SQLite notice that a connection has moved to another snapshot.
///
/// SQLite keeps two things from one transaction to the next, and checks both
/// against the database's header:
///
/// - *Pages*: at the start of a transaction it reads the 16 bytes from 24 on
///   (change counter, size, free list), and drops its pages where they differ
///   from those of its page 1. A commit changes them. But a replica can move
///   to a state with the same 16 bytes and other content, where the file was
///   replaced or restored at the source. So after a move to other content, the
///   first such read is answered with bytes that no database has. Only reads
///   shorter than a page are: page 1 itself is always read as it is stored, and
///   what SQLite remembers of it is true.
/// - *The schema*: it is read again where the schema cookie (bytes 40 to 43)
///   differs. Here too a replaced file may have the same cookie. Where the
///   schemas can't be proven equal (SchemaDigest) although the cookie is the
///   same, or where the cookie has gone back, this connection is shown a cookie
///   that is one more than the last, in page 1 too, and keeps that distance
///   from then on. So the cookies that a connection sees never repeat for
///   another schema, and no prepared statement runs on a schema that it wasn't
///   compiled for. Others, and all connections that never meet a
///   replaced file, see every byte as it is stored.
struct SnapshotHeader {
    /// Bytes of the database header.
    static let size: Int64 = 100
    /// The smallest page: shorter reads are of the header alone.
    private static let smallestPage = 512
    /// For bytes 24 to 39. 0xFFFFFFFF pages are more than SQLite's limit, and
    /// all bytes 0xFF are what it remembers of a page 1 that could not be read.
    private static let noDatabase: [UInt8] = [0x56, 0x52, 0x4E, 0x01] + [UInt8](repeating: 0xFF, count: 12)

    /// What SQLite knows: of the last snapshot that a transaction used.
    private struct Seen {
        var contents: Fingerprint
        var length: UInt64
        var cookie: UInt32
        var schema: Fingerprint?
    }
    private var seen: Seen?
    private var mustInvalidate = false
    /// What is added to the stored cookie.
    private var shift: UInt32 = 0
    /// The stored cookie of the snapshot in use.
    private var cookie: UInt32 = 0

    /// Whether some reads of the header must go through `patch`.
    var isPatched: Bool { mustInvalidate || shift != 0 }

    /// The connection moves on from a snapshot that a transaction has used.
    mutating func leave(_ snapshot: Snapshot) {
        seen = Seen(
            contents: snapshot.contentsFingerprint, length: snapshot.length, cookie: cookie,
            schema: snapshot.schemaDigest())
    }

    /// The first transaction on a snapshot begins.
    mutating func enter(_ snapshot: Snapshot) throws(ReplicaError) {
        cookie = try Self.cookie(of: snapshot)
        guard let seen, seen.contents != snapshot.contentsFingerprint || seen.length != snapshot.length else { return }
        mustInvalidate = true
        let advance = Int32(bitPattern: cookie &- seen.cookie)
        let isProven = advance > 0 || (advance == 0 && seen.schema != nil && seen.schema == snapshot.schemaDigest())
        if !isProven { shift = seen.cookie &+ shift &+ 1 &- cookie }
    }

    private static func cookie(of snapshot: Snapshot) throws(ReplicaError) -> UInt32 {
        var bytes: UInt32 = 0
        var failure: ReplicaError?
        withUnsafeMutableBytes(of: &bytes) { buffer in
            do throws(ReplicaError) { _ = try snapshot.read(into: buffer, at: 40) } catch { failure = error }
        }
        if let failure { throw failure }
        return UInt32(bigEndian: bytes)
    }

    /// Changes what was read at `offset` to what this connection is shown.
    /// - Returns: whether `isPatched` may have changed.
    mutating func patch(_ bytes: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Bool {
        guard isPatched, offset < UInt64(Self.size) else { return false }
        let start = Int(offset)
        if shift != 0 {
            withUnsafeBytes(of: (cookie &+ shift).bigEndian) { shown in
                for i in 0..<4 where 40 + i >= start && 40 + i - start < bytes.count {
                    bytes[40 + i - start] = shown[i]
                }
            }
        }
        guard mustInvalidate, bytes.count < Self.smallestPage, start <= 24, start + bytes.count >= 40 else { return false }
        UnsafeMutableRawBufferPointer(rebasing: bytes[(24 - start)..<(40 - start)]).copyBytes(from: Self.noDatabase)
        mustInvalidate = false
        return true
    }
}
