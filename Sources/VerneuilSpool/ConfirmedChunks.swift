import CVerneuil
import VerneuilFormat
import VerneuilSystem

// sent.ID: chunks of an upload that is under way, or was cut off: the target has confirmed them, and no manifest refers to them yet.
//
//   16 bytes  fingerprint
//   2         hour of the upload's beginning, as in ages.ID
//
// An upload of a large database takes hours. What ends it early (a store that is away for a minute, a process that
// ends, a time limit) shall not cost what was sent: the next one goes on from here, in whichever process. Only what a
// store has confirmed stands here (S5), and each record for itself: what a crash leaves of the last one is no record.
// Written under the copier's lock; gone when a manifest is stored, or when what the target has is not believed any more.

/// Chunks that a target has without a manifest that says so. Safe from any thread.
public final class ConfirmedChunks: Sendable {
    private let path: String
    private let spool: SpoolDirectory
    /// No more than that are written down: commits may overtake an upload for ever.
    private let most: Int
    private let hour: UInt16
    private let lock = Lock()
    nonisolated(unsafe) private var pending: [Fingerprint] = []
    private let writing = Lock()
    nonisolated(unsafe) private var count: Int

    private static let recordSize = 18
    /// Chunks that are written down at a time: half a minute's of the background's budget.
    private static let batch = 1024
    /// Fewer than that are not worth it.
    private static let least = 64

    /// What earlier uploads left.
    public let left: [(chunk: Fingerprint, hour: UInt16)]

    /// - Parameters:
    ///   - chunks: how many the database has.
    ///   - hour: for those that are noted.
    ///   - forgets: what earlier uploads left is not to be believed.
    public init(_ database: SpoolDatabase, _ target: String, chunks: Int, hour: UInt16, forgets: Bool) {
        path = Self.path(database, target)
        spool = database.spool
        most = 2 * chunks + Self.batch
        self.hour = hour
        let bytes = forgets ? [] : (try? Files.read(path, limit: 1 << 31)) ?? nil ?? []
        left = bytes.withUnsafeBytes { raw in
            (0..<bytes.count / Self.recordSize).map { i in
                let at = i * Self.recordSize
                return (
                    Fingerprint(
                        primary: UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: at, as: UInt64.self)),
                        secondary: UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: at + 8, as: UInt64.self))),
                    UInt16(littleEndian: raw.loadUnaligned(fromByteOffset: at + 16, as: UInt16.self))
                )
            }
        }
        count = left.count
    }

    private static func path(_ database: SpoolDatabase, _ target: String) -> String { "\(database.directory)/sent.\(target)" }

    /// The target has it. Doesn't block.
    public func note(_ chunk: Fingerprint) { lock.withLock { pending.append(chunk) } }

    /// Writes down what was noted, if it is enough to be worth it.
    ///
    /// - Parameter isLast: the upload ends without a manifest.
    public func save(isLast: Bool = false) throws(SystemError) {
        let batch = lock.withLock { () -> [Fingerprint] in
            guard pending.count >= (isLast ? Self.least : Self.batch) else { return [] }
            defer { pending = [] }
            return pending
        }
        if batch.isEmpty { return }
        writing.lock()
        defer { writing.unlock() }
        guard count < most else { return }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(batch.count * Self.recordSize)
        for chunk in batch {
            withUnsafeBytes(of: (chunk.primary.littleEndian, chunk.secondary.littleEndian)) { bytes.append(contentsOf: $0) }
            withUnsafeBytes(of: hour.littleEndian) { bytes.append(contentsOf: $0) }
        }
        // Over what a crash left of a record, or over what isn't believed.
        let file = try spool.open(path)
        if count == 0 { try file.truncate(to: 0) }
        try file.write(bytes, at: Int64(count * Self.recordSize))
        count += batch.count
    }

    /// A manifest is stored that refers to them, or none ever will.
    public static func remove(_ database: SpoolDatabase, _ target: String) { try? Files.remove(path(database, target)) }
}
