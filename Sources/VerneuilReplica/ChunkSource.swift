import CVerneuil
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Where chunks come from: caches first, then stores, each in order.
///
/// - Whatever the source, all 128 bits of a chunk's fingerprint, and its length,
///   are checked before anyone sees a byte (DESIGN: nothing unverified).
/// - A source that has no such object, another object, or no answer, is passed over for the next.
/// - Sizes are bounded before anything is allocated or unpacked.
/// - At most `parallelism` requests are in flight, plus a quarter of that for
///   those that somebody waits for, so that read-ahead never makes a reader wait
///   (`Priority`). A request that has its answer is not in flight: the next goes
///   out before the answer is unpacked. No more than twice `parallelism` are
///   either in flight or being unpacked, so that memory is bounded.
///
/// Requests need no thread while they wait for the network. Safe from any
/// thread; belongs to one process (a forked child makes its own).
public final class ChunkSource: @unchecked Sendable {
    public let caches: [CacheDirectory]
    public let stores: [any ObjectStore]
    /// Requests in flight at most.
    public let parallelism: Int

    /// zstd adds a few bytes to what can't be compressed; other programs' frames may add more.
    private static let chunkBodyLimit = 2 * Chunk.size

    /// Whose turn it is, and how much of the network it may use.
    package enum Priority: Int, Comparable, Sendable {
        /// Nobody is about to want it: goes out where less than a quarter of `parallelism` is in use.
        case background
        /// Will probably be wanted soon: `parallelism`.
        case ahead
        /// Somebody waits for it: `parallelism` and a quarter.
        case urgent

        package static func < (a: Priority, b: Priority) -> Bool { a.rawValue < b.rawValue }
    }

    private let workers: Workers
    private let lock = Lock()
    // Under the lock:
    private var urgent = Queue<Request>()
    private var ahead = Queue<Request>()
    private var background = Queue<Request>()
    /// Requests without an answer, and those that have begun and are not finished.
    private var inFlight = 0
    private var unfinished = 0

