import Crypto
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// S3 in memory and in this process, for what real servers don't do on demand:
/// each fault at each operation, a clock that is off, tokens that expire, a
/// bucket elsewhere. It checks what S3 checks of a request's integrity
/// (Content-MD5, x-amz-content-sha256), time, region and token; not the
/// signature itself, which the real servers' tests are for.
public final class FakeS3: Sendable {
    public enum Operation: String, Sendable, CaseIterable {
        case get, put, copy, head, list, headBucket, createBucket
    }

    public enum Harm: Sendable, Hashable {
        /// Answered instead of done.
        case refuse(Int, String)
        /// Done, and then answered as if not.
        case doBut(Int, String)
        /// Reset before an answer; with the request not done, or done.
        case reset, loseAnswer
        /// Reset while the request's body is on its way.
        case breakOff
        /// The right length announced, half of it sent.
        case half
        /// As long as it should be, and another body.
        case wrongBytes
        case silence
    }

    public struct Fault: Sendable {
        var harm: Harm
        var operations: Set<Operation>
        var times: Int
        var headers: [(name: String, value: String)]

        /// - Parameters:
        ///   - times: how often; then the server behaves.
        ///   - headers: added to the answer.
        public init(
            _ harm: Harm, on operations: Set<Operation> = Set(Operation.allCases), times: Int = .max,
            headers: [(name: String, value: String)] = []
        ) {
            self.harm = harm
            self.operations = operations
            self.times = times
            self.headers = headers
        }
    }

    /// A request that arrived, with its status (0: none was sent).
    public struct Seen: Sendable {
        public var operation: Operation
        public var bucket: String
        public var key: String
        public var status: Int
        public var headers: [String: String]
        public var bodyLength: Int
        public var time: MonotonicTime
        /// Of the credential scope.
        public var region: String
        public var accessKey: String
    }

    public struct Object: Sendable {
        public var body: [UInt8]
        public var tag: String
        public var modified: Int64
    }

    /// What may change while it runs.
    public struct Settings: Sendable {
        public var faults: [Fault] = []
        /// Seconds that its clock is ahead of the machine's.
        public var clockOffset: Int64 = 0
        /// Requests signed for another region are sent to this one; nil: any will do.
        public var region: String?
        /// How it says so.
        public var regionAnswer = Harm.refuse(400, "AuthorizationHeaderMalformed")
        /// Buckets that are at another endpoint.
        public var elsewhere: [String: String] = [:]
        public var refusesContentMD5 = false
        /// So many bodies lose a bit on their way here.
        public var damagedBodies = 0
        /// Nobody is answered before so many requests have come together.
        public var gathers = 0
        /// As a proxy that takes the entity tags away.
        public var hidesTags = false
        /// Why the credentials of a request are refused.
        public var judge: @Sendable (_ accessKey: String, _ token: String?) -> (status: Int, code: String)? = { _, _ in nil }
        /// Chance of each request to meet one of these.
        public var chaos: (probability: Double, harms: [Harm]) = (0, [])
        /// Called with each object that was stored, under the server's lock.
        public var didStore: (@Sendable (_ bucket: String, _ key: String, _ body: [UInt8]) -> Void)?
    }

    private let lock = Lock()
    nonisolated(unsafe) private var buckets: [String: [String: Object]] = [:]
    nonisolated(unsafe) private var settings = Settings()
    nonisolated(unsafe) private var seen: [Seen] = []
    nonisolated(unsafe) private var gathered = 0
    nonisolated(unsafe) private var server: LoopbackServer?

    public var port: Int { server?.port ?? 0 }
    public var endpoint: String { "http://127.0.0.1:\(port)" }

    public init() throws {
        server = try LoopbackServer(
            breaksOff: { [weak self] request in self?.breaksOff(request) ?? false },
            { [weak self] request in self?.react(to: request) ?? .reset })
    }

    deinit { server?.stop() }

    public func change(_ body: (inout Settings) -> Void) {
        lock.withLock {
            body(&settings)
            gathered = 0
        }
    }

    /// Forgets what it has seen, and all faults.
    public func reset() {
        lock.withLock {
            settings = Settings()
            seen = []
        }
    }

    public var requests: [Seen] { lock.withLock { seen } }
    public func requests(_ operation: Operation) -> [Seen] { requests.filter { $0.operation == operation } }

