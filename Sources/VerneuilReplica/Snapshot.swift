import CVerneuil
import Synchronization
import VerneuilFormat
import VerneuilSystem

/// One state of a database, as its manifest lists it. Never changes; chunks are
/// loaded once and shared with every other snapshot that lists them.
///
/// Memory: 28 bytes per chunk, and as much again in the cache (about 1 MiB per
/// GiB of database); chunks are in the cache's file.
///
/// Safe from any thread.
public final class Snapshot: @unchecked Sendable {
    /// Bytes of the database.
    public let length: UInt64
    /// ctime of the source file.
    public let ctime: FileTime
    public let headerFingerprint: Fingerprint
    /// Of the list of chunks: equal where two snapshots have the same content.
    public let contentsFingerprint: Fingerprint
    /// Program and version that wrote the manifest.
    public let generatedBy: [UInt8]
    public let chunkCount: Int

    private let entries: UnsafeMutableBufferPointer<Int32>
    private let cache: ChunkCache
    private let policy: LoadingPolicy
    /// Nanoseconds since 1970.
    private let fetched: Atomic<Int64>
    /// See SchemaDigest; two words and whether they are known.
    private let digest = Lock()
    private var knownDigest: Fingerprint?

    /// Address of each chunk's bytes; 0 while it is not loaded, or nobody has looked. `vrn_slot_load` reads them.
    package let slots: UnsafeMutablePointer<UInt>
    /// How many requests may be in flight.
    package let parallelism: Int
    private let tree: TreeAhead

    /// - Parameters:
    ///   - manifest: verified, as `ManifestSource.resolve` answers it.
    ///   - fetched: when.
    ///   - allowance: what may be loaded on a guess.
    /// - Throws: where there is no room for the bundled chunks.
    package init(
        _ manifest: Manifest, fetched: FileTime, cache: ChunkCache, policy: LoadingPolicy, parallelism: Int,
        allowance: TreeAhead.Allowance
    ) throws(ReplicaError) {
        length = manifest.length
        ctime = FileTime(seconds: manifest.ctime, nanoseconds: Int64(manifest.ctimeNanoseconds))
        headerFingerprint = manifest.headerFingerprint
        contentsFingerprint = manifest.contentsFingerprint
        generatedBy = manifest.generatedBy
        chunkCount = manifest.chunks.count
        self.cache = cache
        self.policy = policy
        self.parallelism = parallelism
        tree = TreeAhead(allowance: allowance, parallelism: parallelism)
        self.fetched = Atomic(fetched.nanosecondsSince1970)
        entries = cache.retain(manifest.chunks, length: manifest.length)
        // One more, for who looks at the end of the file.
        slots = .allocate(capacity: manifest.chunks.count + 1)
        slots.initialize(repeating: 0, count: manifest.chunks.count + 1)
        for chunk in manifest.bundled where chunk.index < entries.count {
            // The manifest was verified with them, but the rule is to look before the first use.
            let length = Chunk.length(ofChunk: chunk.index, databaseLength: length)
            guard chunk.data.count == length, FingerprintKey.chunk.fingerprint(chunk.data) == manifest.chunks[chunk.index]
            else { throw .format(FormatError("manifest", "bundled chunk \(chunk.index) is not the one in the list")) }
            try cache.put(chunk.data, into: entries[chunk.index])
        }
    }

    deinit {
        cache.release(entries)
        slots.deallocate()
    }

    /// When it was fetched, or last found to be the newest.
    public var updated: FileTime {
        let time = fetched.load(ordering: .relaxed)
        return FileTime(seconds: time / 1_000_000_000, nanoseconds: time % 1_000_000_000)
    }
    func confirm(at time: FileTime) {
        fetched.store(time.nanosecondsSince1970, ordering: .relaxed)
    }

    // MARK: Chunks

    /// Where chunk `i` is, if it is loaded.
    @inline(__always)
    package func loadedAddress(ofChunk i: Int) -> UInt? {
        let address = vrn_slot_load(slots + i)
        return address != 0 ? address : find(i)
    }

    private func find(_ i: Int) -> UInt? {
        guard let address = cache.address(of: entries[i]) else { return nil }
        vrn_slot_store(slots + i, address)
        return address
    }

    /// Where chunk `i` is; waits for it to be fetched.
    package func address(ofChunk i: Int) throws(ReplicaError) -> UInt {
        if let address = loadedAddress(ofChunk: i) { return address }
        let address = try cache.load(entries[i])
        vrn_slot_store(slots + i, address)
        return address
    }

    /// Has a chunk fetched for which the caller is about to wait.
    package func request(_ i: Int) {
        if let address = cache.request(entries[i]) { vrn_slot_store(slots + i, address) }
    }

    /// Has chunks loaded, without waiting for them.
    package func loadAhead(_ chunks: Range<Int>) { load(chunks, .ahead) }

    private func load(_ chunks: some Sequence<Int>, _ priority: ChunkSource.Priority) {
        for i in chunks where vrn_slot_load(slots + i) == 0 {
            if let address = cache.loadAhead(entries[i], priority) { vrn_slot_store(slots + i, address) }
        }
    }

    /// Has chunks loaded that will probably be wanted after the page at `offset`, which has to be waited for.
    package func loadTreeAhead(missed offset: UInt64) {
        load(tree.missed(offset, in: self), .ahead)
    }

    /// How many chunks directly before `i` are loaded or on their way, counting up to `limit`.
    package func run(before i: Int, limit: Int) -> Int {
        var run = 0
        while run < limit, run < i {
            let previous = i - 1 - run
            guard vrn_slot_load(slots + previous) != 0 || cache.isExpected(entries[previous]) else { break }
            run += 1
        }
        return run
    }

    /// How many chunks the policy loads first.
    var initialChunks: Int { policy.initialChunks(of: chunkCount) }

    /// Loads what the policy asks for: all, and waits; or some, and doesn't.
    package func preload() throws(ReplicaError) {
        guard policy == .eager else {
            // Who looks something up comes first: nobody waits for these.
            load(0..<initialChunks, .background)
            if chunkCount > 0 { load([chunkCount - 1], .ahead) }
            load(tree.roots(of: self), .ahead)
            return
        }
        // As many on their way as the source takes, and as many again to follow.
        let window = 2 * parallelism
        let step = max(1, parallelism / 4)
        for i in 0..<chunkCount {
            if i % step == 0 { loadAhead(i..<min(i + window, chunkCount)) }
            _ = try address(ofChunk: i)
        }
    }

    /// Copies bytes out, waiting for chunks; answers how many there were.
    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ReplicaError) -> Int {
        guard offset < length else { return 0 }
        let count = Int(min(UInt64(buffer.count), length - offset))
        var done = 0
        while done < count {
            let position = offset + UInt64(done)
            let within = Int(position % UInt64(Chunk.size))
            let n = min(count - done, Chunk.size - within)
            let address = try address(ofChunk: Int(position / UInt64(Chunk.size)))
            if let source = UnsafeRawPointer(bitPattern: address), let target = buffer.baseAddress {
                memcpy(target + done, source + within, n)
            }
            done += n
        }
        return count
    }

    /// See SchemaDigest.
    package func schemaDigest() -> Fingerprint? {
        if let known = digest.withLock({ knownDigest }) { return known }
        guard let found = SchemaDigest.compute(self) else { return nil }
        digest.withLock { knownDigest = found }
        return found
    }
}
