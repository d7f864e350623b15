import CVerneuil
import VerneuilFormat
import VerneuilSystem

// A transaction of a connection, as the spool sees it:
//
//   begin   before the first physical write, under the database's EXCLUSIVE lock:
//           is the file as the newest staged snapshot says? Then build on it,
//           else begin an epoch. The record says so ("begun") before the first byte of the database changes.
//   stage   after the commit, under the SHARED lock that EXCLUSIVE turned into (no other
//           writer can begin): the changed chunks go into the pool, their entries
//           into the table, and last the record: this transaction is staged.
//
// A process that dies between the two leaves "begun" ahead of "staged": nobody
// builds on that, and nobody mistakes it for a snapshot (S3). If the ready
// snapshot was taken over by a copier, `begin` makes the newest one ready, so
// that copiers always find one that stays still (S6).

/// The producer's side of one database's spool, shared by a process's connections to it.
///
/// `begin` and `stage` are called under SQLite's locks as described above, which
/// is what serialises them between processes. Safe from any thread.
public final class SpoolProducer: @unchecked Sendable {
    public let database: SpoolDatabase

    // Guarded by `lock`; uncontended, since SQLite's locks admit one writer.
    private let lock = Lock()
    private var control: Descriptor?
    private var controlInode: UInt64 = 0
    private var epoch: EpochFiles?
    private var record = ProducerRecord()
    private var copied = SpoolPoint.none
    private var everywhere = SpoolPoint.none
    private var basePoolBytes: UInt64 = 0
    private var baseIsWhole = false
    /// The length for which the epoch's files may have room: longer than the database where it was cut while a longer
    /// snapshot was ready.
    private var keptLength: UInt64 = 0
    private var transaction = false
    /// The last state known to be staged, for `isKnown`.
    private var known = SourceState()

    /// Room for the control page.
    private let page = UnsafeMutableRawPointer.allocate(byteCount: SpoolControl.pageSize, alignment: 8)
    /// Each transaction asks for it: not to be made anew.
    private let controlPath: String
    /// Bytes that a transaction removes at most.
    private let removable: Int64

    /// - Parameter removable: bytes of old epochs that a transaction removes at most.
    public init(_ database: SpoolDatabase, removable: Int64 = SpoolDatabase.removedWithinCommit) {
        self.database = database
        self.removable = removable
        controlPath = database.controlPath
    }

    deinit { page.deallocate() }

    /// Why a transaction could not build on the newest snapshot.
    public enum Doubt: String, Sendable {
        case firstUse = "there is no snapshot yet"
        case unfinished = "a transaction was not finished"
        case changed = "the file was changed from outside"
        case distrusted = "the last snapshot was found to be wrong"
        case overtaken = "a transaction took long to be staged, and a full snapshot came before it"
    }

    /// What `stage` did.
    public struct Staged: Sendable {
        public var point: SpoolPoint
        public var state: SourceState
        public var chunks: Int
        /// Whether the snapshot has all its chunks; false: a builder has to run.
        public var isWhole: Bool
        /// What was given up for room is too much for a transaction to remove: a builder has to run.
        public var leavesOldEpochs = false
    }

    // MARK: - Reading

    /// The records as they are now; nil: nothing was ever spooled. One system call, once the page is open.
    public func readControl() throws(SystemError) -> SpoolControl? {
        try lock.withLock { () throws(SystemError) -> SpoolControl? in
            try openedControl(make: false)
        }
    }

