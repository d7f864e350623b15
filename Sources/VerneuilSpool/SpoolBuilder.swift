import CVerneuil
import VerneuilFormat
import VerneuilSystem

// A full snapshot without a lock, and without making anybody wait: R6, where there is an epoch to complete, and R7.
//
// The builder reads the database chunk by chunk while transactions go on. What
// it reads of a chunk may be half of one transaction and half of another; that
// does no harm, because every chunk that a transaction of this epoch touched
// has an entry in the epoch's table, and the table comes before the base. What
// counts is when the base may be believed at all:
//
//   Let c be the newest transaction begun when the last chunk had been read.
//   All transactions that wrote while the builder read are numbered up to c. So
//   from the moment c is staged, each chunk is either in the table, or was not
//   written since the epoch began and was read right. The record says so: "valid from c".
//
//   Where no transaction was open then, the file must in addition be exactly as
//   the last staged transaction left it (size, mtime, header, tag): no stranger has
//   written meanwhile. Where one was open, it looked for that itself when it began.
//
// Where the file is not what the newest snapshot says (first use, or a stranger
// wrote), there is no epoch to complete: the builder makes one of its own, provided that
// the file is at rest before (nobody holds EXCLUSIVE, no hot journal) and
// exactly the same after. Its number is even; producers' are odd.
//
// A builder stops after any chunk when its time is over. The next one, in any
// process, goes on from there.

/// Makes full snapshots of one database. Use by one thread at a time; several processes exclude one another by a lock.
public struct SpoolBuilder: ~Copyable {
    public enum Outcome: Sendable, Equatable {
        /// The newest staged snapshot has all its chunks. `built`: by what this call did.
        case whole(built: Bool)
        /// Time is over; call again.
        case more
        /// Another builder is at work.
        case busy
        /// Somebody writes, or left a hot journal, or the file changed meanwhile: try later.
        case unsettled
    }

    let database: SpoolDatabase
    let source: Descriptor

    /// Opens the database file; throws ESTALE where another file stands at its path.
    public init(_ database: SpoolDatabase) throws(SystemError) {
        let source = try Descriptor(database.path, O_RDONLY)
        let status = try source.status()
        if status.device != database.device || status.inode != database.inode {
            throw SystemError("open", database.path, ESTALE)
        }
        self.database = database
        self.source = source
    }

    /// Works towards a whole snapshot until `deadline`.
    ///
    /// - Parameters:
    ///   - openIsDead: a transaction that is open without a writer's lock is not
    ///     just being staged: its process died. Until that is sure, such a state is `.unsettled`.
    ///   - removing: bytes of old epochs that may be removed; where there are more, it is `.more` before anything is built.
    ///   - isStored: whether every target has the chunk with this index and
    ///     fingerprint: then its bytes needn't be spooled.
    public borrowing func run(
        deadline: MonotonicTime?, openIsDead: Bool = false, removing most: Int64 = .max, isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) -> Outcome {
        for _ in 0..<3 {
            if let outcome = try runOnce(deadline, openIsDead, most, isStored) { return outcome }
            // Its remover died, since the builder's lock was free; and the file is here, since it is open.
            guard try database.replaceRetired(removing: most) else { return .busy }
        }
        return .busy
    }

    /// nil: the directory is marked as being removed, or its page was damaged and is gone.
    private borrowing func runOnce(
        _ deadline: MonotonicTime?, _ openIsDead: Bool, _ most: Int64, _ isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) -> Outcome? {
        let control = try database.makeControl()
        guard let lock = try database.builderLock() else { return .busy }
        defer { extendLifetime(lock) }

        guard let records = try SpoolControl.read(control.fd, path: database.controlPath) else {
            // Damaged: not something that a crash can leave. Start over beside it.
            try Files.remove(database.controlPath)
            return nil
        }
        if records.copier.retired != 0 { return nil }
        // What a transaction gave up for room, and left; whatever the state of the file is, and who has it open.
        if records.producer.otherBytes > 0 {
            guard try database.removeEpochs(except: records.neededEpochs, atMost: most) else { return .more }
        }
        let found = try SourceState.read(source.fd, path: database.path)

        let producer = records.producer
        let isTrusted = producer.staged.epoch > records.builder.distrusted
        if records.isCurrentTrusted && found.proves(records.current.state) {
            if records.isCurrentWhole { return .whole(built: false) }
            return try complete(control, records, found, deadline, most, isStored)
        }
        if producer.isOpen && isTrusted && producer.staged.epoch != 0 && !records.hasProposal {
            // A transaction is under way, or being staged, or was left.
            if try SourceLocks.isBeingWritten(source.fd, path: database.path) {
                if records.builder.epoch == producer.staged.epoch || records.isOvertaken { return .unsettled }
                return try complete(control, records, found, deadline, most, isStored)
            }
            if !openIsDead { return .unsettled }
        }
        return try propose(control, records, found, deadline, most, isStored)
    }

