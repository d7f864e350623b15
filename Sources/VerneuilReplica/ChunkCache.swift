import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// The chunks that a process's snapshots refer to, each once, however many
/// snapshots and connections use it.
///
/// - A chunk is an *entry* from the first snapshot that lists it until the last
///   one is gone, loaded or not; what one connection has loaded, all have.
/// - A chunk is fetched once, however many readers wait for it.
/// - An address that was given out stays good, and its bytes stay the same, as
///   long as a snapshot that lists the chunk lives.
///
/// The lock guards tables only: nothing is read, written or fetched under it.
/// Safe from any thread; belongs to one process.
package final class ChunkCache: @unchecked Sendable {
    /// A length is part of the identity, so that a manifest that lies about the
    /// length of its last chunk spoils nobody else's.
    private struct Key: Hashable {
        var fingerprint: Fingerprint
        var length: Int32
        func hash(into hasher: inout Hasher) { hasher.combine(fingerprint.primary) }
    }
    private struct Entry {
        var key: Key
        /// Places in snapshots that name this chunk.
        var references: Int32 = 0
        /// -1: not loaded.
        var slot: Int32 = -1
        var address: UInt = 0
        var load: Load?
    }
    /// A fetch under way, for those who wait for it.
    private final class Load: @unchecked Sendable {
        let result = Handover<Result<UInt, ReplicaError>>()
        /// Set before anyone else sees the load.
        var request: ChunkSource.Request?
    }

    /// The entry of the zero chunk, and of no other.
    static let zeroEntry: Int32 = -1

    private let lock = Lock()
    private var index: [Key: Int32] = [:]
    private var entries: [Entry] = []
    private var vacant: [Int32] = []
    private let slots: SlotFile
    private let source: ChunkSource
    /// The process that it belongs to.
    package let process = getpid()

    /// - Parameter directory: where the file for chunks goes; nil: a directory for temporary files.
    package init(source: ChunkSource, directory: String?) {
        self.source = source
        slots = SlotFile(directory: directory)
    }

    /// Entries handled under one hold of the lock: short enough not to be felt by a reader.
    private static let batch = 1024

    /// Makes (or finds) an entry for each chunk of a database of `length` bytes,
    /// and keeps it until `release`.
    func retain(_ chunks: [Fingerprint], length: UInt64) -> UnsafeMutableBufferPointer<Int32> {
        let table = UnsafeMutableBufferPointer<Int32>.allocate(capacity: chunks.count)
        for start in stride(from: 0, to: chunks.count, by: Self.batch) {
            lock.lock()
            for i in start..<min(start + Self.batch, chunks.count) {
                let length = Chunk.length(ofChunk: i, databaseLength: length)
                table[i] = entry(of: Key(fingerprint: chunks[i], length: Int32(length)))
            }
            lock.unlock()
        }
        return table
    }

    private func entry(of key: Key) -> Int32 {
        if key.length == Int32(Chunk.size), key.fingerprint == Chunk.zeroFingerprint, Zeros.address != nil {
            return Self.zeroEntry
        }
        if let known = index[key] {
            entries[Int(known)].references += 1
            return known
        }
        let new: Int32
        if let reused = vacant.popLast() {
            new = reused
            entries[Int(new)] = Entry(key: key)
        } else {
            new = Int32(entries.count)
            entries.append(Entry(key: key))
        }
        entries[Int(new)].references = 1
        index[key] = new
        return new
    }

    func release(_ table: UnsafeMutableBufferPointer<Int32>) {
        defer { table.deallocate() }
        // In a forked child the lock may be held by a thread that only the parent has.
        guard getpid() == process else { return }
        var freed: [Int32] = []
        for start in stride(from: 0, to: table.count, by: Self.batch) {
            lock.lock()
            for i in start..<min(start + Self.batch, table.count) where table[i] != Self.zeroEntry {
                let entry = Int(table[i])
                entries[entry].references -= 1
                // One that is being loaded is dropped when that is done.
                if entries[entry].references == 0, entries[entry].load == nil {
                    if let slot = vacate(entry) { freed.append(slot) }
                }
            }
            lock.unlock()
        }
        slots.release(freed)
    }

    /// Under the lock: drops an entry that nobody refers to; answers its slot, to be freed.
    private func vacate(_ entry: Int) -> Int32? {
        let slot = entries[entry].slot
        index[entries[entry].key] = nil
        entries[entry].slot = -1
        entries[entry].address = 0
        vacant.append(Int32(entry))
        return slot >= 0 ? slot : nil
    }

    /// Where the chunk's bytes are; nil while it isn't loaded.
    func address(of entry: Int32) -> UInt? {
        if entry == Self.zeroEntry { return Zeros.address }
        return lock.withLock {
            let address = entries[Int(entry)].address
            return address == 0 ? nil : address
        }
    }

    /// Waits until the chunk is loaded.
    func load(_ entry: Int32) throws(ReplicaError) -> UInt {
        switch begin(entry, .urgent) {
        case .loaded(let address): return address
        case .loading(let load): return try load.result.take().get()
        }
    }

    /// Has a chunk fetched for which the caller is about to wait (`load`).
    /// - Returns: its address where it is loaded already.
    @discardableResult
    func request(_ entry: Int32) -> UInt? {
        if case .loaded(let address) = begin(entry, .urgent) { return address }
        return nil
    }

    /// Has a chunk loaded that will probably be wanted. Where that fails, whoever wants it will see why.
    /// - Returns: its address where it is loaded already.
    @discardableResult
    func loadAhead(_ entry: Int32, _ priority: ChunkSource.Priority) -> UInt? {
        if case .loaded(let address) = begin(entry, priority) { return address }
        return nil
    }

    /// Whether a chunk is loaded, or will be soon.
    func isExpected(_ entry: Int32) -> Bool {
        if entry == Self.zeroEntry { return true }
        return lock.withLock { entries[Int(entry)].address != 0 || entries[Int(entry)].load != nil }
    }

    private enum State {
        case loaded(UInt)
        case loading(Load)
    }

    private func begin(_ entry: Int32, _ priority: ChunkSource.Priority) -> State {
        if entry == Self.zeroEntry, let zeros = Zeros.address { return .loaded(zeros) }
        lock.lock()
        let known = entries[Int(entry)]
        if known.address != 0 {
            lock.unlock()
            return .loaded(known.address)
        }
        if let load = known.load {
            lock.unlock()
            if let request = load.request { source.hurry(request, priority) }
            return .loading(load)
        }
        let load = Load()
        let request = ChunkSource.Request(
            known.key.fingerprint, length: Int(known.key.length), priority: priority
        ) { [weak self] in
            self?.finish(Int(entry), load, $0)
        }
        load.request = request
        entries[Int(entry)].load = load
        lock.unlock()
        source.start(request)
        return .loading(load)
    }

    private func finish(_ entry: Int, _ load: Load, _ fetched: Result<[UInt8], ReplicaError>) {
        // Stored even where the last snapshot that lists it is gone: another may have come meanwhile.
        let stored = fetched.flatMap { bytes in Result { () throws(ReplicaError) in try store(bytes) } }
        var freed: [Int32] = []
        let result: Result<UInt, ReplicaError>
        lock.lock()
        entries[entry].load = nil
        switch stored {
        case .success(let place):
            if entries[entry].address == 0 {
                entries[entry].slot = place.slot
                entries[entry].address = place.address
            } else {
                freed.append(place.slot)
            }
            result = .success(entries[entry].address)
        case .failure(let error):
            result = .failure(error)
        }
        if entries[entry].references == 0, let slot = vacate(entry) { freed.append(slot) }
        lock.unlock()
        slots.release(freed)
        // Whoever waits holds a reference, so that the address stays good.
        load.result.put(result)
    }

    /// Puts bytes that came by another way (bundled in a manifest), verified by the caller, into an entry.
    func put(_ bytes: [UInt8], into entry: Int32) throws(ReplicaError) {
        guard entry != Self.zeroEntry, address(of: entry) == nil else { return }
        let place = try store(bytes)
        lock.lock()
        let isFirst = entries[Int(entry)].address == 0
        if isFirst {
            entries[Int(entry)].slot = place.slot
            entries[Int(entry)].address = place.address
        }
        lock.unlock()
        if !isFirst { slots.release([place.slot]) }
    }

    private func store(_ bytes: [UInt8]) throws(ReplicaError) -> (slot: Int32, address: UInt) {
        do throws(SystemError) {
            let place = try slots.allocate()
            do throws(SystemError) {
                try slots.write(bytes, to: place.slot)
            } catch {
                slots.release([place.slot])
                throw error
            }
            return place
        } catch {
            throw .system(error)
        }
    }

    /// What the cache holds at this moment.
    package struct Usage: Sendable {
        package var entries: Int
        package var loaded: Int
        package var bytesOnDisk: Int64
        package var mappings: Int
    }
    package var usage: Usage {
        let file = slots.usage()
        return lock.withLock {
            Usage(
                entries: entries.count - vacant.count, loaded: file.slots, bytesOnDisk: file.bytesOnDisk,
                mappings: file.mappings)
        }
    }
}
