import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A full snapshot being made, in `base.new`: one entry for each chunk, at its
/// index; an entry of zeros is still to do. `base.progress` says where to go on.
struct BaseWork: ~Copyable {
    let database: SpoolDatabase
    let directory: String
    let entries: Descriptor
    let pool: Descriptor
    private(set) var next = 0
    private(set) var poolBytes: UInt64 = 0
    private let start: SourceState?

    /// Bits of an entry's third word.
    static let done: UInt64 = 1
    static let hasBytes: UInt64 = 2
    /// The chunk is in the table, and nothing is known here.
    static let isElsewhere: UInt64 = 4
    static let entryBytes = 24

    /// - Parameter start: for an epoch whose base is all there is: the file's
    ///   state; work begun for another one is thrown away.
    init(_ database: SpoolDatabase, _ epoch: UInt64, start: SourceState?) throws(SystemError) {
        let directory = database.epochPath(epoch)
        try database.spool.make(directory)
        let entries = try database.spool.open("\(directory)/base.new")
        let pool = try database.spool.open("\(directory)/base.pool")
        let saved = try Files.read("\(directory)/base.progress", limit: 4096).flatMap(Progress.init)
        if let saved, start == nil || start == saved.start {
            next = saved.next
            poolBytes = saved.poolBytes
        } else {
            try entries.truncate(to: 0)
            try pool.truncate(to: 0)
        }
        self.database = database
        self.start = start
        self.directory = directory
        self.entries = entries
        self.pool = pool
    }

    private struct Progress {
        var next: Int
        var poolBytes: UInt64
        var start: SourceState

        init(next: Int, poolBytes: UInt64, start: SourceState) {
            self.next = next
            self.poolBytes = poolBytes
            self.start = start
        }

        init?(_ bytes: [UInt8]) {
            let count = 3 + SourceState.words
            guard bytes.count == count * 8 else { return nil }
            let words = (0..<count).map { i in
                bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: i * 8, as: UInt64.self) }
            }
            next = Int(truncatingIfNeeded: words[1])
            poolBytes = words[2]
            start = SourceState()
            words.withUnsafeBufferPointer { start.decode($0.baseAddress.unsafelyUnwrapped + 3) }
            let sum = words.withUnsafeBufferPointer { SpoolControl.check($0.baseAddress.unsafelyUnwrapped, count) }
            guard words[0] == sum, next >= 0 else { return nil }
        }

        var bytes: [UInt8] {
            var words = [UInt64](repeating: 0, count: 3 + SourceState.words)
            words[1] = UInt64(next)
            words[2] = poolBytes
            words.withUnsafeMutableBufferPointer { start.encode($0.baseAddress.unsafelyUnwrapped + 3) }
            words[0] = words.withUnsafeBufferPointer { SpoolControl.check($0.baseAddress.unsafelyUnwrapped, words.count) }
            return words.withUnsafeBytes { Array($0) }
        }
    }

    /// Copies chunks that have no entry yet. False: time is over.
    mutating func copy(
        _ source: borrowing Descriptor, table: EpochFiles?, deadline: MonotonicTime?, _ isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) -> Bool {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: Chunk.size, alignment: 4096)
        defer { buffer.deallocate() }
        var copied = 0
        while true {
            let length = UInt64(try source.status().size)
            let count = Chunk.count(forLength: length)
            if next >= count {
                try entries.truncate(to: Int64(count * Self.entryBytes))
                return true
            }
            while next < count {
                if let deadline, copied & 7 == 7, MonotonicTime.now >= deadline {
                    let progress = Progress(next: next, poolBytes: poolBytes, start: start ?? SourceState())
                    try database.spool.write(progress.bytes, to: "\(directory)/base.progress")
                    return false
                }
                if copied & 7 == 7 { Threads.passGate() }
                try copyChunk(source, table, length, buffer, isStored)
                next += 1
                copied += 1
            }
        }
    }

    private mutating func copyChunk(
        _ source: borrowing Descriptor, _ table: EpochFiles?, _ length: UInt64, _ buffer: UnsafeMutableRawPointer,
        _ isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) {
        var flags = Self.done
        var fingerprint = Chunk.zeroFingerprint
        // Staged in this epoch by a transaction: what we would read is never looked at.
        if try hasVersion(table, next) {
            flags |= Self.isElsewhere
        } else {
            let want = Chunk.length(ofChunk: next, databaseLength: length)
            let raw = UnsafeMutableRawBufferPointer(start: buffer, count: want)
            // A file that was cut meanwhile gives a short chunk: the transaction that cut it has it staged, or the end check fails.
            let size = try source.read(into: raw, at: Int64(next) * Int64(Chunk.size))
            let bytes = UnsafeRawBufferPointer(start: buffer, count: size)
            fingerprint = Chunk.fingerprint(bytes)
            if fingerprint != Chunk.zeroFingerprint && (next == 0 || !isStored(next, fingerprint)) {
                try pool.write(bytes, at: Int64(next) * Int64(Chunk.size))
                poolBytes &+= UInt64(size)
                flags |= Self.hasBytes
            }
        }
        let at = Int64(next) * Int64(Self.entryBytes)
        var failure: SystemError?
        withUnsafeBytes(of: (fingerprint.primary, fingerprint.secondary, flags)) { entry in
            do throws(SystemError) { try entries.write(entry, at: at) } catch { failure = error }
        }
        if let failure { throw failure }
    }

    private func hasVersion(_ table: EpochFiles?, _ index: Int) throws(SystemError) -> Bool {
        guard let table else { return false }
        return try withUnsafeTemporaryAllocationOrThrow(ChunkVersions.bytes) { (raw) throws(SystemError) in
            let n = try table.table.read(into: raw, at: Int64(index) * Int64(ChunkVersions.bytes))
            guard n == ChunkVersions.bytes, let base = raw.baseAddress else { return false }
            return EpochTable.load(UnsafeRawPointer(base)).newest != nil
        }
    }

    /// Gives the finished work its name.
    func publish() throws(SystemError) {
        try Files.rename("\(directory)/base.new", to: "\(directory)/base")
        for name in ["base.progress", "base.progress.new"] { try? Files.remove("\(directory)/\(name)") }
    }

    /// Throws the work away: it was of a state that is gone.
    func abandon() {
        for name in ["base.progress", "base.progress.new", "base.new", "base.pool"] { try? Files.remove("\(directory)/\(name)") }
        _ = vrn_rmdir(directory)
    }
}

/// `withUnsafeTemporaryAllocation` with a typed error.
@inline(__always)
func withUnsafeTemporaryAllocationOrThrow<R>(
    _ bytes: Int, _ body: (UnsafeMutableRawBufferPointer) throws(SystemError) -> R
) throws(SystemError) -> R {
    let result: Result<R, SystemError> = withUnsafeTemporaryAllocation(byteCount: bytes, alignment: 8) { raw in
        do throws(SystemError) { return .success(try body(raw)) } catch { return .failure(error) }
    }
    return try result.get()
}