    // MARK: - The producer's epoch

    private borrowing func complete(
        _ control: borrowing Descriptor, _ before: SpoolControl, _ found: SourceState, _ deadline: MonotonicTime?, _ most: Int64,
        _ isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) -> Outcome {
        let epoch = before.producer.staged.epoch
        var keep: Set<UInt64> = [epoch]
        if before.isReadyPinned { keep.insert(before.producer.ready.epoch) }
        guard try database.removeEpochs(except: keep, atMost: most) else { return .more }
        if keep.count > 1 && before.producer.staged.sequence == 0 {
            // The transaction that began this epoch is open, and hasn't looked yet whether there is room for the ready one's.
            let kept = UInt64(max(0, database.allocatedBytes(ofEpoch: before.producer.ready.epoch)))
            if kept &+ found.length > SpoolProducer.mostBytes(found.length) { return .unsettled }
        }
        var work = try BaseWork(database, epoch, start: nil)
        let table = try EpochFiles.open(database, epoch)
        guard try work.copy(source, table: table, deadline: deadline, isStored) else { return .more }

        for _ in 0..<100 {
            guard let now = try SpoolControl.read(control.fd, path: database.controlPath) else { return .unsettled }
            guard now.producer.staged.epoch == epoch, epoch > now.builder.distrusted else { return .unsettled }
            var record = now.builder
            if now.producer.isOpen {
                record.validFrom = now.producer.begun
            } else {
                let state = try SourceState.read(source.fd, path: database.path)
                if !state.proves(now.producer.state) {
                    // A transaction may have begun between the two reads.
                    guard let again = try SpoolControl.read(control.fd, path: database.controlPath) else { return .unsettled }
                    if again.producer.begun != now.producer.begun || again.producer.staged != now.producer.staged { continue }
                    return .unsettled
                }
                record.validFrom = now.producer.staged.sequence
            }
            record.epoch = epoch
            record.poolBytes = work.poolBytes
            record.seenStaged = now.producer.staged
            record.seenBegun = now.producer.begun
            try work.publish()
            try SpoolControl.write(record, control.fd, path: database.controlPath)
            return .whole(built: true)
        }
        return .unsettled
    }

    // MARK: - An epoch of its own

    private borrowing func propose(
        _ control: borrowing Descriptor, _ before: SpoolControl, _ found: SourceState, _ deadline: MonotonicTime?, _ most: Int64,
        _ isStored: (Int, Fingerprint) -> Bool
    ) throws(SystemError) -> Outcome {
        guard try isAtRest(found) else { return .unsettled }
        let epoch = try database.unusedEpoch(after: before, parity: 0)
        guard try makeRoom(control, before, length: found.length, for: epoch, removing: most) else { return .more }
        var work = try BaseWork(database, epoch, start: found)
        guard try work.copy(source, table: nil, deadline: deadline, isStored) else { return .more }

        let after = try SourceState.read(source.fd, path: database.path)
        guard after.proves(found), try isAtRest(after),
            let now = try SpoolControl.read(control.fd, path: database.controlPath),
            now.producer.staged == before.producer.staged, now.producer.begun == before.producer.begun
        else {
            work.abandon()
            return .unsettled
        }
        var record = now.builder
        record.epoch = epoch
        record.validFrom = 0
        record.seenStaged = now.producer.staged
        record.seenBegun = now.producer.begun
        record.poolBytes = work.poolBytes
        record.state = after
        let time = wallClock()
        record.pendingSince = UInt64(time.seconds) &* 1_000_000_000 &+ UInt64(time.nanoseconds)
        try work.publish()
        try SpoolControl.write(record, control.fd, path: database.controlPath)
        return .whole(built: true)
    }

    /// S2, where no transaction comes to see to it: removes what nobody needs; then, while another full snapshot would be
    /// too much, gives up the oldest epoch, ready or not. All of them are of states that the file has left.
    /// False: that would be to remove more than `removing` bytes at a time.
    private borrowing func makeRoom(
        _ control: borrowing Descriptor, _ before: SpoolControl, length: UInt64, for epoch: UInt64, removing: Int64
    ) throws(SystemError) -> Bool {
        guard try database.removeEpochs(except: before.neededEpochs.union([epoch]), atMost: removing) else { return false }
        // Tables, and whole blocks of small files.
        let most = 4 * length + length / 256 + 131_072
        for other in try database.epochs().sorted() where other < epoch {
            var standing = length
            for number in try database.epochs() where number != epoch {
                standing &+= UInt64(max(0, database.allocatedBytes(ofEpoch: number)))
            }
            if standing <= most { return true }
            if database.allocatedBytes(ofEpoch: other) > removing { return false }
            guard let now = try SpoolControl.read(control.fd, path: database.controlPath) else { return true }
            // Before anything of it goes: whoever can't read it sees why.
            var record = now.builder
            record.distrusted = max(record.distrusted, other)
            try SpoolControl.write(record, control.fd, path: database.controlPath)
            try Files.removeTree(database.epochPath(other))
        }
        return true
    }

