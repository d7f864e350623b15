import Glibc
import Synchronization
import VerneuilStore

/// A store in memory in which every GET takes the same time, however many there are at once.
final class LatencyStore: ObjectStore, @unchecked Sendable {
    let name = "memory"
    private let body: @Sendable (_ key: String) -> [UInt8]?
    /// Microseconds per GET.
    private let delay: UInt64
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private var waiting: [(due: UInt64, answer: @Sendable () -> Void)] = []
    private var isRunning = false

    convenience init(_ objects: [String: [UInt8]], delay: UInt64) {
        self.init(delay: delay) { objects[$0] }
    }

    /// - Parameter body: called when a GET is answered.
    init(delay: UInt64, body: @escaping @Sendable (_ key: String) -> [UInt8]?) {
        self.body = body
        self.delay = delay
        pthread_mutex_init(mutex, nil)
    }

    private static func now() -> UInt64 {
        var t = timespec()
        clock_gettime(CLOCK_MONOTONIC, &t)
        return UInt64(t.tv_sec) * 1_000_000 + UInt64(t.tv_nsec) / 1000
    }

    func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        let answer: @Sendable () -> Void = {
            completion(.success(self.body(request.key).map { .found(body: $0, tag: "1") } ?? .missing))
        }
        guard delay > 0 else { return answer() }
        pthread_mutex_lock(mutex)
        waiting.append((Self.now() + delay, answer))
        let start = !isRunning
        isRunning = true
        pthread_mutex_unlock(mutex)
        guard start else { return }
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            {
                Unmanaged<LatencyStore>.fromOpaque($0!).takeRetainedValue().deliver()
                return nil
            }, context)
        pthread_detach(thread)
    }

    /// Gets all of these, so many at a time, and does nothing with them: what the network can bring.
    func getAll(_ keys: [String], parallelism: Int) {
        let transfer = Transfer(keys)
        for _ in 0..<parallelism { next(of: transfer) }
        while !transfer.isDone { usleep(500) }
    }
    private final class Transfer: @unchecked Sendable {
        private let keys: [String]
        private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
        private var begun = 0
        private var ended = 0
        init(_ keys: [String]) {
            self.keys = keys
            pthread_mutex_init(mutex, nil)
        }
        private func locked<T>(_ body: () -> T) -> T {
            pthread_mutex_lock(mutex)
            defer { pthread_mutex_unlock(mutex) }
            return body()
        }
        func next() -> String? {
            locked {
                guard begun < keys.count else { return nil }
                begun += 1
                return keys[begun - 1]
            }
        }
        func end() { locked { ended += 1 } }
        var isDone: Bool { locked { ended == keys.count } }
    }
    private func next(of transfer: Transfer) {
        guard let key = transfer.next() else { return }
        get(GetRequest(.chunks, key, limit: 1 << 20)) { _ in
            self.next(of: transfer)
            transfer.end()
        }
    }

    /// All take the same time, so that they are due in the order in which they came.
    private func deliver() {
        while true {
            pthread_mutex_lock(mutex)
            guard let first = waiting.first else {
                isRunning = false
                pthread_mutex_unlock(mutex)
                return
            }
            let now = Self.now()
            let due = waiting.prefix { $0.due <= now }.map(\.answer)
            waiting.removeFirst(due.count)
            pthread_mutex_unlock(mutex)
            if due.isEmpty { usleep(UInt32(first.due - now)) }
            for answer in due { answer() }
        }
    }

    func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        completion(.failure(StoreError(.denied, store: name, operation: "PUT", reason: "can't be written")))
    }
    func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) { completion(.success(true)) }
    func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) { completion(.success(ObjectPage(entries: [], isTruncated: false))) }
    func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) { completion(.success(())) }
}