    public func object(_ bucket: String, _ key: String) -> Object? { lock.withLock { buckets[bucket]?[key] } }
    public func hasBucket(_ bucket: String) -> Bool { lock.withLock { buckets[bucket] != nil } }
    public func objects(_ bucket: String) -> [String: Object] { lock.withLock { buckets[bucket] ?? [:] } }
    /// For `didStore`, which runs under the lock.
    public func objectsWhileStoring(_ bucket: String) -> [String: Object] { buckets[bucket] ?? [:] }
    public func makeBucket(_ bucket: String) { lock.withLock { buckets[bucket, default: [:]] = buckets[bucket] ?? [:] } }
    public func put(_ bucket: String, _ key: String, _ body: [UInt8]) {
        lock.withLock { buckets[bucket, default: [:]][key] = Self.object(body, now: wallClock().seconds) }
    }
    public func remove(_ bucket: String, _ key: String? = nil) {
        lock.withLock { if let key { buckets[bucket]?[key] = nil } else { buckets[bucket] = nil } }
    }

    // MARK: Requests

    private static func object(_ body: [UInt8], now: Int64) -> Object {
        Object(body: body, tag: Hex.encode(Insecure.MD5.hash(data: body)), modified: now)
    }

    /// Bucket, key and what is to be done. Path style.
    private static func parse(_ request: LoopbackServer.Request) -> (Operation, String, String)? {
        let parts = request.path.dropFirst().split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let bucket = parts.first.flatMap({ Hex.percentDecode($0) }), !bucket.isEmpty else { return nil }
        let key = parts.count > 1 ? Hex.percentDecode(parts[1]) ?? "" : ""
        switch (request.method, key.isEmpty) {
        case ("GET", false): return (.get, bucket, key)
        case ("GET", true): return (.list, bucket, "")
        case ("HEAD", false): return (.head, bucket, key)
        case ("HEAD", true): return (.headBucket, bucket, "")
        case ("PUT", true): return (.createBucket, bucket, "")
        case ("PUT", false): return (request.headers["x-amz-copy-source"] == nil ? .put : .copy, bucket, key)
        default: return nil
        }
    }

    private func breaksOff(_ request: LoopbackServer.Request) -> Bool {
        guard let (operation, bucket, key) = Self.parse(request) else { return false }
        return lock.withLock {
            guard let i = settings.faults.firstIndex(where: { $0.harm == .breakOff && $0.operations.contains(operation) && $0.times > 0 })
            else { return false }
            settings.faults[i].times -= 1
            note(operation, bucket, key, request, status: 0)
            return true
        }
    }

    private func note(
        _ operation: Operation, _ bucket: String, _ key: String, _ request: LoopbackServer.Request, status: Int
    ) {
        let scope = Self.scope(request)
        seen.append(
            Seen(
                operation: operation, bucket: bucket, key: key, status: status, headers: request.headers,
                bodyLength: request.body.count, time: .now, region: scope.region, accessKey: scope.key))
    }

    private static func scope(_ request: LoopbackServer.Request) -> (key: String, region: String) {
        let parts = request.headers["authorization"]?.split(separator: "Credential=").last?.split(separator: ",").first?
            .split(separator: "/").map(String.init)
        guard let parts, parts.count == 5 else { return ("", "") }
        return (parts[0], parts[2])
    }

    private func react(to request: LoopbackServer.Request) -> LoopbackServer.Reaction {
        guard let (operation, bucket, key) = Self.parse(request) else { return .answer(.init(400, "")) }
        return lock.withLock {
            gathered += 1
            lock.broadcast()
            let patience = MonotonicTime.now.advanced(seconds: 20)
            while gathered < settings.gathers, MonotonicTime.now < patience { _ = lock.wait(until: patience) }
            var request = request
            if settings.damagedBodies > 0, !request.body.isEmpty {
                settings.damagedBodies -= 1
                request.body[request.body.count / 2] ^= 1
            }
            let reaction = reactLocked(operation, bucket, key, request)
            switch reaction {
            case .answer(let answer), .half(let answer): note(operation, bucket, key, request, status: answer.status)
            case .reset, .silence: note(operation, bucket, key, request, status: 0)
            }
            return reaction
        }
    }

