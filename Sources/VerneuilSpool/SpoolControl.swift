import CVerneuil
import VerneuilFormat
import VerneuilSystem

// The control page: 4 KiB at the head of each database's spooling directory,
// shared by every producer, builder and copier of that database, on one
// machine, during one boot. docs/SPOOL.md has the whole protocol; what this file promises is:
//
// 1. Each record has one kind of writer, and its writers are serialised by
//    something that nobody else shares: the producer's record by SQLite's
//    EXCLUSIVE lock on the database (and the SHARED lock that it turns into),
//    the builder's by the builder lock, the copier's by the copier lock. A
//    producer takes neither of the latter, so no copier can make it wait (S1).
// 2. A record is written with one pwrite(2) and carries a check over its words:
//    a reader that catches it half written sees so, and reads again.
// 3. Nothing is ever removed by rewriting: who reads a stale record learns of
//    an older state that was true, never of one that was not.

/// A point in a database's history on this machine: `epoch` is an unbroken
/// chain of snapshots, each built on the one before; `sequence` counts the
/// write transactions in it. Ordered as they happened.
public struct SpoolPoint: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var epoch: UInt64
    public var sequence: UInt64
    @inline(__always)
    public init(_ epoch: UInt64, _ sequence: UInt64) {
        self.epoch = epoch
        self.sequence = sequence
    }
    /// Before everything.
    public static let none = SpoolPoint(0, 0)
    @inline(__always)
    public static func < (a: SpoolPoint, b: SpoolPoint) -> Bool {
        a.epoch < b.epoch || (a.epoch == b.epoch && a.sequence < b.sequence)
    }
    /// After which this one is the first.
    public var predecessor: SpoolPoint {
        if sequence > 0 { return SpoolPoint(epoch, sequence - 1) }
        return epoch > 0 ? SpoolPoint(epoch - 1, .max) : .none
    }
    public var description: String { "\(epoch).\(sequence)" }
}

/// Written by producers: the transaction that is staged, the one that may be
/// under way, and the snapshot that is kept still for copiers.
public struct ProducerRecord: Sendable {
    /// The newest staged transaction.
    public var staged = SpoolPoint.none
    /// Its number plus one while a transaction writes to the database, else equal.
    /// Where they differ and nobody writes, the writer died or failed: doubt.
    public var begun: UInt64 = 0
    /// The snapshot that no producer may disturb until a copier has it.
    public var ready = SpoolPoint.none
    /// Bytes of chunk data written in this epoch (each place counted once), and at most as many in others.
    public var poolBytes: UInt64 = 0
    public var otherBytes: UInt64 = 0
    /// When the oldest transaction that isn't on every target was committed; nanoseconds since 1970.
    public var pendingSince: UInt64 = 0
    /// The same for the oldest one that is on no target.
    public var freshSince: UInt64 = 0
    /// Transactions committed through this VFS since boot, for status.
    public var transactions: UInt64 = 0
    /// Bytes of chunks that transactions fingerprinted since boot: what commits cost beyond system calls.
    public var hashedBytes: UInt64 = 0
    public var state = SourceState()
    public var readyState = SourceState()

    public init() {}
    public var isOpen: Bool { begun != staged.sequence }
}

/// Written by builders: the full snapshot that an epoch's transactions build on.
public struct BuilderRecord: Sendable {
    public var epoch: UInt64 = 0
    /// The epoch's snapshots are whole from this transaction on.
    public var validFrom: UInt64 = 0
    /// For an epoch that a builder begins: what the producer's record was.
    /// Once that has moved on without adopting the epoch, it is void.
    public var seenStaged = SpoolPoint.none
    public var seenBegun: UInt64 = 0
    public var poolBytes: UInt64 = 0
    public var pendingSince: UInt64 = 0
    /// Epochs up to this one hold something that can't be right.
    public var distrusted: UInt64 = 0
    /// Of the database, for an epoch that a builder begins.
    public var state = SourceState()
    public init() {}
}