    private func openedControl(make: Bool) throws(SystemError) -> SpoolControl? {
        // Somebody emptied the spooling directory, or moved it away: what is written here would be seen by nobody.
        if make, case .some = control.asFd, !isAtItsPath() { forget() }
        for _ in 0..<2 {
            if control == nil {
                if make {
                    control = try database.makeControl()
                } else if let existing = try database.openControl() {
                    control = consume existing
                } else {
                    return nil
                }
                var st = stat()
                if let file = control.asFd, vrn_fstat(file, &st) == 0 { controlInode = UInt64(st.st_ino) }
            }
            guard case .some(let file) = control.asFd else { return nil }
            if let records = try SpoolControl.read(file, path: database.controlPath, room: page) {
                if records.copier.retired == 0 { return records }
                // The directory is being removed; the database has another by now, or will.
                forget()
                if !make { return nil }
                // Whoever retired it is about to move it away; until then there is nowhere to spool.
                if vrn_access(database.controlPath, F_OK) == 0, try !database.replaceRetired(removing: removable) { return nil }
                continue
            }
            // Damaged: not something that a crash can leave. Start over beside it.
            forget()
            try? Files.remove(database.controlPath)
        }
        return nil
    }

    private func isAtItsPath() -> Bool {
        var st = stat()
        let r = controlPath.withCString { vrn_stat($0, &st) }
        if r < 0 { return r != -ENOENT && r != -ENOTDIR }
        return UInt64(st.st_ino) == controlInode
    }

    private func forget() {
        control = nil
        epoch = nil
        record = ProducerRecord()
        known = SourceState()
    }

    // MARK: - begin

    /// Opens a transaction. Call before its first write, under the EXCLUSIVE lock.
    ///
    /// - Parameter found: the file's state now.
    /// - Returns: nil where the transaction builds on the newest snapshot; else why it can't, and an epoch has begun.
    public func begin(_ found: SourceState) throws(SystemError) -> Doubt? {
        lock.lock()
        defer { lock.unlock() }
        transaction = false
        guard let records = try openedControl(make: true) else {
            throw SystemError("open", database.controlPath, ESTALE)
        }
        copied = records.copier.copied
        everywhere = records.copier.everywhere
        record = records.producer
        // Given up: nobody copies it any more, and it mustn't keep the next one from being ready.
        if record.ready.epoch <= records.builder.distrusted { record.ready = .none }
        let current = records.current

        // R1: build on the newest snapshot only where the file is, beyond doubt, what it was then.
        let doubt: Doubt?
        if current.point.epoch == 0 {
            doubt = .firstUse
        } else if records.isCurrentTrusted && found.proves(current.state) {
            doubt = nil
        } else if current.point.epoch <= records.builder.distrusted {
            doubt = .distrusted
        } else if !records.hasProposal && records.producer.isOpen {
            doubt = .unfinished
        } else if records.isOvertaken {
            doubt = .overtaken
        } else {
            doubt = .changed
        }

        if doubt == nil {
            var leftBehind: UInt64 = 0
            if current.point.epoch != record.staged.epoch {
                // A builder made this epoch: enter it. The one before, with its base, stands until somebody removes it.
                leftBehind = record.poolBytes &+ Self.roundedUp(max(record.state.length, record.readyState.length))
                record.poolBytes = 0
            }
            if records.hasProposal { takeOverWaiting(from: records) }
            record.staged = current.point
            record.state = current.state
            baseIsWhole = records.isCurrentWhole
            keptLength = record.state.length
            if record.ready.epoch == record.staged.epoch { keptLength = max(keptLength, record.readyState.length) }
            // R2: copiers always find a snapshot that stays still.
            if baseIsWhole && record.ready <= copied && current.point > copied {
                record.ready = current.point
                record.readyState = current.state
                // The ready snapshot was all that kept an older epoch, unless a transaction has left some to a builder.
                if record.otherBytes > 0 { record.otherBytes = try database.removeEpochs(before: current.point.epoch, atMost: 0) }
            }
            record.otherBytes &+= leftBehind
        } else {
            // Producers' epochs are odd and builders' even, so that no two ever make the same.
            if record.ready <= copied { record.ready = .none }
            // The new epoch begins after all that is stored: what waited before, and is, waits no more.
            if record.staged <= everywhere { record.pendingSince = 0 }
            if record.staged <= copied { record.freshSince = 0 }
            // Whatever stands in other epochs, until a builder or copier has removed what nobody needs.
            record.otherBytes &+= record.poolBytes &+ records.builder.poolBytes
            record.staged = SpoolPoint(try database.unusedEpoch(after: records, parity: 1), 0)
            record.state = SourceState()
            record.poolBytes = 0
            baseIsWhole = false
            keptLength = 0
        }
        if epoch?.number != record.staged.epoch {
            epoch = nil
            epoch = try EpochFiles.open(database, record.staged.epoch)
        }
        // What the builder counted is not counted again when it is cut.
        basePoolBytes =
            records.builder.epoch == record.staged.epoch ? min(records.builder.poolBytes, Self.roundedUp(keptLength)) : 0
        // R3: from here on, until it is staged, nobody takes the file for the newest snapshot.
        record.begun = record.staged.sequence + 1
        try write()
        transaction = true
        return doubt
    }

