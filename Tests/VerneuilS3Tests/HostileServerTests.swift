import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// Each fault at each operation (docs/S3.md has the table): what is tried
/// again, counted at the server; how long that takes; what it says and logs.
@Suite struct HostileServerTests {
    typealias Operation = HostileOperation

    struct Fault: Sendable, CustomTestStringConvertible {
        var harm: FakeS3.Harm
        var applies: @Sendable (Operation) -> Bool = { _ in true }
        /// What the error says in the end.
        var says: String
        var testDescription: String { "\(harm)" }
    }

    static let passing = [
        Fault(harm: .refuse(500, "InternalError"), says: "500"),
        Fault(harm: .doBut(500, "InternalError"), says: "500"),
        Fault(harm: .refuse(503, "SlowDown"), says: "503"),
        Fault(harm: .refuse(429, "TooManyRequests"), says: "429"),
        Fault(harm: .refuse(409, "OperationAborted"), applies: { $0.answerHasBody }, says: "409 OperationAborted"),
        Fault(harm: .refuse(409, "ConditionalRequestConflict"), applies: { $0.requestHasBody }, says: "409 Conditional"),
        Fault(harm: .refuse(400, "BadDigest"), applies: { $0.requestHasBody }, says: "400 BadDigest"),
        Fault(harm: .refuse(400, "RequestTimeout"), applies: { $0.answerHasBody }, says: "400 RequestTimeout"),
        Fault(harm: .reset, says: "Connection reset by peer"),
        Fault(harm: .loseAnswer, says: "Connection reset by peer"),
        Fault(harm: .breakOff, applies: { $0.requestHasBody }, says: "failed"),
        Fault(harm: .half, applies: { $0.answerHasBody }, says: "in the middle of its answer"),
    ]
    static let silence = Fault(harm: .silence, says: "nothing was sent or received for 0.5 s")
    static let cases = passing.flatMap { fault in Operation.allCases.filter(fault.applies).map { (fault, $0) } }

    @Test(arguments: cases) func aFaultThatPassesIsSurvived(fault: Fault, operation: Operation) throws {
        try Self.expectSurvival(fault, operation)
    }

    /// All operations at once: they do nothing but wait.
    @Test func silenceThatPassesIsSurvived() throws { try Self.forAllOperations { try Self.expectSurvival(Self.silence, $0) } }
    @Test func silenceThatStaysIsGivenUp() throws { try Self.forAllOperations { try Self.expectGivingUp(Self.silence, $0) } }

    private static func forAllOperations(_ check: @escaping @Sendable (Operation) throws -> Void) throws {
        let lock = Lock()
        nonisolated(unsafe) var running = 0
        for operation in Operation.allCases {
            lock.withLock { running += 1 }
            try Threads.spawn("operation", stackBytes: 1 << 20) {
                do { try check(operation) } catch { Issue.record(error, "\(operation)") }
                lock.withLock {
                    running -= 1
                    lock.broadcast()
                }
            }
        }
        lock.withLock { while running > 0 { lock.wait() } }
    }