    /// - Parameter parallelism: GETs in flight at most.
    public init(caches: [CacheDirectory], stores: [any ObjectStore], parallelism: Int = 64) {
        self.caches = caches
        self.stores = stores
        self.parallelism = max(1, parallelism)
        // More than processors: they also wait for disks, and for processors that others use.
        workers = Workers(limit: min(max(2 * Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))), 4), 16))
    }

    // MARK: Chunks

    /// One chunk to be fetched.
    package final class Request: @unchecked Sendable {
        let fingerprint: Fingerprint
        let length: Int
        // Of the thread that works on it:
        fileprivate var completion: Completion?
        fileprivate var attempts: [FetchError.Attempt] = []
        // Under the source's lock:
        fileprivate var priority: Priority
        fileprivate var isStarted = false
        fileprivate var isInFlight = false

        package init(
            _ fingerprint: Fingerprint, length: Int, priority: Priority, completion: @escaping Completion
        ) {
            self.fingerprint = fingerprint
            self.length = length
            self.priority = priority
            self.completion = completion
        }
    }
    /// Runs once, on a worker thread or the caller's; may write to local files.
    package typealias Completion = @Sendable (Result<[UInt8], ReplicaError>) -> Void

    /// Fetches a chunk. An urgent one, for which the caller is about to wait, is
    /// looked for in the caches on the calling thread.
    package func start(_ request: Request) {
        lock.lock()
        let isUrgent = request.priority == .urgent
        enqueue(request)
        let next = takeNext()
        lock.unlock()
        guard let next else { return }
        if next === request, isUrgent { begin(next) } else { workers.submit(urgent: true) { self.begin(next) } }
    }

    /// What was asked for is wanted sooner than was thought.
    package func hurry(_ request: Request, _ priority: Priority) {
        lock.lock()
        guard !request.isStarted, request.priority < priority else { return lock.unlock() }
        request.priority = priority
        enqueue(request)  // its place in the other queue is skipped, as it will be started
        let next = takeNext()
        lock.unlock()
        guard let next else { return }
        if priority == .urgent { begin(next) } else { workers.submit(urgent: true) { self.begin(next) } }
    }

    /// Waits for one chunk.
    public func chunk(_ fingerprint: Fingerprint, length: Int) throws(ReplicaError) -> [UInt8] {
        let box = Handover<Result<[UInt8], ReplicaError>>()
        start(Request(fingerprint, length: length, priority: .urgent) { box.put($0) })
        return try box.take().get()
    }

    /// Under the lock.
    private func enqueue(_ request: Request) {
        switch request.priority {
        case .urgent: urgent.append(request)
        case .ahead: ahead.append(request)
        case .background: background.append(request)
        }
    }

    /// Under the lock: the next request that may go out, counted as in flight.
    private func takeNext() -> Request? {
        if inFlight < parallelism + max(1, parallelism / 4), let next = Self.first(of: &urgent) { return mark(next) }
        guard unfinished < 2 * parallelism else { return nil }
        if inFlight < parallelism, let next = Self.first(of: &ahead) { return mark(next) }
        if inFlight < max(1, parallelism / 4), let next = Self.first(of: &background) { return mark(next) }
        return nil
    }
    private static func first(of queue: inout Queue<Request>) -> Request? {
        while let request = queue.popFirst() {
            if !request.isStarted { return request }
        }
        return nil
    }
    private func mark(_ request: Request) -> Request {
        request.isStarted = true
        request.isInFlight = true
        inFlight += 1
        unfinished += 1
        return request
    }

    private func begin(_ request: Request) {
        switch lookInCaches(request.fingerprint, length: request.length, limit: request.length, &request.attempts) {
        case let bytes?: finish(request, .success(bytes))
        case nil: ask(0, for: request)
        }
    }

    private func lookInCaches(
        _ fingerprint: Fingerprint, length: Int?, limit: Int, _ attempts: inout [FetchError.Attempt]
    ) -> [UInt8]? {
        for cache in caches {
            switch cache.look(for: fingerprint, length: length, limit: limit) {
            case .found(let bytes): return bytes
            case .missing: break
            case .damaged(let flaw):
                attempts.append(.init(source: "cache \(cache.path)", outcome: .damaged, reason: flaw))
                Report.warning("cache \(cache.path): chunk \(fingerprint.chunkName) is damaged: \(flaw)")
            }
        }
        return nil
    }

    private func ask(_ i: Int, for request: Request) {
        guard i < stores.count else {
            let error = FetchError(
                object: "chunk \(request.fingerprint.chunkName)", attempts: request.attempts)
            return finish(request, .failure(.fetch(error)))
        }
        lock.withLock {
            if !request.isInFlight { inFlight += 1 }
            request.isInFlight = true
        }
        let get = GetRequest(.chunks, request.fingerprint.chunkName, limit: Self.chunkBodyLimit)
        stores[i].get(get) { answer in
            self.lock.lock()
            self.land(request)
            let next = self.takeNext()
            let isUrgent = request.priority == .urgent
            self.lock.unlock()
            // Sending comes before unpacking, which takes longer.
            if let next { self.workers.submit(urgent: true) { self.begin(next) } }
            self.workers.submit(urgent: isUrgent) { self.receive(answer, from: i, for: request) }
        }
    }

    /// Under the lock: the request is not in flight any more.
    private func land(_ request: Request) {
        if request.isInFlight { inFlight -= 1 }
        request.isInFlight = false
    }

    private func receive(_ answer: Result<GetResult, StoreError>, from i: Int, for request: Request) {
        let store = stores[i].name
        switch Self.body(of: answer) {
        case .success(let body):
            do throws(FormatError) {
                let bytes = try Body.decodeChunk(body, expecting: request.fingerprint, length: request.length)
                finish(request, .success(bytes))
                for cache in caches { cache.publish(request.fingerprint, bytes) }
                return
            } catch {
                let reason = error.description
                request.attempts.append(.init(source: store, outcome: .damaged, reason: reason))
                Report.warning("\(store): \(reason)")
            }
        case .failure(let failure):
            request.attempts.append(.init(source: store, outcome: failure.outcome, reason: failure.reason))
        }
        ask(i + 1, for: request)
    }

    private func finish(_ request: Request, _ result: Result<[UInt8], ReplicaError>) {
        lock.lock()
        land(request)
        unfinished -= 1
        let next = takeNext()
        let completion = request.completion.take()
        lock.unlock()
        if let next { workers.submit(urgent: true) { self.begin(next) } }
        completion?(result)
    }

    // MARK: Base chunks

    /// Fingerprints don't compress: of a list that unpacks to more than so many times its length, next to all chunks are the same.
    private static let mostExpansion = 256

    /// The bytes of a manifest's base chunk (FORMAT 6.2), verified. Waits for the network.
    /// - Parameters:
    ///   - limit: bytes, decompressed, that it may have in any case.
    ///   - most: the same where the store does have so much: a body of a few KiB shall not make hundreds of MiB of itself.
    public func baseChunk(_ fingerprint: Fingerprint, limit: Int, most: Int = 0) throws(ReplicaError) -> [UInt8] {
        let most = max(limit, most)
        var attempts: [FetchError.Attempt] = []
        if let bytes = lookInCaches(fingerprint, length: nil, limit: most, &attempts) { return bytes }
        for store in stores {
            var answer = Self.getBase(fingerprint, limit, store)
            if case .failure(let error) = answer, error.kind == .tooLarge, most > limit {
                answer = Self.getBase(fingerprint, most, store)
            }
            switch Self.body(of: answer) {
            case .success(let body):
                do throws(FormatError) {
                    let limit = max(limit, min(most, Self.mostExpansion * body.count))
                    let bytes = try Body.decode(body, limit: limit) { FingerprintKey.chunk.fingerprint($0) == fingerprint }
                    for cache in caches { cache.publish(fingerprint, bytes) }
                    return bytes
                } catch {
                    attempts.append(.init(source: store.name, outcome: .damaged, reason: error.description))
                }
            case .failure(let failure):
                attempts.append(.init(source: store.name, outcome: failure.outcome, reason: failure.reason))
            }
        }
        throw .fetch(FetchError(object: "base chunk \(fingerprint.chunkName)", attempts: attempts))
    }

    private static func getBase(
        _ fingerprint: Fingerprint, _ limit: Int, _ store: any ObjectStore
    ) -> Result<GetResult, StoreError> {
        // An incompressible body is a little longer than its content.
        let get = GetRequest(.chunks, fingerprint.chunkName, limit: limit + limit / 128 + 1024)
        return Result { () throws(StoreError) in try store.get(get) }
    }

    // MARK: Answers of stores

    struct Failure: Error {
        var outcome: FetchError.Outcome
        var reason: String
    }

    static func body(of answer: Result<GetResult, StoreError>) -> Result<[UInt8], Failure> {
        switch answer {
        case .success(.found(let body, _)): .success(body)
        case .success(.missing): .failure(Failure(outcome: .missing, reason: "there is no such object"))
        case .success(.notModified):
            .failure(Failure(outcome: .unavailable, reason: "answered \"not modified\" to a plain GET"))
        case .failure(let error):
            .failure(Failure(outcome: error.kind == .tooLarge ? .damaged : .unavailable, reason: error.description))
        }
    }
}

/// A value that one thread leaves for another.
final class Handover<Value: Sendable>: @unchecked Sendable {
    private let lock = Lock()
    private var value: Value?

    func put(_ value: Value) {
        lock.withLock {
            self.value = value
            lock.broadcast()
        }
    }
    func take() -> Value {
        lock.withLock {
            while true {
                if let value { return value }
                lock.wait()
            }
        }
    }
}
