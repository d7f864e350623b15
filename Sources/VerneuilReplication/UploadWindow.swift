import VerneuilSystem

/// How many PUTs are in flight, how many there were, and the first failure.
final class UploadWindow: @unchecked Sendable {
    private let lock = Lock()
    private var inFlight = 0
    private var count = 0
    private var bytes = 0
    private var succeeded = 0
    private var first: (any Error)?

    var failure: (any Error)? { lock.withLock { first } }
    var done: Int { lock.withLock { succeeded } }

    /// Something else than a PUT has failed.
    func note(_ failure: any Error) { lock.withLock { if first == nil { first = failure } } }

    /// Waits until fewer than `limit` are in flight.
    func enter(bytes: Int, limit: Int) {
        lock.withLock {
            while inFlight >= max(1, limit) { lock.wait() }
            inFlight += 1
            count += 1
            self.bytes += bytes
        }
    }
    func leave(_ failure: (any Error)?) {
        lock.withLock {
            inFlight -= 1
            if failure == nil { succeeded += 1 }
            if first == nil { first = failure }
            lock.broadcast()
        }
    }
    /// Waits for all, and answers with what was sent. Calls `body` about once a second meanwhile.
    func drain(_ body: () -> Void = {}) -> (count: Int, bytes: Int) {
        while true {
            let sent = lock.withLock { () -> (count: Int, bytes: Int)? in
                if inFlight > 0 { lock.wait(until: MonotonicTime.now.advanced(seconds: 1)) }
                return inFlight == 0 ? (count, bytes) : nil
            }
            if let sent { return sent }
            body()
        }
    }
}
