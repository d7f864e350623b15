import VerneuilFormat
import VerneuilSystem

/// Puts what copiers upload into a cache, on a thread of its own: they hear that a chunk is stored on the network's thread,
/// and all stores of the process wait while that one waits for a disk.
///
/// It is only a cache: chunks that come faster than its disk takes them are left out, and so is what still waits when the
/// process ends. The thread starts with the first chunk and ends after some idle seconds.
/// Safe from any thread. A child of fork(2) makes its own, and leaks what its parent had waiting.
public final class CacheFiller: Sendable {
    private typealias Publish = @Sendable (Fingerprint, [UInt8]) -> Void

    private final class Backlog: @unchecked Sendable {
        let lock = Lock()
        // Under the lock:
        var chunks = Queue<(name: Fingerprint, bytes: [UInt8])>()
        /// Of those that wait, and of the one that is being written.
        var bytes = 0
        var hasThread = false
    }

    private let publish: Publish
    private let limit: Int
    private let local = ProcessLocal<Backlog>()

    /// What may wait, in bytes: 128 chunks, more than are on their way to a store at one time. One chunk may always.
    private static let limit = 8 << 20

    public convenience init(_ cache: CacheDirectory) {
        self.init(limit: Self.limit) { cache.publish($0, $1) }
    }

    /// - Parameter publish: may take its time.
    package init(limit: Int, _ publish: @escaping @Sendable (Fingerprint, [UInt8]) -> Void) {
        self.limit = limit
        self.publish = publish
    }

    /// Never waits.
    /// - Parameter bytes: must be what the fingerprint says.
    public func add(_ name: Fingerprint, _ bytes: [UInt8]) {
        let backlog = local.value { Backlog() }
        backlog.lock.withLock {
            guard backlog.bytes == 0 || backlog.bytes + bytes.count <= limit else { return }
            if !backlog.hasThread {
                do throws(SystemError) {
                    try Threads.spawn("verneuil-cache") { self.run(backlog) }
                } catch {
                    return
                }
                backlog.hasThread = true
            }
            backlog.bytes += bytes.count
            backlog.chunks.append((name, bytes))
            backlog.lock.broadcast()
        }
    }

    /// Waits until all that was added is in the cache, but not for long: for programs that end.
    public func finish(within seconds: Double) {
        guard let backlog = local.existing else { return }
        let deadline = MonotonicTime.now.advanced(seconds: seconds)
        backlog.lock.withLock {
            while backlog.bytes > 0, MonotonicTime.now < deadline { backlog.lock.wait(until: deadline) }
        }
    }

    private func run(_ backlog: Backlog) {
        let lock = backlog.lock
        lock.lock()
        while true {
            if let next = backlog.chunks.popFirst() {
                lock.unlock()
                publish(next.name, next.bytes)
                lock.lock()
                backlog.bytes -= next.bytes.count
                if backlog.bytes == 0 { lock.broadcast() }
                continue
            }
            let woken = lock.wait(until: MonotonicTime.now.advanced(seconds: 5))
            if !woken, backlog.bytes == 0 {
                backlog.hasThread = false
                lock.unlock()
                return
            }
        }
    }
}
