import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// What is tried again, what is final, and that neither takes for ever: each
/// fault, between the client and a real server, with each operation.
@Suite(.serialized) struct FaultTests {
    enum Operation: String, CaseIterable, Sendable {
        case get, put, touch, list

        var pattern: String {
            switch self {
            case .get: return "GET [^?]*$"
            case .put, .touch: return "PUT [^?]*/k$"
            case .list: return "GET .*list-type=2"
            }
        }

        func run(_ store: S3Store) -> StoreError? {
            failure { () throws(StoreError) in
                switch self {
                case .get:
                    guard case .found(let body, _) = try store.get(GetRequest(.chunks, "k", limit: 1 << 20)),
                        body == FaultTests.body
                    else {
                        Issue.record("another body")
                        return
                    }
                case .put: try store.put(PutRequest(.chunks, "k", FaultTests.body))
                case .touch: #expect(try store.touch(.chunks, "k"))
                case .list: #expect(try store.list(.chunks, prefix: "").entries.map(\.key) == ["k"])
                }
            }
        }
    }

    static let body = randomBytes(200_000)

    static let shared = Result { try FaultProxy(to: .rclone()) }
    let proxy: FaultProxy
    let stores: Stores

    init() throws {
        proxy = try Self.shared.get()
        try proxy.reset()
        stores = Stores(endpoint: proxy.endpoint)
        let store = try stores.make()
        try store.prepare()
        try store.put(PutRequest(.chunks, "k", Self.body))
    }

    static let passing = ["500", "502", "503", "504", "429", "408", "409", "reset_before", "reset_request", "lost_response"]

