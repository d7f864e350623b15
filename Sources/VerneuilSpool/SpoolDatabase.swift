import CVerneuil
import VerneuilFormat
import VerneuilSystem

// One database's directory:
//
//   path           the database's canonical path, for those who find the directory
//   control        SpoolControl; made whole before it gets its name
//   builder.lock   held by who makes a full snapshot
//   stored.TARGET  what a target is known to have
//   epoch.N/table  EpochTable: two entries for each chunk
//   epoch.N/pool   two places for each chunk: chunk i's are at 2i and 2i+1 times 64 KiB
//   epoch.N/base, epoch.N/base.pool   the full snapshot that a builder made
//
// Beside it, in the directory of the path, stands
//
//   copier.lock    held by who uploads: what is stored goes by the path, whichever file is there
//
// The directory's name holds device and inode: a file that replaces the
// database has another directory, and the two never mix (S9).

/// Names and identity of one database's spooling directory. Cheap; opens nothing. Safe from any thread.
public struct SpoolDatabase: Sendable, Hashable {
    public let spool: SpoolDirectory
    public let directory: String
    /// The database file, canonical.
    public let path: String
    public let device: UInt64
    public let inode: UInt64

    public init(_ spool: SpoolDirectory, path: String, device: UInt64, inode: UInt64) {
        self.spool = spool
        self.path = path
        self.device = device
        self.inode = inode
        directory = spool.directory(path: path, device: device, inode: inode)
    }

    /// nil: nothing of ours, or not whole yet.
    init?(existing directory: String, in spool: SpoolDirectory) throws(SystemError) {
        let identity = Files.lastComponent(of: directory).split(separator: "-")
        guard identity.count == 2, let device = UInt64(identity[0], radix: 16), let inode = UInt64(identity[1], radix: 16),
            let bytes = try Files.read("\(directory)/path", limit: 1 << 16), !bytes.isEmpty
        else { return nil }
        self.spool = spool
        self.directory = directory
        self.device = device
        self.inode = inode
        path = String(decoding: bytes, as: UTF8.self)
    }

    var controlPath: String { "\(directory)/control" }
    func epochPath(_ epoch: UInt64) -> String { "\(directory)/epoch.\(epoch)" }

    /// Where copiers of any file that is, or was, at this path exclude one another: they write the same manifest.
    var copierLockPath: String { "\(Files.directory(of: directory))/copier.lock" }

    /// Keeps other builders out; nil where one is at work.
    func builderLock() throws(SystemError) -> FileLock? { try FileLock(spool.open("\(directory)/builder.lock")) }

    /// Removes what crashes left.
    func sweep() {
        let names = (try? Files.list(directory)) ?? []
        for name in names where SpoolDirectory.isLeftover(name, in: directory) { try? Files.remove("\(directory)/\(name)") }
        // The rest is written under the copier's lock alone.
        guard let session = (try? SpoolCopierSession.open(self)) ?? nil else { return }
        for name in names where name.hasSuffix(".new") { try? Files.remove("\(directory)/\(name)") }
        try? session.removeAbandonedEpochs()
    }

    /// Opens the control page; nil where there is none.
    func openControl() throws(SystemError) -> Descriptor? {
        let fd = vrn_open(controlPath, O_RDWR, 0)
        if fd == -ENOENT || fd == -ENOTDIR { return nil }
        return Descriptor(owning: try SystemError.check(fd, "open", controlPath), path: controlPath)
    }

    /// Opens the control page, making directory and page where they aren't
    /// there. The page gets its name only when it is whole, and only if no other process was first.
    func makeControl() throws(SystemError) -> Descriptor {
        for _ in 0..<3 {
            if let control = try openControl() { return control }
            try spool.make(spool.root)
            try spool.make(spool.boot)
            try spool.make("\(spool.boot)/databases")
            try spool.make(Files.directory(of: directory))
            try spool.make(directory)
            try spool.write(Array(path.utf8), to: "\(directory)/path", isOnlyWriter: false)
            let temporary = Files.temporaryName(beside: controlPath)
            defer { _ = vrn_unlink(temporary) }
            let fresh = try spool.open(temporary, O_EXCL)
            try fresh.write([UInt8](repeating: 0, count: SpoolControl.pageSize), at: 0)
            let r = vrn_link(temporary, controlPath)
            if r != -EEXIST { try SystemError.check(r, "link", controlPath) }
        }
        if let control = try openControl() { return control }
        throw SystemError("open", controlPath, ENOENT)
    }

    /// Moves a retired directory out of the way, in case its remover died. True where that name is free now.
    ///
    /// - Parameter most: bytes that are removed at once; what is larger is left to a sweep.
    func replaceRetired(removing most: Int64) throws(SystemError) -> Bool {
        guard let records = try control(), records.copier.retired != 0 else { return true }
        let isSmall = most == .max || allocatedBytes() <= most
        let away = SpoolDirectory.abandonedName(beside: directory)
        let r = vrn_rename(directory, away)
        if r == 0 && isSmall { try? Files.removeTree(away) }
        return r == 0 || r == -ENOENT
    }