    private func reactLocked(
        _ operation: Operation, _ bucket: String, _ key: String, _ request: LoopbackServer.Request
    ) -> LoopbackServer.Reaction {
        if let refusal = refusal(operation, bucket, request) { return .answer(refusal) }
        guard let fault = takeFault(operation) else { return .answer(perform(operation, bucket, key, request)) }
        switch fault.harm {
        case .refuse(let status, let code):
            return .answer(error(operation, status, code, headers: fault.headers))
        case .doBut(let status, let code):
            _ = perform(operation, bucket, key, request)
            return .answer(error(operation, status, code, headers: fault.headers))
        case .reset, .breakOff:
            return .reset
        case .loseAnswer:
            _ = perform(operation, bucket, key, request)
            return .reset
        case .half:
            var answer = perform(operation, bucket, key, request)
            if answer.body.isEmpty { answer.body = Array("<Nothing/>".utf8) }
            return .half(answer)
        case .wrongBytes:
            var answer = perform(operation, bucket, key, request)
            answer.body = answer.body.map { ~$0 }
            return .answer(answer)
        case .silence:
            return .silence
        }
    }

    private func takeFault(_ operation: Operation) -> Fault? {
        if let i = settings.faults.firstIndex(where: { $0.operations.contains(operation) && $0.times > 0 }) {
            settings.faults[i].times -= 1
            return settings.faults[i]
        }
        guard Double.random(in: 0..<1) < settings.chaos.probability else { return nil }
        return settings.chaos.harms.randomElement().map { Fault($0) }
    }

    /// What S3 looks at before it does anything.
    private func refusal(_ operation: Operation, _ bucket: String, _ request: LoopbackServer.Request) -> LoopbackServer.Answer? {
        let now = wallClock().seconds + settings.clockOffset
        guard let date = request.headers["x-amz-date"].flatMap(Clock.parseBasic) else {
            return error(operation, 403, "AccessDenied")
        }
        if abs(date - now) > 900 { return error(operation, 403, "RequestTimeTooSkewed") }
        let scope = Self.scope(request)
        if let (status, code) = settings.judge(scope.key, request.headers["x-amz-security-token"]) {
            return error(operation, status, code)
        }
        if let endpoint = settings.elsewhere[bucket] {
            let target = request.path + (request.query.isEmpty ? "" : "?\(request.query)")
            return error(operation, 307, "TemporaryRedirect", headers: [("Location", endpoint + target)])
        }
        if let region = settings.region, scope.region != region, case .refuse(let status, let code) = settings.regionAnswer {
            return error(operation, status, code, headers: [("x-amz-bucket-region", region)], detail: "<Region>\(region)</Region>")
        }
        if let digest = request.headers["content-md5"] {
            if settings.refusesContentMD5 {
                return error(operation, 501, "NotImplemented", detail: "<Header>Content-MD5</Header>")
            }
            if digest != Hex.base64(Insecure.MD5.hash(data: request.body)) { return error(operation, 400, "BadDigest") }
        }
        if request.headers["x-amz-content-sha256"] != Hex.encode(SHA256.hash(data: request.body)) {
            return error(operation, 400, "XAmzContentSHA256Mismatch")
        }
        return nil
    }

    private func error(
        _ operation: Operation, _ status: Int, _ code: String, headers: [(name: String, value: String)] = [], detail: String = ""
    ) -> LoopbackServer.Answer {
        let hasBody = operation != .head && operation != .headBucket
        let xml = "<?xml version=\"1.0\"?>\n<Error><Code>\(code)</Code><Message>as the test wants</Message>\(detail)</Error>"
        return .init(status, headers: [("Date", date)] + headers, body: hasBody && !code.isEmpty ? Array(xml.utf8) : [])
    }

    private var date: String { Clock.http(wallClock().seconds + settings.clockOffset) }