    @Test(arguments: Operation.allCases, passing)
    func whatPassesIsTriedAgain(operation: Operation, fault: String) throws {
        let store = try stores.make()
        try proxy.set([FaultProxy.Rule(fault, match: operation.pattern, times: 2)])
        #expect(operation.run(store) == nil)
        #expect(store.counters.retries == 2)
        #expect(store.counters.failures == 0)
        if fault == "503" || fault == "429" { #expect(store.counters.throttled == 2) }
    }

    @Test(arguments: Operation.allCases, ["503", "reset_before"])
    func whatStaysIsGivenUpAfterThreeRetries(operation: Operation, fault: String) throws {
        let store = try stores.make()
        try proxy.set([FaultProxy.Rule(fault, match: operation.pattern)])
        let error = operation.run(store)
        #expect(error?.kind == .unavailable)
        #expect(error?.reason.contains("4 tries") == true, "\(error?.description ?? "no error")")
        #expect(store.counters.retries == 3)
        #expect(store.counters.failures == 1)
        try proxy.set([])
        #expect(operation.run(store) == nil)
    }

    @Test(arguments: Operation.allCases, ["400", "403", "412", "501"])
    func refusalsAreFinal(operation: Operation, fault: String) throws {
        let store = try stores.make()
        // 400 in the proxy's words is RequestTimeout, which is tried again.
        try proxy.set([FaultProxy.Rule(fault, match: operation.pattern, times: fault == "400" ? 1 : nil)])
        let error = operation.run(store)
        switch fault {
        case "400":
            #expect(error == nil)
            #expect(store.counters.retries == 1)
        case "403":
            #expect(error?.kind == .denied)
            #expect(error?.reason.contains("s3:") == true)
            #expect(store.counters.retries == 0)
        default:
            #expect(error?.kind == .invalid)
            // A PUT that is "not implemented" may be so for its Content-MD5: it is tried without.
            #expect(store.counters.retries == (operation == .put && fault == "501" ? 1 : 0))
        }
    }

    @Test(arguments: [Operation.get, .list], ["truncate", "reset_before"])
    func aShortBodyIsNoBody(operation: Operation, fault: String) throws {
        let store = try stores.make()
        try proxy.set([FaultProxy.Rule(fault, match: operation.pattern, times: 1)])
        #expect(operation.run(store) == nil)
        #expect(store.counters.retries == 1)
        try proxy.set([FaultProxy.Rule(fault, match: operation.pattern)])
        #expect(operation.run(store)?.kind == .unavailable)
    }

    @Test(arguments: Operation.allCases) func aServerThatNeverAnswersIsGivenUp(operation: Operation) throws {
        let store = try stores.make {
            $0.idleTimeout = 0.5
            $0.retries = 1
        }
        try proxy.set([FaultProxy.Rule("hang", match: operation.pattern)])
        let start = MonotonicTime.now
        let error = operation.run(store)
        #expect(error?.kind == .unavailable)
        #expect(error?.reason.contains("0.5 s") == true)
        let seconds = MonotonicTime.now.seconds(since: start)
        #expect(seconds > 0.9 && seconds < 20)
        // One that hangs once is left for another.
        try proxy.set([FaultProxy.Rule("hang", match: operation.pattern, times: 1)])
        #expect(operation.run(store) == nil)
    }

    @Test func aBodyThatStallsIsGivenUpAndOneThatCrawlsIsNot() throws {
        let store = try stores.make { $0.idleTimeout = 1 }
        try proxy.set([FaultProxy.Rule("stall", match: Operation.get.pattern, times: 1, milliseconds: 8000)])
        #expect(Operation.get.run(store) == nil)
        #expect(store.counters.retries == 1)
        // Slower as a whole than the time-out, but never still for so long.
        try proxy.set([FaultProxy.Rule("throttle", match: Operation.get.pattern)])
        let start = MonotonicTime.now
        #expect(Operation.get.run(store) == nil)
        #expect(MonotonicTime.now.seconds(since: start) > 1.2)
        #expect(store.counters.retries == 1)
    }

    /// Never still for long enough, and yet without an end: it would hold the copier's lock, and so every other process's copiers.
    @Test func aBodyThatWouldTakeForEverIsGivenUp() throws {
        let store = try stores.make()
        let strict = try stores.make {
            $0.idleTimeout = 1
            $0.leastRate = 1e7
            $0.retries = 0
        }
        let body = [UInt8](repeating: 1, count: 600_000)
        try store.put(PutRequest(.chunks, "long", body))
        // A tenth of a MiB a second, six seconds in all.
        try proxy.set([FaultProxy.Rule("throttle", match: "GET [^?]*long$")])
        #expect(failure { () throws(StoreError) in try strict.get(GetRequest(.chunks, "long", limit: 1 << 20)) }?.kind == .unavailable)
        try proxy.set([])
        #expect(try store.body(.chunks, "long") == body)
    }

    /// COPY answers 200 before it knows: the error comes in the body.
    @Test func anErrorInASuccessfulCopyIsAnError() throws {
        let store = try stores.make()
        try proxy.set([FaultProxy.Rule("200_error", match: Operation.touch.pattern, times: 1)])
        #expect(Operation.touch.run(store) == nil)
        #expect(store.counters.retries == 1)
        try proxy.set([FaultProxy.Rule("200_error", match: Operation.touch.pattern)])
        #expect(Operation.touch.run(store)?.kind == .unavailable)
        #expect(Operation.put.run(store)?.kind == .unavailable)
    }

    @Test func aConnectionThatTheServerClosedMeanwhileCostsNoTry() throws {
        let store = try stores.make()
        #expect(Operation.get.run(store) == nil)
        try proxy.set([FaultProxy.Rule("reset_before", match: Operation.get.pattern, times: 1)])
        #expect(Operation.get.run(store) == nil)
        #expect(store.counters.staleConnections == 1)
        #expect(store.counters.retries == 0)
        #expect(store.counters.connectionsOpened == 2)
    }

    @Test func aHangingRequestDoesNotHoldUpOthers() throws {
        let store = try stores.make { $0.idleTimeout = 3 }
        try proxy.set([FaultProxy.Rule("hang", match: Operation.touch.pattern)])
        let lock = Lock()
        nonisolated(unsafe) var isOver = false
        store.touch(.chunks, "k", urgency: .background) { _ in
            lock.withLock {
                isOver = true
                lock.signal()
            }
        }
        for _ in 0..<20 { #expect(Operation.get.run(store) == nil) }
        #expect(lock.withLock { !isOver })
        try proxy.set([])
        lock.withLock { while !isOver { lock.wait() } }
    }

    // MARK: No server

    @Test func nobodyListening() throws {
        let port = SupervisedProcess.freePort()
        let store = try Stores(endpoint: "http://127.0.0.1:\(port)").make()
        let error = failure { () throws(StoreError) in try store.prepare() }
        #expect(error?.kind == .unavailable)
        #expect(error?.description.contains("http://127.0.0.1:\(port)") == true)
        #expect(error?.reason.contains("refused") == true, "\(error?.description ?? "")")
    }

    @Test func aHostThatDoesNotExist() throws {
        let store = try Stores(endpoint: "http://no-such-host.invalid:1").make()
        let error = failure { () throws(StoreError) in try store.prepare() }
        #expect(error?.kind == .unavailable)
        #expect(error?.reason.contains("no-such-host.invalid") == true)
    }

    /// A server that takes connections and says nothing, not even in TCP's backlog.
    @Test func aHostThatDoesNotConnect() throws {
        // RFC 5737: nobody is there, and routers drop or refuse.
        let store = try Stores(endpoint: "http://192.0.2.254:9").make {
            $0.connectTimeout = 0.5
            $0.retries = 1
        }
        let start = MonotonicTime.now
        let error = failure { () throws(StoreError) in try store.prepare() }
        #expect(error?.kind == .unavailable)
        #expect(MonotonicTime.now.seconds(since: start) < 10)
    }
}
