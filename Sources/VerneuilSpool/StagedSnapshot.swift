import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A staged snapshot, as a copier sees it: what the chunks are, and where the
/// bytes of those stand that no target may have yet.
public final class StagedSnapshot: Sendable {
    enum Place: UInt8, Sendable {
        /// Not in the spool: every target had it when it was staged, or the zero chunk.
        case none, poolA, poolB, base
    }

    public let point: SpoolPoint
    public let state: SourceState
    public let chunks: [Fingerprint]
    /// When the oldest commit in it that wasn't stored was made; nanoseconds since 1970.
    public let pendingSince: UInt64
    private let places: [Place]
    private let pool: SnapshotFile
    private let base: SnapshotFile

    /// A file that may be missing: then nothing is to be found in it.
    private final class SnapshotFile: Sendable {
        let file: Descriptor?
        init(_ path: String) throws(SystemError) {
            let fd = vrn_open(path, O_RDONLY, 0)
            file = fd == -ENOENT ? nil : Descriptor(owning: try SystemError.check(fd, "open", path), path: path)
        }
        func read(_ offset: Int64, _ count: Int) throws(SystemError) -> [UInt8]? {
            switch file {
            case .some(let file): return try file.read(count: count, at: offset)
            case .none: return nil
            }
        }
    }

    /// Reads the entries of snapshot `point`. What was read counts only if the
    /// snapshot still stands afterwards: `SpoolCopierSession.snapshot`.
    init(
        _ database: SpoolDatabase, _ point: SpoolPoint, _ state: SourceState, pendingSince: UInt64
    ) throws(SystemError) {
        self.point = point
        self.state = state
        self.pendingSince = pendingSince
        let directory = database.epochPath(point.epoch)
        let count = Chunk.count(forLength: state.length)
        pool = try SnapshotFile("\(directory)/pool")
        base = try SnapshotFile("\(directory)/base.pool")

        var chunks = [Fingerprint](repeating: Chunk.zeroFingerprint, count: count)
        var places = [Place](repeating: .none, count: count)
        var have = [Bool](repeating: false, count: count)

        try Self.scan("\(directory)/base", entryBytes: BaseWork.entryBytes, count: count) { i, p in
            let flags = p.load(fromByteOffset: 16, as: UInt64.self)
            guard flags & BaseWork.done != 0, flags & BaseWork.isElsewhere == 0 else { return }
            have[i] = true
            chunks[i] = Fingerprint(
                primary: p.load(as: UInt64.self), secondary: p.load(fromByteOffset: 8, as: UInt64.self))
            places[i] = flags & BaseWork.hasBytes != 0 ? .base : .none
        }
        try Self.scan("\(directory)/table", entryBytes: ChunkVersions.bytes, count: count) { i, p in
            let versions = EpochTable.load(p)
            guard let place = versions.index(at: point.sequence) else { return }
            have[i] = true
            chunks[i] = versions[place].fingerprint
            places[i] =
                versions[place].flags & ChunkVersion.hasBytes == 0 ? .none : (place == 0 ? .poolA : .poolB)
        }
        if let missing = have.firstIndex(of: false) {
            throw SystemError("snapshot \(point) has no chunk \(missing):", directory, ESTALE)
        }
        self.chunks = chunks
        self.places = places
    }

    /// Calls `body` with each of the first `count` entries of a file; a missing file has none.
    private static func scan(
        _ path: String, entryBytes: Int, count: Int, _ body: (Int, UnsafeRawPointer) -> Void
    ) throws(SystemError) {
        let fd = vrn_open(path, O_RDONLY, 0)
        if fd == -ENOENT { return }
        let file = Descriptor(owning: try SystemError.check(fd, "open", path), path: path)
        let batch = 4096
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: batch * entryBytes, alignment: 8)
        defer { buffer.deallocate() }
        var at = 0
        while at < count {
            let want = min(batch, count - at) * entryBytes
            let n = try file.read(
                into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<want]), at: Int64(at) * Int64(entryBytes))
            guard let start = UnsafeRawPointer(buffer.baseAddress) else { return }
            for i in 0..<n / entryBytes { body(at + i, start + i * entryBytes) }
            if n < want { return }
            at += batch
        }
    }

    /// Whether the chunk's bytes stand in the spool.
    public func isSpooled(_ index: Int) -> Bool { places[index] != .none }

    /// The bytes of chunk `index`, checked against its fingerprint (R10). nil: they
    /// aren't here, or not any more what they were: the snapshot is not to be had from the spool.
    public func chunk(_ index: Int) throws(SystemError) -> [UInt8]? {
        let size = Chunk.length(ofChunk: index, databaseLength: state.length)
        let bytes: [UInt8]?
        switch places[index] {
        case .none:
            bytes = chunks[index] == Chunk.zeroFingerprint ? [UInt8](repeating: 0, count: size) : nil
        case .poolA: bytes = try pool.read(EpochTable.poolOffset(index, place: 0), size)
        case .poolB: bytes = try pool.read(EpochTable.poolOffset(index, place: 1), size)
        case .base: bytes = try base.read(Int64(index) * Int64(Chunk.size), size)
        }
        guard let bytes, bytes.count == size, bytes.withUnsafeBytes(Chunk.fingerprint) == chunks[index] else { return nil }
        return bytes
    }
}

extension SpoolDatabase {
    /// The newest snapshot's chunks, as they are now: for reports, which take no lock. nil where there is none, it isn't
    /// whole, or it changes under our eyes.
    public func newestSnapshot() -> StagedSnapshot? {
        for _ in 0..<3 {
            guard let before = (try? control()) ?? nil, before.isCurrentWhole else { return nil }
            let point = before.current.point
            guard let taken = try? StagedSnapshot(self, point, before.current.state, pendingSince: 0),
                let after = (try? control()) ?? nil
            else { continue }
            if after.current.point == point && after.producer.begun == before.producer.begun { return taken }
        }
        return nil
    }
}