    /// Enters a builder's epoch: what that found waits since then, unless something older does.
    private func takeOverWaiting(from records: SpoolControl) {
        let found = records.builder.pendingSince
        func since(_ waiting: UInt64, _ stored: SpoolPoint) -> UInt64 {
            if records.current.point <= stored { return 0 }
            return waiting != 0 && record.staged > stored ? min(waiting, found) : found
        }
        record.pendingSince = since(record.pendingSince, everywhere)
        record.freshSince = since(record.freshSince, copied)
    }

    private func write() throws(SystemError) {
        guard case .some(let file) = control.asFd else { throw SystemError("open", database.controlPath, EBADF) }
        try SpoolControl.write(record, file, path: database.controlPath)
    }

    // MARK: - stage

    /// Stages what a committed transaction changed. Call under the SHARED lock that follows EXCLUSIVE (or under EXCLUSIVE).
    ///
    /// - Parameters:
    ///   - fd: the database.
    ///   - tag: as `VersionTag.replace` gave it at the transaction's begin.
    ///   - scratch: room for a chunk and some table entries, `scratchBytes`, aligned to 8.
    ///   - changed: given the file's length, the indexes of all chunks that may have changed, ascending; those
    ///     beyond the end are passed over.
    public func stage(
        _ fd: Int32, path: @autoclosure () -> String, tag: VersionTag, scratch: UnsafeMutableRawPointer,
        changed: (_ length: UInt64) -> UnsafeBufferPointer<UInt32>
    ) throws(SystemError) -> Staged {
        lock.lock()
        defer { lock.unlock() }
        guard transaction, let epoch else { throw SystemError("stage", database.path, EINVAL) }
        transaction = false

        var st = stat()
        try SystemError.check(vrn_fstat(fd, &st), "fstat", path())
        var state = SourceState()
        state.take(st)
        state.tag = tag
        let oldLength = record.state.length
        let count = Chunk.count(forLength: state.length)

        let dirty = changed(state.length)
        let leavesOldEpochs = try makeRoom(length: state.length, chunks: dirty.count, epoch)

        let sequence = record.begun
        let pinned: UInt64? = record.ready > copied && record.ready.epoch == epoch.number ? record.ready.sequence : nil
        var header: Fingerprint?
        var staged = 0
        // R4: chunks and entries first, into places that the ready snapshot doesn't need.
        var at = 0
        while at < dirty.count, Int(dirty[at]) < count {
            // A run of neighbours shares one read and one write of the table.
            let first = Int(dirty[at])
            var n = 1
            while n < Self.maximumRun, at + n < dirty.count, Int(dirty[at + n]) == first + n, first + n < count { n += 1 }
            staged += try stageRun(
                fd, path: path(), first: first, count: n, length: state.length, sequence: sequence, pinned: pinned,
                epoch, scratch, header: &header)
            at += n
        }
        if let header {
            state.header = header
        } else {
            state.header = try SourceState.headerFingerprint(fd, path: path())
        }

        // A place counts once, with the bytes that were first written to it: where the length changes, the last chunk's
        // size does, and the file knows better.
        if state.length != oldLength { record.poolBytes = try allocated(epoch) }
        if state.length < max(oldLength, keptLength) { try shrink(to: state.length, epoch) }

        record.staged.sequence = sequence
        record.state = state
        record.transactions &+= 1
        // The oldest commit that waits: this one, if nothing waited before it.
        let before = SpoolPoint(epoch.number, sequence - 1)
        if record.pendingSince == 0 || record.freshSince == 0 || before <= copied || before <= everywhere {
            let time = wallClock()
            let now = UInt64(time.seconds) &* 1_000_000_000 &+ UInt64(time.nanoseconds)
            if record.pendingSince == 0 || before <= everywhere { record.pendingSince = now }
            if record.freshSince == 0 || before <= copied { record.freshSince = now }
        }
        // R5: last of all, the record.
        try write()
        known = state
        return Staged(point: record.staged, state: state, chunks: staged, isWhole: baseIsWhole, leavesOldEpochs: leavesOldEpochs)
    }

