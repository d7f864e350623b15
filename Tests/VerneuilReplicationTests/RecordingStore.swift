import CVerneuil
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// A store in memory that keeps account of every request, honours conditions on PUT (or not), and misbehaves when told.
final class RecordingStore: ObjectStore, @unchecked Sendable {
    enum Operation: String, Sendable { case get, put, touch, list, prepare }

    struct Request: Sendable {
        var operation: Operation
        var space: ObjectSpace?
        var key: String
        var urgency: Urgency?
        var condition: PutCondition?
        var unlessTag: String?
        var at: MonotonicTime
    }

    enum Fault: Sendable {
        case fail(StoreError.Kind, String)
        /// It is done, but the answer is an error.
        case loseAnswer
        /// No answer, until `release`.
        case hang
    }

    let name: String
    let honoursConditions: Bool
    private let lock = Lock()
    private var objects: [String: (body: [UInt8], tag: String, modified: Int64)] = [:]
    private var requests: [Request] = []
    private var version = 0
    private var fault: (@Sendable (Request) -> Fault?)?
    private var hung: [@Sendable () -> Void] = []
    private var delay = 0.0
    private let clock: @Sendable () -> Int64
    private let pageSize: Int

    /// - Parameters:
    ///   - pageSize: keys that one LIST answers.
    ///   - clock: seconds since 1970, for objects' ages.
    init(
        _ name: String = "recording", honoursConditions: Bool = true, pageSize: Int = 1000,
        clock: @escaping @Sendable () -> Int64 = { wallClock().seconds }
    ) {
        self.pageSize = pageSize
        self.clock = clock
        self.name = name
        self.honoursConditions = honoursConditions
    }

    // MARK: for tests

    func set(_ fault: (@Sendable (Request) -> Fault?)?) { lock.withLock { self.fault = fault } }
    /// Seconds that each request takes, on a thread of its own.
    func setDelay(_ seconds: Double) { lock.withLock { delay = seconds } }
    func release() {
        let all = lock.withLock {
            defer { hung = [] }
            return hung
        }
        for each in all { each() }
    }
    /// All requests since the last call.
    func take() -> [Request] {
        lock.withLock {
            defer { requests = [] }
            return requests
        }
    }
    func count(_ operation: Operation, _ space: ObjectSpace? = nil) -> Int {
        lock.withLock { requests.filter { $0.operation == operation && (space == nil || $0.space == space) }.count }
    }
    var manifest: [UInt8]? { lock.withLock { objects.first { $0.key.hasPrefix("manifests/") }?.value.body } }
    func removeAll(_ space: ObjectSpace) { lock.withLock { objects = objects.filter { !$0.key.hasPrefix("\(space.rawValue)/") } } }
    func remove(_ space: ObjectSpace, _ key: String) { lock.withLock { objects["\(space.rawValue)/\(key)"] = nil } }
    func removeOne(_ space: ObjectSpace) -> String? {
        lock.withLock {
            guard let key = objects.keys.filter({ $0.hasPrefix("\(space.rawValue)/") }).min() else { return nil }
            objects[key] = nil
            return key
        }
    }
    /// When each object was stored or touched.
    var modified: [String: Int64] { lock.withLock { objects.mapValues(\.modified) } }

    // MARK: ObjectStore

    /// Does `work` under the lock and answers, with whatever fault is set.
    private func perform<T: Sendable>(
        _ request: Request, _ completion: @escaping @Sendable (Result<T, StoreError>) -> Void,
        _ work: @escaping @Sendable () -> Result<T, StoreError>
    ) {
        let (fault, delay) = lock.withLock { () -> (Fault?, Double) in
            requests.append(request)
            return (self.fault?(request), self.delay)
        }
        let title = "\(request.operation.rawValue.uppercased()) \(request.key)"
        let run: @Sendable () -> Void = { [self] in
            switch fault {
            case nil: completion(lock.withLock { work() })
            case .fail(let kind, let reason):
                completion(.failure(StoreError(kind, store: name, operation: title, reason: reason)))
            case .loseAnswer:
                _ = lock.withLock { work() }
                completion(.failure(StoreError(.unavailable, store: name, operation: title, reason: "the answer was lost")))
            case .hang: lock.withLock { hung.append { completion(self.lock.withLock { work() }) } }
            }
        }
        if delay == 0 { return run() }
        try? Threads.spawn("slow") {
            usleep(UInt32(delay * 1e6))
            run()
        }
    }

    func get(_ get: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        let request = Request(
            operation: .get, space: get.space, key: get.key, urgency: get.urgency, unlessTag: get.unlessTag, at: .now)
        perform(request, completion) { [self] in
            guard let found = objects["\(get.space.rawValue)/\(get.key)"] else { return .success(.missing) }
            if found.tag == get.unlessTag { return .success(.notModified) }
            return .success(.found(body: found.body, tag: found.tag))
        }
    }

    func put(_ put: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        let request = Request(
            operation: .put, space: put.space, key: put.key, urgency: put.urgency, condition: put.condition, at: .now)
        perform(request, completion) { [self] in
            let key = "\(put.space.rawValue)/\(put.key)"
            func refuse(_ kind: StoreError.Kind) -> Result<String, StoreError> {
                .failure(StoreError(kind, store: name, operation: "PUT \(put.key)", reason: "the condition"))
            }
            if put.condition != .always {
                if !honoursConditions { return refuse(.conditionUnsupported) }
                if put.condition == .ifAbsent && objects[key] != nil { return refuse(.conditionFailed) }
                if case .ifTag(let tag) = put.condition, objects[key]?.tag != tag { return refuse(.conditionFailed) }
            }
            version += 1
            objects[key] = (put.body, "tag-\(version)", clock())
            return .success("tag-\(version)")
        }
    }

    func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency, completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) {
        perform(Request(operation: .touch, space: space, key: key, urgency: urgency, at: .now), completion) { [self] in
            guard var found = objects["\(space.rawValue)/\(key)"] else { return .success(false) }
            found.modified = clock()
            objects["\(space.rawValue)/\(key)"] = found
            return .success(true)
        }
    }

    func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) {
        perform(Request(operation: .list, space: space, key: prefix, urgency: urgency, at: .now), completion) { [self] in
            let folder = "\(space.rawValue)/"
            var entries = objects.filter { $0.key.hasPrefix(folder + prefix) }.map { key, object in
                ObjectPage.Entry(key: String(key.dropFirst(folder.count)), size: object.body.count, modified: object.modified)
            }
            entries.removeAll { entry in after.map { entry.key <= $0 } ?? false }
            entries.sort { $0.key < $1.key }
            return .success(ObjectPage(entries: Array(entries.prefix(pageSize)), isTruncated: entries.count > pageSize))
        }
    }

    func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) {
        perform(Request(operation: .prepare, key: "", at: .now), completion) { .success(()) }
    }
}