    /// Nobody writes, nothing is half written, and the last write is long enough
    /// ago to be told from the next one by mtime (which steps by up to 10 ms).
    private borrowing func isAtRest(_ state: SourceState) throws(SystemError) -> Bool {
        if state.modified.isYounger(than: 20_000_000, at: wallClock()) { return false }
        if try SourceLocks.isBeingWritten(source.fd, path: database.path) { return false }
        // In WAL mode the file alone is no database.
        if try source.isInWALMode() { return false }
        return try !SourceLocks.hasLiveJournal(database.path)
    }
}

extension Descriptor {
    /// Whether a database's header says so (SQLite file format, 1.3.3).
    package borrowing func isInWALMode() throws(SystemError) -> Bool {
        let header = try read(count: 20, at: 0)
        return header.starts(with: Array("SQLite format 3\0".utf8)) && header[18...].contains(2)
    }
}

extension SpoolDatabase {
    /// Whether the file at its path is, which is not replicated.
    package func isInWALMode() throws(SystemError) -> Bool { try Descriptor(path, O_RDONLY).isInWALMode() }

    /// The journal of a transaction that somebody began and nobody is at work on; nil where there is none, or it is under way.
    /// By two looks at the locks: an answer may be wrong where transactions come and go at this moment.
    package func abandonedJournal() throws(SystemError) -> FileStatus? {
        let source = try Descriptor(path, O_RDONLY)
        func isAtWork() throws(SystemError) -> Bool {
            if try SourceLocks.isReserved(source.fd, path: path) { return true }
            return try SourceLocks.isBeingWritten(source.fd, path: path)
        }
        if try isAtWork() { return nil }
        guard try SourceLocks.hasLiveJournal(path), let journal = try Files.status(SourceLocks.journal(path)) else { return nil }
        return try isAtWork() ? nil : journal
    }

    /// Declares the newest snapshot, and all before it, wrong: the next transaction
    /// or builder takes a full one. False where a builder is at work just now: call again later.
    public func distrust() throws(SystemError) -> Bool {
        guard let lock = try builderLock() else { return false }
        defer { extendLifetime(lock) }
        guard let control = try openControl(), let records = try SpoolControl.read(control.fd, path: controlPath) else {
            return true
        }
        var record = records.builder
        record.distrusted = max(record.distrusted, record.epoch, records.producer.staged.epoch)
        try SpoolControl.write(record, control.fd, path: controlPath)
        return true
    }
}

// MARK: - Audit

extension SpoolBuilder {
    public enum Verdict: Sendable, Equatable {
        case sound
        /// The chunk with this index differs from what was staged: an update was lost.
        case wrong(Int)
        /// The database was written meanwhile, or has no whole snapshot: nothing was learned.
        case unsettled
    }

    /// Compares chunks, chosen by `random` (which answers with a number below its argument), with what is staged.
    /// Takes no lock and disturbs nobody: an answer counts only if no transaction began meanwhile.
    ///
    /// - Parameter samples: how many; nil: all of them, and the length.
    public borrowing func audit(samples: Int?, random: (Int) -> Int) throws(SystemError) -> Verdict {
        guard let control = try database.openControl(),
            let before = try SpoolControl.read(control.fd, path: database.controlPath),
            before.isCurrentWhole, before.isCurrentTrusted
        else { return .unsettled }
        let state = try SourceState.read(source.fd, path: database.path)
        guard state.proves(before.current.state) else { return .unsettled }
        let snapshot: StagedSnapshot
        do throws(SystemError) {
            snapshot = try StagedSnapshot(database, before.current.point, before.current.state, pendingSince: 0)
        } catch {
            if error.code == ESTALE { return .unsettled }
            throw error
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Chunk.size, alignment: 4096)
        defer { buffer.deallocate() }
        for i in 0..<(samples ?? snapshot.chunks.count) where !snapshot.chunks.isEmpty {
            let index = samples == nil ? i : random(snapshot.chunks.count)
            let n = try source.read(into: buffer, at: Int64(index) * Int64(Chunk.size))
            let found = Chunk.fingerprint(UnsafeRawBufferPointer(rebasing: buffer[..<n]))
            if found == snapshot.chunks[index] { continue }
            guard let after = try SpoolControl.read(control.fd, path: database.controlPath) else { return .unsettled }
            let again = try SourceState.read(source.fd, path: database.path)
            let isStill =
                after.current.point == before.current.point && after.producer.begun == before.producer.begun
                && again.proves(state)
            return isStill ? .wrong(index) : .unsettled
        }
        return .sound
    }
}