/// Written by copiers.
public struct CopierRecord: Sendable {
    /// Everything up to here is on those targets that answer: producers need keep nothing older still.
    public var copied = SpoolPoint.none
    /// Everything up to here is on every target.
    public var everywhere = SpoolPoint.none
    /// Not 0: this directory is being removed; open the database's anew.
    public var retired: UInt64 = 0
    /// Nanoseconds since 1970.
    public var lastSuccess: UInt64 = 0
    public init() {}
}

/// The three records as one read found them.
public struct SpoolControl: Sendable {
    public var producer = ProducerRecord()
    public var builder = BuilderRecord()
    public var copier = CopierRecord()
    /// When one of them was last written, by the clock that runs from boot on: nobody sets it, and all processes have the same.
    public private(set) var written = MonotonicTime(nanoseconds: 0)

    public init() {}

    /// For how long nothing has been spooled or stored, in seconds; nil: nothing ever was.
    public func idleSeconds(at now: MonotonicTime) -> Double? {
        written.nanoseconds == 0 ? nil : now.seconds(since: written)
    }

    /// Whether the builder's record announces an epoch that the producer hasn't entered, and still may.
    public var hasProposal: Bool {
        builder.epoch > producer.staged.epoch && builder.seenStaged == producer.staged
            && builder.seenBegun == producer.begun
    }

    /// Epochs in which something stands that is, or may be, used.
    var neededEpochs: Set<UInt64> {
        var epochs: Set<UInt64> = [producer.staged.epoch]
        if hasProposal { epochs.insert(builder.epoch) }
        if isReadyPinned { epochs.insert(producer.ready.epoch) }
        return epochs
    }

    /// The largest number that an epoch has had.
    var newestEpoch: UInt64 {
        max(producer.staged.epoch, producer.ready.epoch, builder.epoch, copier.copied.epoch)
    }

    /// The newest staged state: where it is, and what the file was then.
    public var current: (point: SpoolPoint, state: SourceState) {
        hasProposal
            ? (SpoolPoint(builder.epoch, builder.validFrom), builder.state) : (producer.staged, producer.state)
    }

    /// Whether the newest staged state has all its chunks.
    public var isCurrentWhole: Bool {
        if hasProposal { return true }
        return producer.staged.epoch != 0 && builder.epoch == producer.staged.epoch
            && builder.validFrom <= producer.staged.sequence
    }

    /// Whether a snapshot waits that producers keep still.
    public var isReadyPinned: Bool { producer.ready > copier.copied && producer.ready.epoch > builder.distrusted }

    /// Whether a builder took an open transaction for dead that was only slow, and began an epoch, and after that the
    /// transaction was staged in its own. That epoch's numbers are behind what is, or may be, stored: nothing
    /// more is numbered in it, or it would pass for stored already.
    public var isOvertaken: Bool {
        !hasProposal && max(builder.epoch, copier.copied.epoch) > producer.staged.epoch
    }

    /// Whether the current epoch may be built upon.
    public var isCurrentTrusted: Bool {
        let point = current.point
        return point.epoch > builder.distrusted && !isOvertaken && (hasProposal || !producer.isOpen)
    }

    /// When the oldest commit not yet stored everywhere was made, nanoseconds since 1970; nil: all is stored.
    public var pendingSince: UInt64? { pendingSince(after: copier.everywhere) }

    /// The same for a target that has everything up to `stored`; at most a little early where it is neither the
    /// first nor the last of the targets.
    public func pendingSince(after stored: SpoolPoint) -> UInt64? {
        let point = current.point
        if point.epoch == 0 || (point <= stored && !isOvertaken) { return nil }
        let behindAll = stored < copier.copied || isOvertaken
        let waiting = behindAll ? producer.pendingSince : producer.freshSince
        // What a builder found was there before it looked.
        if hasProposal {
            let producerWaits = producer.staged > stored && waiting != 0
            return producerWaits ? min(waiting, builder.pendingSince) : builder.pendingSince
        }
        return waiting == 0 ? nil : waiting
    }
}

