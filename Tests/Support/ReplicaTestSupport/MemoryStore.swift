import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// A store in memory that answers each GET after a while, on threads of its
/// own, as a network would; and that can be told to misbehave.
public final class MemoryStore: ObjectStore, @unchecked Sendable {
    public let name: String
    private let lock = Lock()
    private var objects: [String: (body: [UInt8], version: Int)] = [:]
    private var versions = 0
    private var delay = 0.0
    private var fault: (@Sendable (GetRequest) -> Fault?)?
    private var pending: [(due: MonotonicTime, run: @Sendable () -> Void)] = []
    private var isRunning = false
    private var log: [String] = []
    private var inFlight = 0
    private var mostInFlight = 0

    public enum Fault: Sendable {
        case missing
        case unavailable
        case body([UInt8])
        /// The answer comes when `release` is called.
        case hang
    }

    public init(_ name: String = "memory") { self.name = name }

    /// Seconds that every GET takes from now on.
    public func setDelay(_ seconds: Double) { lock.withLock { delay = seconds } }
    public func setFault(_ fault: (@Sendable (GetRequest) -> Fault?)?) { lock.withLock { self.fault = fault } }

    /// Keys of the GETs since the last call, in order.
    public func takeLog() -> [String] {
        lock.withLock {
            defer { log = [] }
            return log
        }
    }
    /// The most GETs at a time since the last call.
    public func takeMostInFlight() -> Int {
        lock.withLock {
            defer { mostInFlight = inFlight }
            return mostInFlight
        }
    }

    public func body(_ space: ObjectSpace, _ key: String) -> [UInt8]? {
        lock.withLock { objects["\(space.rawValue)/\(key)"]?.body }
    }
    public func remove(_ space: ObjectSpace, _ key: String) {
        lock.withLock { objects["\(space.rawValue)/\(key)"] = nil }
    }
    public var chunkKeys: [String] {
        lock.withLock { objects.keys.filter { $0.hasPrefix("chunks/") }.map { String($0.dropFirst(7)) }.sorted() }
    }

    private var hung: [@Sendable () -> Void] = []
    /// Lets the GETs that hang be answered.
    public func release() {
        let all = lock.withLock {
            defer { hung = [] }
            return hung
        }
        for answer in all { answer() }
    }

    public func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        lock.lock()
        log.append(request.key)
        inFlight += 1
        mostInFlight = max(mostInFlight, inFlight)
        let found = objects["\(request.space.rawValue)/\(request.key)"]
        let answer: @Sendable () -> Void
        let fault = fault?(request)
        let done: @Sendable (Result<GetResult, StoreError>) -> Void = { result in
            self.lock.withLock { self.inFlight -= 1 }
            completion(result)
        }
        let regular: @Sendable () -> Void = {
            guard let found else { return done(.success(.missing)) }
            if let tag = request.unlessTag, tag == "\(found.version)" { return done(.success(.notModified)) }
            guard found.body.count <= request.limit else {
                return done(
                    .failure(
                        StoreError(
                            .tooLarge, store: self.name, operation: "GET", reason: "longer than \(request.limit) bytes")))
            }
            done(.success(.found(body: found.body, tag: "\(found.version)")))
        }
        switch fault {
        case .missing: answer = { done(.success(.missing)) }
        case .unavailable:
            answer = {
                done(.failure(StoreError(.unavailable, store: self.name, operation: "GET", reason: "told to fail")))
            }
        case .body(let body): answer = { done(.success(.found(body: body, tag: "fault"))) }
        case .hang:
            hung.append(regular)
            return lock.unlock()
        case nil: answer = regular
        }
        guard delay > 0 else {
            lock.unlock()
            return answer()
        }
        // The delay is the same for all, so that those that are due stand first.
        pending.append((MonotonicTime.now.advanced(seconds: delay), answer))
        let start = !isRunning
        isRunning = true
        if !start { lock.signal() }
        lock.unlock()
        if start { try? Threads.spawn("test-network") { self.run() } }
    }

    private func run() {
        lock.lock()
        while let first = pending.first {
            if first.due > .now {
                lock.wait(until: first.due)
                continue
            }
            pending.removeFirst()
            lock.unlock()
            first.run()
            lock.lock()
        }
        isRunning = false
        lock.unlock()
    }

    /// Gets chunks, so many at a time, and does nothing with them: what the network can bring.
    public func getAll(_ keys: [String], parallelism: Int) {
        let all = Transfer(keys)
        for _ in 0..<parallelism { next(of: all) }
        all.done.wait()
    }
    private final class Transfer: @unchecked Sendable {
        let lock = Lock()
        var keys: ArraySlice<String>
        var left: Int
        let done = Flag()
        init(_ keys: [String]) {
            self.keys = keys[...]
            left = keys.count
        }
    }
    private func next(of all: Transfer) {
        guard let key = all.lock.withLock({ all.keys.popFirst() }) else { return }
        get(GetRequest(.chunks, key, limit: 1 << 20)) { _ in
            self.next(of: all)
            if all.lock.withLock({ all.left -= 1; return all.left == 0 }) { all.done.set() }
        }
    }

    public func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        let version = lock.withLock {
            versions += 1
            objects["\(request.space.rawValue)/\(request.key)"] = (request.body, versions)
            return versions
        }
        completion(.success("\(version)"))
    }
    public func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) { completion(.success(body(space, key) != nil)) }
    public func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) {
        lock.lock()
        listCount += 1
        if let listFailure {
            lock.unlock()
            return completion(.failure(listFailure))
        }
        let start = "\(space.rawValue)/"
        var keys = objects.keys.filter { $0.hasPrefix(start) }.map { String($0.dropFirst(start.count)) }
        keys.removeAll { key in !key.hasPrefix(prefix) || after.map { !$0.utf8.lexicographicallyPrecedes(key.utf8) } ?? false }
        keys.sort { $0.utf8.lexicographicallyPrecedes($1.utf8) }
        let entries = keys.prefix(pageSize).map {
            ObjectPage.Entry(key: $0, size: objects[start + $0]?.body.count ?? 0, modified: 0)
        }
        lock.unlock()
        completion(.success(ObjectPage(entries: entries, isTruncated: entries.count < keys.count)))
    }

    private var pageSize = 1000
    private var listFailure: StoreError?
    private var listCount = 0
    public func setPageSize(_ size: Int) { lock.withLock { pageSize = size } }
    public func setListFailure(_ failure: StoreError?) { lock.withLock { listFailure = failure } }
    /// Lists since the last call.
    public func takeListCount() -> Int {
        lock.withLock {
            defer { listCount = 0 }
            return listCount
        }
    }
    public func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) { completion(.success(())) }
}