    /// The records as they are now; nil where nothing was ever spooled (or the page is damaged).
    public func control() throws(SystemError) -> SpoolControl? {
        guard let file = try openControl() else { return nil }
        return try SpoolControl.read(file.fd, path: controlPath)
    }

    /// Numbers of the epochs that have a directory.
    func epochs() throws(SystemError) -> [UInt64] {
        try Files.list(directory).compactMap { $0.hasPrefix("epoch.") ? UInt64($0.dropFirst(6)) : nil }
    }

    /// A number for a new epoch, odd or even as `parity` says: larger than any
    /// that the records know, and of no directory that holds anything.
    func unusedEpoch(after records: SpoolControl, parity: UInt64) throws(SystemError) -> UInt64 {
        var number = records.newestEpoch + 1
        if number == 1 {
            // A new page, perhaps because the last one was lost: then files tell of later epochs, and what is stored of them
            // must not pass for what is to come.
            let there = try epochs()
            let used = there.filter(isUsed).max() ?? 0
            let stored = try readTargetRecords().values.map(\.stored.epoch).max() ?? 0
            // A full snapshot takes many turns: what another one has begun is gone on with.
            if let begun = there.filter({ $0 > max(used, stored) && $0 & 1 == parity && !isUsed($0) }).max() { return begun }
            // Where the directory was emptied, only processes know of earlier ones: so the upper 48 bits are when the page was
            // made, in µs since boot, and the lower ones count. If they overflow, the next page is later all the same.
            number = max(used, stored, (MonotonicTime.now.nanoseconds / 1000) << 16) + 1
        }
        if number & 1 != parity { number += 1 }
        // A crash came before the record.
        while isUsed(number) { number += 2 }
        return number
    }

    private func isUsed(_ epoch: UInt64) -> Bool {
        vrn_access("\(epochPath(epoch))/table", F_OK) == 0 || vrn_access("\(epochPath(epoch))/base", F_OK) == 0
    }

    /// Whether `error` says that some epoch's files can't be read, now or later: they are damaged, or are not there. Not that
    /// something is scarce at the moment.
    public func isUnreadable(_ error: SystemError) -> Bool {
        guard error.path.hasPrefix("\(directory)/epoch.") else { return false }
        switch error.code {
        case EIO, EBADMSG, ESTALE, ENOENT, ENOTDIR, EISDIR: return true
        #if os(Linux)
        // What ext4 and XFS say of their own damage.
        case EUCLEAN: return true
        #endif
        default: return false
        }
    }

    /// Bytes that the directory takes on disk.
    public func allocatedBytes() -> Int64 { allocatedBytes(below: directory) }

    /// The same of one epoch.
    func allocatedBytes(ofEpoch epoch: UInt64) -> Int64 { allocatedBytes(below: epochPath(epoch)) }

    private func allocatedBytes(below top: String) -> Int64 {
        func total(_ path: String) -> Int64 {
            guard let status = (try? Files.status(path, followLinks: false)) ?? nil else { return 0 }
            guard status.isDirectory else { return status.allocated }
            return ((try? Files.list(path)) ?? []).reduce(0) { $0 + total("\(path)/\($1)") }
        }
        return total(top)
    }

    // MARK: what a target has

    /// Fingerprints of all chunks of the last snapshot stored on `target`, in file order; nil: not known.
    public func storedChunks(_ target: String) -> [Fingerprint]? {
        guard let bytes = (try? Files.read("\(directory)/stored.\(target)", limit: 1 << 31)) ?? nil, bytes.count % 16 == 0
        else { return nil }
        return bytes.withUnsafeBytes { raw in
            (0..<bytes.count / 16).map { i in
                Fingerprint(
                    primary: UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: i * 16, as: UInt64.self)),
                    secondary: UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: i * 16 + 8, as: UInt64.self)))
            }
        }
    }

    public func setStoredChunks(_ target: String, _ chunks: [Fingerprint]) throws(SystemError) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(chunks.count * 16)
        for chunk in chunks {
            withUnsafeBytes(of: chunk.primary.littleEndian) { bytes.append(contentsOf: $0) }
            withUnsafeBytes(of: chunk.secondary.littleEndian) { bytes.append(contentsOf: $0) }
        }
        try spool.write(bytes, to: "\(directory)/stored.\(target)")
    }

    /// Forgets what `target`, or every target, is believed to have.
    public func forgetStoredChunks(_ target: String? = nil) {
        for name in (try? Files.list(directory)) ?? [] {
            for prefix in ["stored.", "sent."] where name.hasPrefix(prefix + (target ?? "")) { try? Files.remove("\(directory)/\(name)") }
        }
    }
}