    private func perform(
        _ operation: Operation, _ bucket: String, _ key: String, _ request: LoopbackServer.Request
    ) -> LoopbackServer.Answer {
        let now = wallClock().seconds
        if operation == .createBucket {
            buckets[bucket] = buckets[bucket] ?? [:]
            return .init(200, headers: [("Date", date)])
        }
        guard let objects = buckets[bucket] else { return error(operation, 404, "NoSuchBucket") }
        let object = objects[key]
        func answer(_ object: Object, _ body: [UInt8]) -> LoopbackServer.Answer {
            .init(200, headers: [("Date", date)] + (settings.hidesTags ? [] : [("ETag", "\"\(object.tag)\"")]), body: body)
        }
        switch operation {
        case .createBucket, .headBucket:
            return .init(200, headers: [("Date", date)])
        case .list:
            return list(objects, request.query)
        case .get, .head:
            guard let object else { return error(operation, 404, "NoSuchKey") }
            if request.headers["if-none-match"] == "\"\(object.tag)\"" {
                return .init(304, headers: [("ETag", "\"\(object.tag)\"")])
            }
            return answer(object, operation == .get ? object.body : [])
        case .copy:
            guard var object else { return error(operation, 404, "NoSuchKey") }
            object.modified = now
            buckets[bucket]?[key] = object
            return answer(object, Array("<CopyObjectResult><ETag>\"\(object.tag)\"</ETag></CopyObjectResult>".utf8))
        case .put:
            if request.headers["if-none-match"] == "*", object != nil { return error(operation, 412, "PreconditionFailed") }
            if let tag = request.headers["if-match"] {
                guard let object else { return error(operation, 404, "NoSuchKey") }
                if tag != "\"\(object.tag)\"" { return error(operation, 412, "PreconditionFailed") }
            }
            let new = Self.object(request.body, now: now)
            buckets[bucket]?[key] = new
            settings.didStore?(bucket, key, request.body)
            return answer(new, [])
        }
    }

    /// All at once, whatever the prefix: it serves a few keys.
    private func list(_ objects: [String: Object], _ query: String) -> LoopbackServer.Answer {
        var xml = "<?xml version=\"1.0\"?>\n<ListBucketResult><IsTruncated>false</IsTruncated>"
        for (key, object) in objects.sorted(by: { $0.key.utf8.lexicographicallyPrecedes($1.key.utf8) }) {
            let name = key.split(separator: "&", omittingEmptySubsequences: false).joined(separator: "&amp;")
            xml += "<Contents><Key>\(name)</Key><LastModified>\(Clock.iso(object.modified))</LastModified>"
            xml += "<ETag>\"\(object.tag)\"</ETag><Size>\(object.body.count)</Size></Contents>"
        }
        return .init(200, headers: [("Date", date)], body: Array((xml + "</ListBucketResult>").utf8))
    }
}

/// Hex, base 64 and percent-encoding, apart from the client's own.
enum Hex {
    static func encode(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    static func base64(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        let bytes = Array(bytes)
        var bits = bytes.flatMap { byte in (0..<8).reversed().map { byte >> UInt8($0) & 1 } }
        while bits.count % 6 != 0 { bits.append(0) }
        let text = stride(from: 0, to: bits.count, by: 6).map { digits[Int(bits[$0..<$0 + 6].reduce(0) { $0 << 1 | $1 })] }
        return String(decoding: text, as: UTF8.self) + String(repeating: "=", count: (3 - bytes.count % 3) % 3)
    }

    static func percentDecode(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) else { return nil }
            rest = rest.dropFirst(2)
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}

/// Times as HTTP and AWS write them, by libc.
public enum Clock {
    static func parseBasic(_ text: String) -> Int64? {
        // "20130524T000000Z"
        let digits = text.utf8.filter { (0x30...0x39).contains($0) }.map { Int32($0 - 0x30) }
        guard text.utf8.count == 16, digits.count == 14 else { return nil }
        func number(_ range: Range<Int>) -> Int32 { digits[range].reduce(0) { $0 * 10 + $1 } }
        var time = tm()
        (time.tm_year, time.tm_mon, time.tm_mday) = (number(0..<4) - 1900, number(4..<6) - 1, number(6..<8))
        (time.tm_hour, time.tm_min, time.tm_sec) = (number(8..<10), number(10..<12), number(12..<14))
        return Int64(timegm(&time))
    }
    /// "Fri, 24 May 2013 00:00:00 GMT"
    public static func http(_ seconds: Int64) -> String { format(seconds, "%a, %d %b %Y %H:%M:%S GMT") }
    /// "2013-05-24T00:00:00Z"
    public static func iso(_ seconds: Int64) -> String { format(seconds, "%Y-%m-%dT%H:%M:%SZ") }

    private static func format(_ seconds: Int64, _ pattern: String) -> String {
        var seconds = time_t(seconds)
        var time = tm()
        gmtime_r(&seconds, &time)
        var buffer = [CChar](repeating: 0, count: 64)
        let count = strftime(&buffer, buffer.count, pattern, &time)
        return String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
