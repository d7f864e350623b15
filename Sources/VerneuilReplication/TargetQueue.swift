import CVerneuil
import Logging
import Synchronization
import VerneuilSpool
import VerneuilSystem

/// One target's work: which database is due when, and up to `workers` threads
/// that see to it, started with the first need. Each target has its own: a
/// server that doesn't answer holds up the threads of its own target only.
final class TargetQueue: @unchecked Sendable {
    private let replicator: Replicator
    private let pass: @Sendable (SpoolDatabase) -> Double?
    private let interval: Double

    // Guarded by `lock`.
    private let lock = Lock()
    private var due: [SpoolDatabase: MonotonicTime] = [:]
    private var running: Set<SpoolDatabase> = []
    private var threads = 0
    private var idle = 0
    /// The last one that was wanted could not be had.
    private var lacksThread = false

    /// - Parameter pass: one pass over a database; answers after how many seconds to come again, nil: when asked.
    init(_ replicator: Replicator, pass: @escaping @Sendable (SpoolDatabase) -> Double?) {
        self.replicator = replicator
        self.pass = pass
        interval = replicator.options.passInterval
    }

    /// False: there is no thread at all, nor could one be started. Then ask again: nobody else does.
    func schedule(_ database: SpoolDatabase, after seconds: Double) -> Bool {
        lock.withLock {
            let at = MonotonicTime.now.advanced(seconds: seconds)
            if let planned = due[database], planned <= at {
                // Already due at that time or before: the thread that waits for it knows, if there is one.
                if !lacksThread { return true }
            } else {
                due[database] = at
            }
            // Who is at it looks again when he is done.
            if running.contains(database) { return true }
            if idle > 0 { lock.signal() } else if threads < replicator.options.workers { startThread() }
            return threads > 0
        }
    }

    /// Copiers of all engines of this process, with its pid above: a forked child has none.
    private static let copiersOfProcess = Atomic<UInt64>(0)
    /// Beyond the first of each queue, which it can't do without. Queues are
    /// many only where connections name many targets (CONFIGURATION.md).
    private static let mostCopiersOfProcess: UInt64 = 32

    /// Counts a new copier; false where there are enough.
    private static func countCopier(isFirst: Bool) -> Bool {
        let pid = UInt64(UInt32(bitPattern: getpid())) << 32
        var found = copiersOfProcess.load(ordering: .relaxed)
        while true {
            let count = found & ~0xFFFF_FFFF == pid ? found & 0xFFFF_FFFF : 0
            if !isFirst && count >= mostCopiersOfProcess { return false }
            let (exchanged, original) = copiersOfProcess.compareExchange(
                expected: found, desired: pid | (count + 1), ordering: .relaxed)
            if exchanged { return true }
            found = original
        }
    }

    private func startThread() {
        guard Self.countCopier(isFirst: threads == 0) else { return }
        do throws(SystemError) {
            try Threads.spawn("verneuil-copy") { self.loop() }
            threads += 1
            lacksThread = false
        } catch {
            lacksThread = true
            Self.copiersOfProcess.wrappingSubtract(1, ordering: .relaxed)
            if replicator.isNews(error) { replicator.logger.error("a copier can't be started", metadata: ["error": "\(error)"]) }
        }
    }

    private func loop() {
        lock.lock()
        while true {
            var next: (database: SpoolDatabase, at: MonotonicTime)?
            for (database, at) in due where !running.contains(database) {
                if next.map({ at < $0.at }) ?? true { next = (database, at) }
            }
            guard let next, next.at <= MonotonicTime.now else {
                idle += 1
                if let next { lock.wait(until: next.at) } else { lock.wait() }
                idle -= 1
                continue
            }
            due[next.database] = nil
            running.insert(next.database)
            lock.unlock()
            let again = pass(next.database)
            lock.lock()
            running.remove(next.database)
            let now = MonotonicTime.now
            if let planned = due[next.database] {
                due[next.database] = max(planned, now.advanced(seconds: min(interval, again ?? interval)))
            } else if let again {
                due[next.database] = now.advanced(seconds: again)
            }
        }
    }
}
