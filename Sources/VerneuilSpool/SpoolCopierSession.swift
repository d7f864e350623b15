import CVerneuil
import VerneuilFormat
import VerneuilSystem

// The consumer's side. Copiers exclude one another by a lock that producers
// don't know (R8); all that they ever tell a producer is "copied up to here".
//
// Which snapshot a copier may take (R9):
//
//   - the ready one, where it isn't copied yet: no producer touches it;
//   - else the newest one, s: it stays still as well, *if* no transaction
//     began since with an older idea of what is copied. So read the records, read the entries, read
//     the records again: s stands if no transaction has begun after s, or if s
//     was made ready meanwhile (which each transaction does at its begin, when the old ready
//     one is copied). Otherwise try again: the transaction that spoiled it
//     began before our last "copied" was visible, and the next one will make its
//     predecessor ready.

/// Exclusive access to one database's spool for uploading. Ends when it goes away, also by the process's death.
public final class SpoolCopierSession: Sendable {
    public let database: SpoolDatabase
    private let lock: FileLock
    private let control: Descriptor

    /// nil where another copier is at work, or nothing is spooled.
    public static func open(_ database: SpoolDatabase) throws(SystemError) -> SpoolCopierSession? {
        guard let control = try database.openControl() else { return nil }
        let path = database.copierLockPath
        guard let lock = try FileLock(database.spool.open(path)) else { return nil }
        // The last one to retire a database at this path removes the lock's file: that one, held, excludes nobody.
        guard let named = try Files.status(path), try lock.file.status().inode == named.inode else { return nil }
        return SpoolCopierSession(database: database, lock: lock, control: control)
    }

    private init(database: SpoolDatabase, lock: consuming FileLock, control: consuming Descriptor) {
        self.database = database
        self.lock = lock
        self.control = control
    }

    public func records() throws(SystemError) -> SpoolControl? {
        try SpoolControl.read(control.fd, path: database.controlPath)
    }

    /// A whole snapshot that is newer than `point`; nil where there is none (now).
    ///
    /// - Parameter point: what a target has; nil: what some target has.
    public func snapshot(after point: SpoolPoint? = nil) throws(SystemError) -> StagedSnapshot? {
        let known = point
        for attempt in 0..<4 {
            guard let before = try records(), before.copier.retired == 0 else { return nil }
            let producer = before.producer
            let current = before.current
            let known = known ?? before.copier.copied
            let isPinned = before.isReadyPinned && producer.ready > known
            let point: SpoolPoint
            let state: SourceState
            if isPinned {
                point = producer.ready
                state = producer.readyState
            } else {
                guard before.isCurrentWhole, current.point > known,
                    current.point.epoch > before.builder.distrusted
                else { return nil }
                // The transaction that spoiled it is still open: its end is told to somebody.
                if attempt > 0 && !before.hasProposal && producer.isOpen { return nil }
                point = current.point
                state = current.state
            }
            let taken: StagedSnapshot
            do throws(SystemError) {
                taken = try StagedSnapshot(database, point, state, pendingSince: before.pendingSince ?? 0)
            } catch {
                // A transaction is overwriting it, or has cut it short, or it was given up: so it is no damage.
                guard error.code == ESTALE, try !stands(point) else { throw error }
                continue
            }
            guard let after = try records() else { return nil }
            if after.producer.ready == point { return taken }
            if !isPinned {
                let stillNewest =
                    after.hasProposal
                    ? after.current.point == point
                    : after.producer.staged == point && !after.producer.isOpen
                if stillNewest { return taken }
            }
        }
        return nil
    }

    /// Whether producers still keep what belongs to `point`, so that whatever of it can't be read is damaged.
    public func stands(_ point: SpoolPoint) throws(SystemError) -> Bool {
        guard let now = try records() else { return false }
        // A builder that needed the room gave it up.
        if point.epoch <= now.builder.distrusted { return false }
        return now.producer.ready == point || (now.current.point == point && (now.hasProposal || !now.producer.isOpen))
    }

    /// Records that everything up to `point` is stored: on some target, so that
    /// producers may go on, or `everywhere`.
    public func finish(_ point: SpoolPoint, everywhere: Bool) throws(SystemError) {
        try advance(copied: point, everywhere: everywhere ? point : .none)
    }

