import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// A store that takes the time from the first PUT of a chunk to the last answer, and may keep what was sent.
final class MeasuredStore: ObjectStore {
    struct Body: Sendable {
        var key: String
        var bytes: [UInt8]
    }

    var name: String { store.name }
    private let store: S3Store
    private let keepBodies: Bool
    private let lock = Lock()
    nonisolated(unsafe) private var kept: [Body] = []
    nonisolated(unsafe) private var start: (time: MonotonicTime, cpu: Double)?
    nonisolated(unsafe) private var measured = Run()

    init(_ store: S3Store, keepBodies: Bool) {
        self.store = store
        self.keepBodies = keepBodies
    }

    var run: Run { lock.withLock { measured } }
    var bodies: [Body] { lock.withLock { kept } }

    func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        lock.withLock {
            if start == nil { start = (.now, cpuSeconds()) }
            if keepBodies { kept.append(Body(key: request.key, bytes: request.body)) }
        }
        let count = request.body.count
        store.put(request) { [self] result in
            lock.withLock {
                measured.requests += 1
                measured.bytes += count
                if let start {
                    measured.seconds = MonotonicTime.now.seconds(since: start.time)
                    measured.cpu = cpuSeconds() - start.cpu
                }
            }
            completion(result)
        }
    }

    func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        store.get(request, completion: completion)
    }
    func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) { store.touch(space, key, urgency: urgency, completion: completion) }
    func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) { store.list(space, prefix: prefix, after: after, urgency: urgency, completion: completion) }
    func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) { store.prepare(completion: completion) }
}
