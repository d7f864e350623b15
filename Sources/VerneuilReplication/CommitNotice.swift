import CVerneuil
import Synchronization
import VerneuilSpool

// What a commit tells the background threads. Nearly always they know already:
// a pass over the database is due, and so is an audit. Then telling them again
// is two operations on words of memory: no lock, no allocation, and no thread
// that wakes up beside the commit to find that there is nothing to do yet.
//
// No commit is missed: it is staged before its word is set, and whoever acts
// on the word clears it before it looks at what is staged.

/// One database's commits in one process. Safe from any thread.
final class CommitNotice: Sendable {
    private let database: SpoolDatabase
    /// Owned by the replicator, which outlives its trackers and threads.
    private unowned let engine: CopyEngine
    /// Whose threads are told: in a forked child, they aren't there.
    let process: pid_t

    private let isCopyDue = Atomic<Bool>(false)
    private let stagedChunks = Atomic<Int>(0)
    private let helpedEpoch = Atomic<UInt64>(0)

    init(_ database: SpoolDatabase, _ engine: CopyEngine, process: pid_t) {
        self.database = database
        self.engine = engine
        self.process = process
    }

    /// A transaction is staged.
    @inline(__always)
    func didStage(chunks: Int) {
        // Where there is no thread to be had just now, the next commit tells it again.
        if stagedChunks.add(max(1, chunks), ordering: .relaxed).oldValue == 0, !engine.scheduleAudit(database) { _ = takeStagedChunks() }
        if !isCopyDue.exchange(true, ordering: .acquiringAndReleasing), !engine.noteCommit(database) { beginsPass() }
    }

    /// Whether a commit may spend its budget on the full snapshot of this epoch: the first one that finds it unfinished. Those
    /// after it leave it to the thread that was started then: they would only keep it from its work.
    func mayHelp(_ epoch: UInt64) -> Bool { helpedEpoch.exchange(epoch, ordering: .relaxed) != epoch }

    /// A pass begins: what is staged from here on wants another one.
    func beginsPass() { _ = isCopyDue.exchange(false, ordering: .acquiringAndReleasing) }

    /// How many chunks were staged since the last call.
    func takeStagedChunks() -> Int { stagedChunks.exchange(0, ordering: .relaxed) }

    /// As `didStage`, for an audit that could not be finished.
    func addStagedChunks(_ count: Int) { stagedChunks.add(count, ordering: .relaxed) }
}
