import CVerneuil
import VerneuilFormat
import VerneuilReplica
import VerneuilSystem

/// A connection to a replica, and the snapshot that it uses. SQLite calls it
/// from one thread at a time.
final class SnapshotConnection {
    let replica: Replica
    /// For messages.
    let name: String
    /// `immutable` or `nolock` in the URI: SQLite doesn't say where transactions
    /// begin, so that the snapshot can't ever change.
    let isFrozen: Bool
    var autoRefresh = false
    private(set) var snapshot: Snapshot

    private var ahead: ReadAhead
    private var header = SnapshotHeader()
    /// Whether a transaction has used this snapshot.
    private var isUsed = false

    init(_ replica: Replica, _ snapshot: Snapshot, name: String, isFrozen: Bool) {
        self.replica = replica
        self.snapshot = snapshot
        self.name = name
        self.isFrozen = isFrozen
        ahead = ReadAhead(count: snapshot.chunkCount, parallelism: snapshot.parallelism)
    }

    /// Lets xRead and xFetch see what is in use.
    func publish(to file: UnsafeMutablePointer<vrn_snapshot_file>) {
        file.pointee.slots = UnsafePointer(snapshot.slots)
        file.pointee.length = Int64(clamping: snapshot.length)
        file.pointee.patched = header.isPatched ? SnapshotHeader.size : 0
        file.pointee.ahead = UInt64(ahead.trigger.lowerBound)
        file.pointee.ahead_count = UInt64(ahead.trigger.count)
    }

    // MARK: Snapshots

    /// Moves on to the newest known snapshot, where that is allowed now.
    /// - Returns: whether there was another one.
    func switchToNewest(for file: UnsafeMutablePointer<vrn_snapshot_file>) -> Bool {
        guard file.pointee.lock == SQLITE_LOCK_NONE, file.pointee.fetched == 0, !isFrozen,
            let newest = replica.newest, newest !== snapshot
        else { return false }
        if isUsed { header.leave(snapshot) }
        isUsed = false
        snapshot = newest
        ahead = ReadAhead(count: newest.chunkCount, parallelism: newest.parallelism)
        publish(to: file)
        return true
    }

    func beginTransaction(for file: UnsafeMutablePointer<vrn_snapshot_file>) -> Int32 {
        if autoRefresh {
            replica.refreshIfDue()
            _ = switchToNewest(for: file)
        }
        guard !isUsed else { return SQLITE_OK }
        do throws(ReplicaError) {
            try header.enter(snapshot)
        } catch {
            SnapshotVFS.report(VRN_IOERR_READ, "\(name): \(error)")
            return VRN_IOERR_READ
        }
        isUsed = true
        publish(to: file)
        return SQLITE_OK
    }

    // MARK: Reading

    /// What xRead can't do by looking alone: waiting for chunks, reading ahead,
    /// the end of the file, the header.
    func read(
        _ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, for file: UnsafeMutablePointer<vrn_snapshot_file>
    ) -> Int32 {
        let present = offset < snapshot.length ? Int(min(UInt64(buffer.count), snapshot.length - offset)) : 0
        var done = 0
        do throws(ReplicaError) {
            while done < present, let target = buffer.baseAddress {
                let position = offset + UInt64(done)
                let within = Int(position % UInt64(Chunk.size))
                let count = min(present - done, Chunk.size - within)
                let address = try load(Int(position / UInt64(Chunk.size)), at: position, for: file)
                if let source = UnsafeRawPointer(bitPattern: address) { memcpy(target + done, source + within, count) }
                done += count
            }
        } catch {
            SnapshotVFS.report(VRN_IOERR_READ, "\(name): \(error)")
            return VRN_IOERR_READ
        }
        if header.patch(UnsafeMutableRawBufferPointer(rebasing: buffer[..<present]), at: offset) { publish(to: file) }
        if present == buffer.count { return SQLITE_OK }
        UnsafeMutableRawBufferPointer(rebasing: buffer[present...]).initializeMemory(as: UInt8.self, repeating: 0)
        return VRN_IOERR_SHORT_READ
    }

    /// Where chunk `i` is; waits for it, and has others loaded that will be wanted next.
    /// - Parameter position: what is read, in bytes of the database.
    private func load(
        _ i: Int, at position: UInt64, for file: UnsafeMutablePointer<vrn_snapshot_file>
    ) throws(ReplicaError) -> UInt {
        let loaded = snapshot.loadedAddress(ofChunk: i)
        let trigger = ahead.trigger
        let next: Range<Int>
        if loaded != nil {
            next = ahead.touched(i)
        } else {
            // First on its way, before what is not needed yet.
            snapshot.request(i)
            snapshot.loadTreeAhead(missed: position)
            next = ahead.missed(i) { snapshot.run(before: i, limit: $0) }
        }
        snapshot.loadAhead(next)
        if ahead.trigger != trigger { publish(to: file) }
        if let loaded { return loaded }
        return try snapshot.address(ofChunk: i)
    }
}