// MARK: - On disk

extension SpoolControl {
    static let pageSize = 4096
    static let producerOffset = 0
    static let builderOffset = 1024
    static let copierOffset = 2048
    /// The first word of each record is the check over the others, the last one says when it was written: ns since boot.
    static let producerWords = 13 + 2 * SourceState.words
    static let builderWords = 10 + SourceState.words
    static let copierWords = 8

    /// Reads the page at `fd`; nil where a record stays torn or isn't one.
    static func read(_ fd: Int32, path: @autoclosure () -> String) throws(SystemError) -> SpoolControl? {
        let room = UnsafeMutableRawPointer.allocate(byteCount: pageSize, alignment: 8)
        defer { room.deallocate() }
        return try read(fd, path: path(), room: room)
    }

    /// The same; `room` is for the page, aligned to 8.
    static func read(
        _ fd: Int32, path: @autoclosure () -> String, room: UnsafeMutableRawPointer
    ) throws(SystemError) -> SpoolControl? {
        for attempt in 0..<20 {
            var control = SpoolControl()
            let n = try SystemError.check(vrn_pread(fd, room, pageSize, 0), "pread", path())
            guard n == pageSize else { return nil }
            let page = room.bindMemory(to: UInt64.self, capacity: pageSize / 8)
            if control.decode(UnsafePointer(page)) { return control }
            if attempt > 3 { Threads.pause(microseconds: 100 << UInt32(min(attempt, 7))) }
        }
        return nil
    }

    private mutating func decode(_ page: UnsafePointer<UInt64>) -> Bool {
        let p = page + Self.producerOffset / 8
        let b = page + Self.builderOffset / 8
        let c = page + Self.copierOffset / 8
        guard Self.isSound(p, Self.producerWords), Self.isSound(b, Self.builderWords), Self.isSound(c, Self.copierWords)
        else { return false }
        producer.staged = SpoolPoint(p[1], p[2])
        producer.begun = p[3]
        producer.ready = SpoolPoint(p[4], p[5])
        producer.poolBytes = p[6]
        producer.otherBytes = p[7]
        producer.pendingSince = p[8]
        producer.transactions = p[9]
        producer.hashedBytes = p[10]
        producer.freshSince = p[11]
        producer.state.decode(p + 12)
        producer.readyState.decode(p + 12 + SourceState.words)
        builder.epoch = b[1]
        builder.validFrom = b[2]
        builder.seenStaged = SpoolPoint(b[3], b[4])
        builder.seenBegun = b[5]
        builder.poolBytes = b[6]
        builder.pendingSince = b[7]
        builder.distrusted = b[8]
        builder.state.decode(b + 9)
        copier.copied = SpoolPoint(c[1], c[2])
        copier.retired = c[3]
        copier.lastSuccess = c[4]
        copier.everywhere = SpoolPoint(c[5], c[6])
        let last = max(p[Self.producerWords - 1], b[Self.builderWords - 1], c[Self.copierWords - 1])
        written = MonotonicTime(nanoseconds: last)
        return true
    }

    /// A record of zeros was never written, and means that nothing is there.
    @inline(__always)
    private static func isSound(_ record: UnsafePointer<UInt64>, _ words: Int) -> Bool {
        let sum = check(record, words)
        if sum == record[0] { return true }
        if record[0] != 0 { return false }
        for i in 1..<words where record[i] != 0 { return false }
        return true
    }

    @inline(__always)
    static func check(_ record: UnsafePointer<UInt64>, _ words: Int) -> UInt64 {
        let sum = FingerprintKey.directory.fingerprint(UnsafeRawBufferPointer(start: record + 1, count: (words - 1) * 8))
        return sum.primary ^ sum.secondary | 1
    }