    /// Neighbouring chunks whose entries are read and written together.
    static let maximumRun = 64
    /// A chunk, and the table's entries of a run.
    public static let scratchBytes = Chunk.size + maximumRun * ChunkVersions.bytes

    private func stageRun(
        _ fd: Int32, path: @autoclosure () -> String, first: Int, count n: Int, length: UInt64, sequence: UInt64,
        pinned: UInt64?, _ epoch: EpochFiles, _ scratch: UnsafeMutableRawPointer, header: inout Fingerprint?
    ) throws(SystemError) -> Int {
        let entries = scratch + Chunk.size
        let bytes = n * ChunkVersions.bytes
        let tableOffset = Int64(first) * Int64(ChunkVersions.bytes)
        let got = try SystemError.check(vrn_pread(epoch.table.fd, entries, bytes, tableOffset), "pread", epoch.table.path)
        if got < bytes { memset(entries + got, 0, bytes - got) }

        var changed = 0
        for i in 0..<n {
            let index = first + i
            let size = Chunk.length(ofChunk: index, databaseLength: length)
            try readChunk(fd, path: path(), scratch, size, Int64(index) * Int64(Chunk.size))
            let chunk = UnsafeRawBufferPointer(start: scratch, count: size)
            let fingerprint = Chunk.fingerprint(chunk)
            record.hashedBytes &+= UInt64(size)
            if index == 0 {
                // SQLite file format, 1.3.3: in WAL mode the file alone is no database. (SQLite enters it without
                // shared memory under locking_mode=EXCLUSIVE.)
                if size > 19 && (chunk[18] == 2 || chunk[19] == 2) { throw SystemError("WAL mode is not replicated:", path(), ENOTSUP) }
                header = FingerprintKey.header.fingerprint(UnsafeRawBufferPointer(rebasing: chunk[..<min(100, size)]))
            }
            let entry = entries + i * ChunkVersions.bytes
            let versions = EpochTable.load(entry)
            if let newest = versions.newest, versions[newest].fingerprint == fingerprint { continue }
            let place = versions.placeForNext(pinned: pinned)
            let old = versions[place]
            var next = ChunkVersion(sequence: sequence, fingerprint: fingerprint, flags: 0)
            if fingerprint != Chunk.zeroFingerprint {
                try epoch.pool.write(chunk, at: EpochTable.poolOffset(index, place: place))
                next.flags = ChunkVersion.hasBytes
            }
            let used = old.flags & Self.placeUsed != 0 || old.flags & ChunkVersion.hasBytes != 0
            if !used && next.flags != 0 { record.poolBytes &+= UInt64(size) }
            if used || next.flags != 0 { next.flags |= Self.placeUsed }
            EpochTable.store(next, entry + place * ChunkVersion.bytes)
            changed += 1
        }
        if changed > 0 {
            try epoch.table.write(UnsafeRawBufferPointer(start: entries, count: bytes), at: tableOffset)
        }
        return changed
    }

    /// The place in the pool was written to at some time: it takes room.
    static let placeUsed: UInt64 = 2

