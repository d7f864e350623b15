import CVerneuil
import VerneuilFormat
import VerneuilSystem

// ages.ID: when each chunk of stored.ID was last stored or touched, as far as
// this machine knows.
//
//   16 bytes     fingerprint of the list that it belongs to
//   2 per chunk  hours since 1970, modulo 65,536 (seven years); 0: not known
//
// An hour is rounded down, so that a chunk is never taken for younger than it
// is. Hours that aren't known, lie in the future (the clock was set back) or
// belong to another list count as old: a touch too many costs little, one that
// is missing costs the backup.

/// When the chunks of one database were last stored or touched on one target.
public struct ChunkAges: Sendable {
    public private(set) var hours: [UInt16]
    /// Whether the file is about that list, so that `touch` can go on in it.
    public let isWritten: Bool
    private let path: String

    /// The hour for now; never 0.
    public static func hour(_ seconds: Int64) -> UInt16 {
        let hour = UInt16(truncatingIfNeeded: seconds / 3600)
        // One in 65,536 hours looks an hour older than it is.
        return hour == 0 ? UInt16.max : hour
    }

    /// Hours from `then` to `now`, both as `hour` gives them; nil: not known, or in the future.
    public static func age(_ then: UInt16, at now: UInt16) -> Int? {
        if then == 0 { return nil }
        let age = now &- then
        return age > 0x7FFF ? nil : Int(age)
    }

    /// Of the chunks in `list`: what is written down about just that list, else nothing is known.
    public init(_ database: SpoolDatabase, _ target: String, list: [Fingerprint]) {
        path = "\(database.directory)/ages.\(target)"
        hours = [UInt16](repeating: 0, count: list.count)
        guard let bytes = (try? Files.read(path, limit: 1 << 31)) ?? nil, bytes.count == 16 + 2 * list.count,
            bytes.starts(with: Self.head(list))
        else {
            isWritten = false
            return
        }
        isWritten = true
        bytes.withUnsafeBytes { raw in
            for i in hours.indices { hours[i] = UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: 16 + 2 * i, as: UInt16.self)) }
        }
    }

    private static func head(_ list: [Fingerprint]) -> [UInt8] {
        let print = list.withUnsafeBytes { FingerprintKey.directory.fingerprint($0) }
        return withUnsafeBytes(of: (print.primary.littleEndian, print.secondary.littleEndian)) { Array($0) }
    }

    /// Writes what is known of `list` anew. Under the copier's lock.
    public static func write(
        _ database: SpoolDatabase, _ target: String, list: [Fingerprint], hours: [UInt16]
    ) throws(SystemError) {
        var bytes = head(list)
        bytes.reserveCapacity(16 + 2 * hours.count)
        for hour in hours { withUnsafeBytes(of: hour.littleEndian) { bytes.append(contentsOf: $0) } }
        try database.spool.write(bytes, to: "\(database.directory)/ages.\(target)")
    }

    /// Reads again what is known of the chunks at `indexes`: another process may have touched them since.
    public mutating func refresh(_ indexes: [Int]) throws(SystemError) {
        let file = try Descriptor(path, O_RDONLY)
        for index in indexes {
            let bytes = try file.read(count: 2, at: Int64(16 + 2 * index))
            if bytes.count == 2 { hours[index] = UInt16(bytes[0]) | UInt16(bytes[1]) << 8 }
        }
    }

    /// Notes that the chunks at `indexes` were touched in this hour: in place, two bytes each. Under the copier's lock.
    public mutating func touch(_ indexes: [Int], hour: UInt16) throws(SystemError) {
        let file = try Descriptor(path, O_RDWR)
        let bytes = withUnsafeBytes(of: hour.littleEndian) { Array($0) }
        for index in indexes {
            hours[index] = hour
            try file.write(bytes, at: Int64(16 + 2 * index))
        }
    }
}