    static func write(_ record: ProducerRecord, _ fd: Int32, path: @autoclosure () -> String) throws(SystemError) {
        try write(fd, producerOffset, producerWords, path: path()) { p in
            p[1] = record.staged.epoch
            p[2] = record.staged.sequence
            p[3] = record.begun
            p[4] = record.ready.epoch
            p[5] = record.ready.sequence
            p[6] = record.poolBytes
            p[7] = record.otherBytes
            p[8] = record.pendingSince
            p[9] = record.transactions
            p[10] = record.hashedBytes
            p[11] = record.freshSince
            record.state.encode(p + 12)
            record.readyState.encode(p + 12 + SourceState.words)
        }
    }

    static func write(_ record: BuilderRecord, _ fd: Int32, path: @autoclosure () -> String) throws(SystemError) {
        try write(fd, builderOffset, builderWords, path: path()) { b in
            b[1] = record.epoch
            b[2] = record.validFrom
            b[3] = record.seenStaged.epoch
            b[4] = record.seenStaged.sequence
            b[5] = record.seenBegun
            b[6] = record.poolBytes
            b[7] = record.pendingSince
            b[8] = record.distrusted
            record.state.encode(b + 9)
        }
    }

    static func write(_ record: CopierRecord, _ fd: Int32, path: @autoclosure () -> String) throws(SystemError) {
        try write(fd, copierOffset, copierWords, path: path()) { c in
            c[1] = record.copied.epoch
            c[2] = record.copied.sequence
            c[3] = record.retired
            c[4] = record.lastSuccess
            c[5] = record.everywhere.epoch
            c[6] = record.everywhere.sequence
        }
    }

    @inline(__always)
    private static func write(
        _ fd: Int32, _ offset: Int, _ words: Int, path: @autoclosure () -> String,
        _ fill: (UnsafeMutablePointer<UInt64>) -> Void
    ) throws(SystemError) {
        let n = withUnsafeTemporaryAllocation(of: UInt64.self, capacity: words) { buffer in
            buffer.initialize(repeating: 0)
            let base = buffer.baseAddress.unsafelyUnwrapped
            fill(base)
            base[words - 1] = MonotonicTime.now.nanoseconds
            base[0] = check(base, words)
            return vrn_pwrite(fd, base, words * 8, Int64(offset))
        }
        try SystemError.check(n, "pwrite", path())
        if n != words * 8 { throw SystemError("pwrite", path(), ENOSPC) }
    }
}

extension SourceState {
    /// Words of the state in a record.
    static let words = 15

    @inline(__always)
    mutating func decode(_ w: UnsafePointer<UInt64>) {
        device = w[0]
        inode = w[1]
        length = w[2]
        modified = FileTime(seconds: Int64(bitPattern: w[3]), nanoseconds: Int64(bitPattern: w[4]))
        changed = FileTime(seconds: Int64(bitPattern: w[5]), nanoseconds: Int64(bitPattern: w[6]))
        header = Fingerprint(primary: w[7], secondary: w[8])
        tag.count = w[9]
        tag.words = (w[10], w[11], w[12], w[13], w[14])
    }

    @inline(__always)
    func encode(_ w: UnsafeMutablePointer<UInt64>) {
        w[0] = device
        w[1] = inode
        w[2] = length
        w[3] = UInt64(bitPattern: modified.seconds)
        w[4] = UInt64(bitPattern: modified.nanoseconds)
        w[5] = UInt64(bitPattern: changed.seconds)
        w[6] = UInt64(bitPattern: changed.nanoseconds)
        w[7] = header.primary
        w[8] = header.secondary
        w[9] = tag.count
        w[10] = tag.words.0
        w[11] = tag.words.1
        w[12] = tag.words.2
        w[13] = tag.words.3
        w[14] = tag.words.4
    }
}
