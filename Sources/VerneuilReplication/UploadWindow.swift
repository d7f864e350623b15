import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// How many PUTs are in flight, how many are done, and the first failure among them.
final class UploadWindow: @unchecked Sendable {
    private let lock = Lock()
    private var inFlight = 0
    private var succeeded = 0
    private var first: StoreError?

    var failure: StoreError? { lock.withLock { first } }
    var done: Int { lock.withLock { succeeded } }

    /// Waits until fewer than `limit` are in flight.
    func enter(limit: Int) {
        lock.withLock {
            while inFlight >= max(1, limit) { lock.wait() }
            inFlight += 1
        }
    }
    func leave(_ failure: StoreError?) {
        lock.withLock {
            inFlight -= 1
            if failure == nil { succeeded += 1 }
            if first == nil { first = failure }
            lock.broadcast()
        }
    }
    /// Waits until nothing is in flight, and calls `body` about once a second meanwhile.
    func drain(_ body: () -> Void = {}) {
        while true {
            let isDone = lock.withLock { () -> Bool in
                if inFlight > 0 { lock.wait(until: MonotonicTime.now.advanced(seconds: 1)) }
                return inFlight == 0
            }
            if isDone { return }
            body()
        }
    }
}

/// Chunks that were stored within the last hour, whoever's they are. Bounded.
final class RecentChunks: @unchecked Sendable {
    private let lock = Lock()
    private var young: Set<Fingerprint> = []
    private var old: Set<Fingerprint> = []
    private var turned = MonotonicTime.now
    /// Entries in each of the two halves.
    static let capacity = 32_768
    /// Two halves of half an hour.
    static let seconds = 1800.0

    func contains(_ fingerprint: Fingerprint) -> Bool {
        lock.withLock {
            turn()
            return young.contains(fingerprint) || old.contains(fingerprint)
        }
    }
    func insert(_ fingerprint: Fingerprint) {
        lock.withLock {
            turn()
            young.insert(fingerprint)
        }
    }
    func removeAll() {
        lock.withLock {
            young = []
            old = []
        }
    }
    private func turn() {
        let age = MonotonicTime.now.seconds(since: turned)
        if young.count < Self.capacity && age < Self.seconds { return }
        old = age < 2 * Self.seconds ? young : []
        young = []
        turned = MonotonicTime.now
    }
}
