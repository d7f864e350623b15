import CVerneuil
import FormatTestSupport
import Testing
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

/// A file that is written as SQLite writes a database, without SQLite: so that
/// every step of the spool's protocol can be taken, or left out, by itself.
final class ScratchDatabase {
    let directory: String
    let path: String
    let spool: SpoolDirectory
    let database: SpoolDatabase
    let file: Descriptor
    private(set) var producer: SpoolProducer
    private let scratch = UnsafeMutableRawPointer.allocate(byteCount: SpoolProducer.scratchBytes, alignment: 4096)
    var random: SeededGenerator

    /// Bytes of old epochs that a transaction removes at most.
    private let removable: Int64

    init(seed: UInt64, length: Int, bootID: String? = nil, removable: Int64 = SpoolDatabase.removedWithinCommit) throws {
        self.removable = removable
        random = SeededGenerator(seed: seed)
        let directory = "/tmp/verneuil-spool-\(getpid())-\(UInt64.random(in: 0...UInt64.max))"
        try Files.makeDirectories(directory)
        self.directory = directory
        path = "\(directory)/scratch.db"
        let file = try Descriptor(path, O_RDWR | O_CREAT, mode: 0o644)
        spool = SpoolDirectory("\(directory)/spool", bootID: bootID)
        try spool.prepare()
        let status = try file.status()
        self.file = file
        database = SpoolDatabase(spool, path: path, device: status.device, inode: status.inode)
        producer = SpoolProducer(database, removable: removable)
        if length > 0 { try self.file.write(random.bytes(length), at: 0) }
    }

    deinit {
        scratch.deallocate()
        try? Files.removeTree(directory)
    }

    /// What another process has: nothing that this one remembers.
    func restartProducer() { producer = SpoolProducer(database, removable: removable) }

    var length: Int { Int((try? file.status().size) ?? 0) }
    func contents() throws -> [UInt8] { try file.read(count: length, at: 0) }

    /// One transaction: `changes` random writes, perhaps a new length.
    @discardableResult
    func commit(changes: Int = 2, newLength: Int? = nil) throws -> (SpoolProducer.Staged, SpoolProducer.Doubt?) {
        let (doubt, tag) = try begin()
        let dirty = try write(changes: changes, newLength: newLength)
        return (try stage(tag, dirty), doubt)
    }

    func begin() throws -> (SpoolProducer.Doubt?, VersionTag) {
        let doubt = try producer.begin(SourceState.read(file.fd, path: path))
        return (doubt, try VersionTag.replace(file.fd, path: path))
    }

    /// Writes as a transaction would, and answers which chunks may have changed.
    func write(changes: Int, newLength: Int? = nil) throws -> Set<UInt32> {
        let before = length
        var dirty: Set<UInt32> = [0]
        if let newLength {
            try file.truncate(to: Int64(newLength))
            let low = min(before, newLength)
            for i in (low >> 16)..<max(low >> 16, Chunk.count(forLength: UInt64(newLength))) { dirty.insert(UInt32(i)) }
        }
        let now = max(1, length)
        for _ in 0..<changes {
            let at = Int(random.next() % UInt64(now))
            let bytes = random.bytes(min(now - at, 1 + Int(random.next() % 5000)))
            try file.write(bytes, at: Int64(at))
            for i in (at >> 16)...((at + bytes.count - 1) >> 16) { dirty.insert(UInt32(i)) }
        }
        // Not a database in WAL mode, by chance.
        try file.write([1, 1], at: 18)
        // The change counter: each transaction changes the header.
        try file.write(random.bytes(4), at: 24)
        return dirty
    }

    func stage(_ tag: VersionTag, _ dirty: Set<UInt32>) throws -> SpoolProducer.Staged {
        let sorted = dirty.sorted()
        return try sorted.withUnsafeBufferPointer { indexes in
            try producer.stage(file.fd, path: path, tag: tag, scratch: scratch) { _ in indexes }
        }
    }

    func build(slice: Double? = nil, removing most: Int64 = .max) throws -> SpoolBuilder.Outcome {
        try SpoolBuilder(database).run(deadline: slice.map { MonotonicTime.now.advanced(seconds: $0) }, removing: most) { _, _ in false }
    }

    /// Until the file's mtime is old enough to be told from the next write's.
    func rest() { usleep(30_000) }

    func session() throws -> SpoolCopierSession { try #require(try SpoolCopierSession.open(database)) }
}

/// All the bytes of a snapshot. Those that are stored, and so needn't be in the spool any more, come from `stored`.
func bytes(of snapshot: StagedSnapshot, stored: [Fingerprint: [UInt8]] = [:]) throws -> [UInt8] {
    var all: [UInt8] = []
    for index in snapshot.chunks.indices {
        let bytes = try snapshot.chunk(index) ?? stored[snapshot.chunks[index]]
        all += try #require(bytes, "chunk \(index) of snapshot \(snapshot.point)")
    }
    return all
}

/// What a store has after a snapshot was copied.
func keep(_ bytes: [UInt8], in stored: inout [Fingerprint: [UInt8]]) {
    for start in stride(from: 0, to: bytes.count, by: Chunk.size) {
        let chunk = Array(bytes[start..<min(start + Chunk.size, bytes.count)])
        stored[chunk.withUnsafeBytes(Chunk.fingerprint)] = chunk
    }
}

/// A new seed each run, printed so that a failure can be repeated: with VERNEUIL_TEST_SEED.
func freshSeed(_ test: String = #function) -> UInt64 {
    let given = getenv("VERNEUIL_TEST_SEED").flatMap { UInt64(String(cString: $0)) }
    let seed = given ?? UInt64.random(in: 0...UInt64.max)
    print("\(test): seed \(seed)")
    return seed
}
