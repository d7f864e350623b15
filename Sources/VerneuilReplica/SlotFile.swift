import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Room for chunks: one sparse file without a name, in slots of 64 KiB, mapped
/// for reading. Its pages are the kernel's to drop and read again, so that
/// chunks cost disk space and no memory of the process's own.
///
/// - One descriptor; a new mapping each time the file doubles, so that a
///   terabyte takes 15 mappings (the kernel allows 65,530).
/// - Slots are written with pwrite(2), so that a full disk is an error there
///   and not SIGBUS in a reader, and are read only after that has succeeded.
/// - The mappings are read-only: nothing in the process can change a verified chunk.
/// - A freed slot's disk space is given back at once.
///
/// Nobody else can open the file, so that nothing can truncate it under the
/// mapping. What remains is an unreadable disk, on which reading a mapping raises SIGBUS.
///
/// Safe from any thread; belongs to one process.
final class SlotFile: @unchecked Sendable {
    /// Slots of the first mapping, 64 MiB.
    private static let firstExtent = 1024

    private let directory: String?
    private let lock = Lock()
    private var file: OpenFile?
    private var extents: [(base: UnsafeRawPointer, slots: Int)] = []
    private var free: [Int32] = []
    /// Slots given out so far, freed ones included.
    private var used = 0
    private var mapped = 0

    private final class OpenFile: Sendable {
        let descriptor: Descriptor
        init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }
    }

    /// - Parameter directory: where to put the file; nil: see `candidates`.
    init(directory: String?) {
        self.directory = directory
    }

    deinit {
        for extent in extents { vrn_unmap(extent.base, extent.slots * Chunk.size) }
    }

    /// A slot that belongs to the caller, and where its bytes will be readable.
    func allocate() throws(SystemError) -> (slot: Int32, address: UInt) {
        lock.lock()
        defer { lock.unlock() }
        if let slot = free.popLast() { return (slot, address(of: Int(slot))) }
        if used == mapped { try grow() }
        let slot = used
        used += 1
        return (Int32(slot), address(of: slot))
    }

    /// Fills a slot from its beginning. On failure it must still be freed.
    func write(_ bytes: [UInt8], to slot: Int32) throws(SystemError) {
        guard let file = lock.withLock({ file }) else { return }
        try file.descriptor.write(bytes, at: Int64(slot) * Int64(Chunk.size))
    }

    /// Gives slots, and the disk space behind them, back. Nobody may read them any more.
    func release(_ slots: [Int32]) {
        guard !slots.isEmpty, let file = lock.withLock({ file }) else { return }
        let slots = slots.sorted()
        var i = 0
        while i < slots.count {
            var end = i + 1
            while end < slots.count, slots[end] == slots[end - 1] + 1 { end += 1 }
            // Where the file system can't, the space is used again by the next chunk in this slot.
            _ = vrn_punch_hole(
                file.descriptor.fd, Int64(slots[i]) * Int64(Chunk.size), Int64(end - i) * Int64(Chunk.size))
            i = end
        }
        lock.withLock { free.append(contentsOf: slots.reversed()) }
    }

    /// For tests and status: slots in use, bytes on disk, mappings.
    func usage() -> (slots: Int, bytesOnDisk: Int64, mappings: Int) {
        lock.lock()
        defer { lock.unlock() }
        let status = file.flatMap { try? $0.descriptor.status() }
        return (used - free.count, status?.allocated ?? 0, extents.count)
    }

    /// Extents have 1, 1, 2, 4, 8… times the first one's slots.
    private func address(of slot: Int) -> UInt {
        let number = slot < Self.firstExtent ? 0 : (slot / Self.firstExtent).bitWidth - (slot / Self.firstExtent).leadingZeroBitCount
        let start = number == 0 ? 0 : Self.firstExtent << (number - 1)
        return UInt(bitPattern: extents[number].base + (slot - start) * Chunk.size)
    }

    private func grow() throws(SystemError) {
        if file == nil { file = OpenFile(try Self.open(in: directory)) }
        guard let file else { throw SystemError("open", "", ENOENT) }
        let slots = max(Self.firstExtent, mapped)
        let start = Int64(mapped) * Int64(Chunk.size)
        let size = start + Int64(slots) * Int64(Chunk.size)
        if size > vrn_file_size_limit() { throw SystemError("ftruncate", file.descriptor.path, EFBIG) }
        try file.descriptor.truncate(to: size)
        var code: Int32 = 0
        guard let base = vrn_map_readonly(file.descriptor.fd, start, slots * Chunk.size, &code) else {
            throw SystemError("mmap", file.descriptor.path, code)
        }
        extents.append((base, slots))
        mapped += slots
    }

    // MARK: Where

    /// The first of these that works: what is configured; else TMPDIR, /var/tmp,
    /// /usr/tmp, /tmp, those on a disk before those in memory (a tmpfs would
    /// make the cache count as memory that the kernel can't drop).
    static func candidates(_ configured: String?) -> [String] {
        if let configured, !configured.isEmpty { return [configured] }
        var all = ["/var/tmp", "/usr/tmp", "/tmp"]
        if let own = getenv("TMPDIR").map({ String(cString: $0) }), !own.isEmpty { all.insert(own, at: 0) }
        return all.filter { vrn_in_memory($0) == 0 } + all.filter { vrn_in_memory($0) == 1 }
    }

    private static func open(in configured: String?) throws(SystemError) -> Descriptor {
        var failure = SystemError("open", configured ?? "/var/tmp", ENOENT)
        for directory in candidates(configured) {
            do throws(SystemError) {
                return try open(unnamedIn: directory)
            } catch {
                failure = error
            }
        }
        throw failure
    }

    private static func open(unnamedIn directory: String) throws(SystemError) -> Descriptor {
        let fd = vrn_open_unnamed(directory)
        if fd >= 0 { return Descriptor(owning: fd, path: "\(directory)/(replica)") }
        guard fd == -EOPNOTSUPP || fd == -EISDIR || fd == -ENOENT || fd == -EINVAL else {
            throw SystemError("open", directory, -fd)
        }
        let name = Files.temporaryName(beside: "\(directory)/replica")
        let file = try Descriptor(name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
        try Files.remove(name)
        return file
    }
}

/// The well-known chunk of zeros, which takes no room.
enum Zeros {
    /// Never unmapped. nil where the kernel had no room for a mapping.
    static let address: UInt? = {
        var code: Int32 = 0
        return vrn_map_zeros(Chunk.size, &code).map { UInt(bitPattern: $0) }
    }()
}