    private static func expectSurvival(_ fault: Fault, _ operation: Operation) throws {
        let log = LogCapture()
        let (server, store, tag) = try operation.prepare(logger: log) { if fault.harm == .silence { $0.idleTimeout = 0.5 } }
        let before = server.requests(operation.request).count
        server.change { $0.faults = [FakeS3.Fault(fault.harm, on: [operation.request], times: 2)] }
        let error = operation.run(store, server, tag)
        #expect(error == nil, "\(operation): \(error?.description ?? "")")
        // Once more than it failed. A request that met a closed connection goes to another one, which is no retry.
        let counters = store.counters
        #expect(counters.retries + counters.staleConnections == 2, "\(operation): \(log.text)")
        // What comes after a first conditional PUT's HEAD are PUTs: its request is not made again.
        #expect(server.requests(operation.request).count - before == 3, "\(operation): \(log.text)")
        #expect(counters.failures == 0)
        if case .refuse(let status, _) = fault.harm, status == 503 || status == 429 { #expect(counters.throttled == 2) }
        // Each retry is logged for who debugs, with what it is and why; nobody else is bothered.
        #expect(log.lines.filter { $0.level == .debug && $0.text.contains("will try again") }.count == counters.retries)
        #expect(log.lines(from: .notice).isEmpty || operation == .makeBucket, "\(log.text)")
        #expect(!log.text.contains("testsecret"))
    }

    @Test(arguments: cases) func aFaultThatStaysIsGivenUp(fault: Fault, operation: Operation) throws {
        try Self.expectGivingUp(fault, operation)
    }

    private static func expectGivingUp(_ fault: Fault, _ operation: Operation) throws {
        let (server, store, tag) = try operation.prepare { if fault.harm == .silence { $0.idleTimeout = 0.5 } }
        let before = server.requests(operation.request).count
        // HEAD of a bucket is followed by a list, where its answer leaves doubt.
        let operations: Set<FakeS3.Operation> = operation == .findBucket ? [.headBucket, .list] : [operation.request]
        server.change { $0.faults = [FakeS3.Fault(fault.harm, on: operations)] }
        let start = MonotonicTime.now
        let error = operation.run(store, server, tag)
        let seconds = MonotonicTime.now.seconds(since: start)
        #expect(error?.kind == .unavailable, "\(operation)")
        #expect(error?.reason.contains("(4 tries)") == true && error?.reason.contains(fault.says) == true, "\(error?.description ?? "")")
        #expect(error?.store.contains(server.endpoint) == true && error?.description.contains("testsecret") == false)
        #expect(store.counters.retries == 3 && store.counters.failures == 1, "\(operation)")
        #expect(server.requests(operation.request).count - before == 4 + store.counters.staleConnections, "\(operation)")
        // Four times without an answer, pauses of 5, 10 and 20 ms at most, and a busy machine.
        #expect(seconds < (fault.harm == .silence ? 4 * 0.5 : 0) + 0.04 + 5, "\(operation)")

        server.change { $0.faults = [] }
        let later = operation.run(store, server, tag)
        // What the server did while it said otherwise is seen as another writer's by the next operation.
        if fault.harm == .doBut(500, "InternalError") || fault.harm == .loseAnswer || fault.harm == .half,
            operation == .replaceManifest || operation == .createManifest
        {
            #expect(later?.kind == .conditionFailed)
        } else {
            #expect(later == nil, "\(later?.description ?? "")")
        }
    }

    struct Refusal: Sendable, CustomTestStringConvertible {
        var status: Int
        var code: String
        /// nil: the operation succeeds by what this answer tells.
        var kind: @Sendable (Operation) -> StoreError.Kind?
        var testDescription: String { "\(status) \(code)" }
    }

    static let refusals = [
        Refusal(status: 400, code: "InvalidRequest") { _ in .invalid },
        Refusal(status: 403, code: "AccessDenied") { _ in .denied },
        Refusal(status: 404, code: "NoSuchBucket") {
            switch $0 {
            case .firstConditionalPut: .conditionFailed
            default: .noSuchSpace
            }
        },
        Refusal(status: 409, code: "InvalidBucketState") {
            $0.isConditional && $0 != .firstConditionalPut ? .conditionFailed : .invalid
        },
        Refusal(status: 412, code: "PreconditionFailed") {
            $0.isConditional && $0 != .firstConditionalPut ? .conditionFailed : .invalid
        },
        Refusal(status: 501, code: "NotImplemented") {
            $0.isConditional && $0 != .firstConditionalPut ? .conditionUnsupported : .invalid
        },
    ]

    @Test(arguments: refusals, Operation.allCases) func aRefusalIsFinal(refusal: Refusal, operation: Operation) throws {
        let log = LogCapture()
        let (server, store, tag) = try operation.prepare(logger: log)
        let before = server.requests(operation.request).count
        let operations: Set<FakeS3.Operation> = operation == .findBucket ? [.headBucket, .list] : [operation.request]
        server.change { $0.faults = [FakeS3.Fault(.refuse(refusal.status, refusal.code), on: operations)] }
        let error = operation.run(store, server, tag)
        #expect(error?.kind == refusal.kind(operation), "\(error?.description ?? "none")")
        // A PUT that is "not implemented" may be so for its Content-MD5: it is tried without.
        let isTriedWithoutMD5 = refusal.status == 501 && operation == .putChunk
        #expect(server.requests(operation.request).count - before == (isTriedWithoutMD5 ? 2 : 1))
        #expect(store.counters.retries == (isTriedWithoutMD5 ? 1 : 0))
        #expect(!store.status.refusesContentMD5)
        if refusal.status == 403 {
            #expect(error?.reason.contains("s3:") == true && error?.reason.contains("\"\(Operation.bucket)\"") == true)
        }
        #expect(log.lines(from: .notice).isEmpty, "\(log.text)")
    }

    /// What isn't there is an answer, and not remembered: stores that are consistent only in the end have it a moment later.
    @Test func whatIsMissingNowIsFoundLater() throws {
        for operation in [Operation.get, .poll, .touch] {
            let (server, store, tag) = try operation.prepare()
            server.change { $0.faults = [FakeS3.Fault(.refuse(404, "NoSuchKey"), on: [operation.request], times: 1)] }
            switch operation {
            case .touch: #expect(try !store.touch(.chunks, "chunk"))
            default: #expect(try store.body(.chunks, operation == .get ? "chunk" : "manifest") == nil)
            }
            #expect(server.requests(operation.request).count == 1)
            #expect(operation.run(store, server, tag) == nil)
            #expect(server.requests(operation.request).count == 2)
        }
    }

    /// Whoever asked compares fingerprints; a list can be judged here.
    @Test func wrongBytesAreNoList() throws {
        let (server, store, _) = try Operation.list.prepare()
        server.change { $0.faults = [FakeS3.Fault(.wrongBytes, on: [.list])] }
        let error = failure { () throws(StoreError) in try store.list(.chunks, prefix: "") }
        #expect(error?.kind == .unavailable && error?.reason.contains("not a whole list") == true)
    }

    @Test func theServersPauseIsKept() throws {
        let (server, store, tag) = try Operation.get.prepare()
        server.change {
            $0.faults = [FakeS3.Fault(.refuse(503, "SlowDown"), times: 1, headers: [("Retry-After", "1")])]
        }
        let start = MonotonicTime.now
        #expect(Operation.get.run(store, server, tag) == nil)
        #expect(MonotonicTime.now.seconds(since: start) > 0.95)
    }

    @Test(arguments: Operation.allCases) func aNameThatNobodyKnowsIsGivenUp(operation: Operation) throws {
        let log = LogCapture()
        var stores = Stores(endpoint: "http://no-such-host.invalid:1")
        stores.createBuckets = operation == .makeBucket
        let store = try stores.make(logger: log.logger) {
            $0.connectTimeout = 0.3
            $0.retries = 1
        }
        let start = MonotonicTime.now
        let error = operation.run(store, try FakeS3(), "tag")
        #expect(error?.kind == .unavailable)
        #expect(error?.reason.contains("no-such-host.invalid") == true, "\(error?.description ?? "")")
        #expect(store.counters.retries == 1 && store.counters.connectionsOpened == 0)
        #expect(log.text.contains("no-such-host.invalid"))
        #expect(MonotonicTime.now.seconds(since: start) < 6)
    }
}
