import CVerneuil
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// An HTTP/1.1 server in this process, on the loopback, which answers as a
/// closure says, or misbehaves as it says. A thread for each connection, whose
/// signals are blocked: a client that goes away raises no SIGPIPE.
public final class LoopbackServer: Sendable {
    public struct Request: Sendable {
        public var method: String
        /// As it was sent, still encoded, without the query.
        public var path: String
        public var query: String
        /// By lower-case name.
        public var headers: [String: String]
        public var body: [UInt8] = []
    }

    public struct Answer: Sendable {
        public var status: Int
        public var headers: [(name: String, value: String)]
        public var body: [UInt8]

        public init(_ status: Int, headers: [(name: String, value: String)] = [], body: [UInt8] = []) {
            self.status = status
            self.headers = headers
            self.body = body
        }
        public init(_ status: Int, _ text: String) { self.init(status, body: Array(text.utf8)) }
    }

    public enum Reaction: Sendable {
        case answer(Answer)
        /// The connection is reset.
        case reset
        /// The head and half of the body, then the end of the connection.
        case half(Answer)
        /// Nothing, until the client or this server gives up.
        case silence
    }

    public let port: Int
    public var endpoint: String { "http://127.0.0.1:\(port)" }

    private let listener: Int32
    private let lock = Lock()
    nonisolated(unsafe) private var open: Set<Int32> = []
    nonisolated(unsafe) private var isStopped = false
    private let breaksOff: @Sendable (Request) -> Bool
    private let react: @Sendable (Request) -> Reaction

    /// - Parameters:
    ///   - breaksOff: asked when the head of a request is there: whether to reset the connection in the middle of its body.
    ///   - react: asked when the whole of it is. Both run on the connections' threads.
    public init(
        breaksOff: @escaping @Sendable (Request) -> Bool = { _ in false },
        _ react: @escaping @Sendable (Request) -> Reaction
    ) throws {
        self.breaksOff = breaksOff
        self.react = react
        (listener, port) = try LoopbackHTTP.listen()
        let listener = listener
        try Threads.spawn("loopback-server") { [weak self] in
            while true {
                let fd = accept(listener, nil, nil)
                if fd < 0 && vrn_errno() == EINTR { continue }
                guard fd >= 0, let self else {
                    if fd >= 0 { _ = vrn_close(fd) }
                    break
                }
                self.serve(fd)
            }
            _ = vrn_close(listener)
        }
    }

    deinit { stop() }

    /// Ends all connections. Answers under way are cut off.
    public func stop() {
        lock.withLock {
            if isStopped { return }
            isStopped = true
            shutdown(listener, Int32(SHUT_RDWR))
            for fd in open { shutdown(fd, Int32(SHUT_RDWR)) }
        }
    }

    private func serve(_ fd: Int32) {
        var one: Int32 = 1
        setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        let mayServe = lock.withLock {
            if !isStopped { open.insert(fd) }
            return !isStopped
        }
        let work: @Sendable () -> Void = { [weak self] in
            var connection = Connection(fd: fd)
            while let self, self.serveOne(&connection) {}
            self?.lock.withLock { _ = self?.open.remove(fd) }
            _ = vrn_close(fd)
        }
        if !mayServe || (try? Threads.spawn("loopback", work)) == nil { _ = vrn_close(fd) }
    }

    /// false: the connection is at its end.
    private func serveOne(_ connection: inout Connection) -> Bool {
        guard var request = connection.readHead() else { return false }
        let length = request.headers["content-length"].flatMap { Int($0) } ?? 0
        if breaksOff(request) {
            _ = connection.readBody(length / 2)
            connection.reset()
            return false
        }
        guard let body = connection.readBody(length) else { return false }
        request.body = body
        switch react(request) {
        case .answer(let answer):
            return connection.send(answer, isHead: request.method == "HEAD")
                && request.headers["connection"]?.lowercased() != "close"
        case .half(let answer):
            var half = answer
            half.body.removeLast((answer.body.count + 1) / 2)
            _ = connection.send(half, isHead: false, length: answer.body.count)
            return false
        case .reset:
            connection.reset()
            return false
        case .silence:
            _ = connection.readBody(.max)
            return false
        }
    }

    private struct Connection {
        let fd: Int32
        /// What has been read and not used.
        private var rest: [UInt8] = []

        init(fd: Int32) { self.fd = fd }

        mutating func readHead() -> Request? {
            let end = Array("\r\n\r\n".utf8)
            var searched = 0
            while true {
                if let start = rest[searched...].firstRange(of: end) {
                    let text = String(decoding: rest[..<start.lowerBound], as: UTF8.self)
                    rest.removeFirst(start.upperBound)
                    return Self.parse(text)
                }
                // TLS, where none is spoken: real servers say so as well.
                if rest.first == 0x16 {
                    _ = send(Answer(400, "speak HTTP"), isHead: false)
                    return nil
                }
                searched = max(0, rest.count - 3)
                guard rest.count < 1 << 16, let more = readSome(1 << 16) else { return nil }
                rest += more
            }
        }

        private static func parse(_ text: String) -> Request? {
            let lines = text.split(separator: "\r\n")
            let words = (lines.first ?? "").split(separator: " ")
            guard words.count == 3 else { return nil }
            let target = words[1].split(separator: "?", maxSplits: 1)
            var headers: [String: String] = [:]
            for line in lines.dropFirst() {
                guard let colon = line.firstIndex(of: ":") else { return nil }
                headers[line[..<colon].lowercased()] = String(line[line.index(after: colon)...].drop { $0 == " " })
            }
            return Request(
                method: String(words[0]), path: String(target.first ?? "/"),
                query: target.count > 1 ? String(target[1]) : "", headers: headers)
        }

        /// nil: the client went away.
        mutating func readBody(_ length: Int) -> [UInt8]? {
            var body = Array(rest.prefix(length))
            rest.removeFirst(body.count)
            body.reserveCapacity(min(length, 1 << 20))
            while body.count < length {
                guard let more = readSome(min(length - body.count, 1 << 18)) else { return nil }
                body += more
            }
            return body
        }

        private func readSome(_ limit: Int) -> [UInt8]? {
            let bytes = [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
                count = max(0, vrn_read(fd, buffer.baseAddress, limit))
            }
            return bytes.isEmpty ? nil : bytes
        }

        func send(_ answer: Answer, isHead: Bool, length: Int? = nil) -> Bool {
            var head = "HTTP/1.1 \(answer.status) \(answer.status < 300 ? "OK" : "No")\r\n"
            for header in answer.headers { head += "\(header.name): \(header.value)\r\n" }
            if answer.status != 204 && answer.status != 304 {
                head += "Content-Length: \(length ?? answer.body.count)\r\n"
            }
            var bytes = Array((head + "\r\n").utf8)
            if !isHead { bytes += answer.body }
            var sent = 0
            while sent < bytes.count {
                let count = bytes.withUnsafeBytes { vrn_write(fd, $0.baseAddress.map { $0 + sent }, $0.count - sent) }
                if count <= 0 { return false }
                sent += count
            }
            return true
        }

        func reset() {
            var atOnce = linger(l_onoff: 1, l_linger: 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &atOnce, socklen_t(MemoryLayout<linger>.size))
        }
    }
}