    /// Records how far the targets are. What was recorded before is never taken back.
    ///
    /// - Parameters:
    ///   - copied: producers need keep nothing older still.
    ///   - everywhere: every target has this.
    public func advance(copied: SpoolPoint, everywhere: SpoolPoint) throws(SystemError) {
        guard let records = try records() else { return }
        var record = records.copier
        if copied > record.copied || everywhere > record.everywhere {
            record.copied = max(record.copied, copied, everywhere)
            record.everywhere = max(record.everywhere, everywhere)
            let now = wallClock()
            record.lastSuccess = UInt64(now.seconds) &* 1_000_000_000 &+ UInt64(now.nanoseconds)
            try SpoolControl.write(record, control.fd, path: database.controlPath)
        }
        // What the full snapshot brought is stored everywhere, in this version or a later one.
        if records.builder.epoch == record.everywhere.epoch && records.builder.validFrom <= record.everywhere.sequence {
            try? Files.remove("\(database.epochPath(record.everywhere.epoch))/base.pool")
        }
        try removeOldEpochs()
    }

    /// Removes epochs that nobody can come back to.
    public func removeOldEpochs() throws(SystemError) {
        guard let records = try records() else { return }
        try database.removeEpochs(except: records.neededEpochs)
    }

    /// Removes epochs after the newest one that were begun, and never announced in a record, because their process died.
    /// Where a full snapshot is wanted they stay: a builder goes on with them.
    ///
    /// Why none that lives is removed: builders make theirs under the builder's lock, which is held here; a producer holds
    /// EXCLUSIVE from before it makes the directory until its record says so, and the record is read after nobody did.
    func removeAbandonedEpochs() throws(SystemError) {
        guard let before = try records(), before.isCurrentWhole, before.isCurrentTrusted else { return }
        let newest = before.neededEpochs.max() ?? 0
        let later = try database.epochs().filter { $0 > newest }
        if later.isEmpty { return }
        guard let builder = try database.builderLock() else { return }
        defer { extendLifetime(builder) }
        let source = try Descriptor(database.path, O_RDONLY)
        if try SourceLocks.isBeingWritten(source.fd, path: database.path) { return }
        guard let now = try records(), now.isCurrentWhole, now.isCurrentTrusted else { return }
        for epoch in later where !now.neededEpochs.contains(epoch) { try Files.removeTree(database.epochPath(epoch)) }
    }

    /// Removes the database's directory: its file is gone, or another one is at its path.
    /// Producers that still have it open see the mark, and make a new one. False where a builder is at work: nothing is removed.
    ///
    /// - Parameter manifestName: of what was uploaded from its path: the manifest that is kept of it goes as well, unless another file
    ///   is spooled at that path.
    @discardableResult
    public func retire(manifestName: String? = nil) throws(SystemError) -> Bool {
        guard let builder = try database.builderLock() else { return false }
        defer { extendLifetime(builder) }
        // First: once the directory has no name, nobody comes back for it.
        if let manifestName, try otherNames().allSatisfy({ $0 == Files.lastComponent(of: database.directory) }) {
            try Files.remove(database.spool.tapPath(manifestName))
        }
        var record = try records()?.copier ?? CopierRecord()
        record.retired = 1
        try SpoolControl.write(record, control.fd, path: database.controlPath)
        let away = Files.temporaryName(beside: database.directory)
        try Files.rename(database.directory, to: away)
        try Files.removeTree(away)
        // Nothing else was ever at this path: what is known of its manifest goes as well, and the lock's name last.
        let parent = database.pathDirectory
        if try otherNames().isEmpty {
            for name in try Files.list(parent) where name != "copier.lock" { try Files.remove("\(parent)/\(name)") }
            try Files.remove(database.copierLockPath)
            _ = vrn_rmdir(parent)
        }
        return true
    }

    /// What is in the path's directory, beside what is known of its manifest.
    private func otherNames() throws(SystemError) -> [String] {
        try Files.list(database.pathDirectory).filter { name in
            !(name.hasPrefix(".tmp.") || name == "copier.lock" || name == "hurry" || name.hasPrefix("lineage.") || name.hasPrefix("takeover."))
        }
    }
}