    private func readChunk(
        _ fd: Int32, path: @autoclosure () -> String, _ p: UnsafeMutableRawPointer, _ size: Int, _ offset: Int64
    ) throws(SystemError) {
        var done = 0
        while done < size {
            let n = try SystemError.check(vrn_pread(fd, p + done, size - done, offset + Int64(done)), "pread", path())
            // Nobody may cut the file while we hold SHARED; somebody does.
            if n == 0 { throw SystemError("pread", path(), ESTALE) }
            done += n
        }
    }

    // MARK: - Bounds (S2)

    /// What may stand for a database of this length, so that less than four times as much does with tables and small files.
    static func mostBytes(_ length: UInt64) -> UInt64 { length / 2 * 7 }

    private static func roundedUp(_ length: UInt64) -> UInt64 {
        UInt64(Chunk.count(forLength: length)) &* UInt64(Chunk.size)
    }

    /// An epoch's own data is at most three times the database: two places a
    /// chunk, and the full snapshot. What can exceed the bound is what stands in
    /// older epochs, for a ready snapshot or because nobody has removed it yet: it is given up, and removed by this
    /// transaction where that is soon done. True: it isn't, and stands.
    private func makeRoom(length: UInt64, chunks: Int, _ epoch: EpochFiles) throws(SystemError) -> Bool {
        guard record.otherBytes > 0 else { return false }
        let coming = UInt64(chunks) * UInt64(Chunk.size)
        let base = baseIsWhole ? basePoolBytes : length
        guard record.poolBytes &+ base &+ record.otherBytes &+ coming > Self.mostBytes(length) else { return false }
        if record.ready.epoch != epoch.number {
            record.ready = .none
            try write()
        }
        record.otherBytes = try database.removeEpochs(before: epoch.number, atMost: removable)
        if record.otherBytes == 0 { return false }
        // A builder removes it before it does anything else. Until one comes, it gives way to what is written.
        let basePool = try Files.status("\(database.epochPath(epoch.number))/base.pool")
        let standing = (basePool?.allocated ?? 0) > 0 ? base : 0
        let all = record.poolBytes &+ standing &+ record.otherBytes &+ coming
        // The rest is tables.
        let most = 4 * length - length / 512
        if all > most {
            let cut = try database.cutEpochs(before: epoch.number, by: all - most, step: UInt64(max(1, removable / 2)))
            record.otherBytes -= min(cut, record.otherBytes)
        }
        return true
    }

    /// The database became shorter: so does what is kept of it. A longer snapshot that is ready is given up only where
    /// the bound asks for that, by this transaction or a later one; or it is copied by then.
    private func shrink(to length: UInt64, _ epoch: EpochFiles) throws(SystemError) {
        if record.ready.epoch == epoch.number && record.readyState.length > length {
            let all = record.poolBytes &+ basePoolBytes &+ record.otherBytes
            if record.ready > copied && all <= Self.mostBytes(length) { return }
            // Also where it is copied: another target's copier may still read it.
            record.ready = .none
            try write()
        }
        let chunks = Chunk.count(forLength: length)
        try epoch.table.truncate(to: Int64(chunks * ChunkVersions.bytes))
        var end: Int64 = 0
        if chunks > 0 {
            end = EpochTable.poolOffset(chunks - 1, place: 1)
            end += Int64(Chunk.length(ofChunk: chunks - 1, databaseLength: length))
        }
        if try epoch.pool.status().size > end { try epoch.pool.truncate(to: end) }
        let basePool = "\(database.epochPath(epoch.number))/base.pool"
        if let status = try Files.status(basePool), status.size > Int64(length) {
            try Descriptor(basePool, O_WRONLY).truncate(to: Int64(length))
        }
        record.poolBytes = try allocated(epoch)
    }

    private func allocated(_ epoch: EpochFiles) throws(SystemError) -> UInt64 {
        UInt64(max(0, try epoch.pool.status().allocated))
    }
}

extension Optional where Wrapped == Descriptor {
    /// The number of an open file, without taking it out of its place.
    var asFd: Int32? {
        switch self {
        case .some(let file): return file.fd
        case .none: return nil
        }
    }
}
