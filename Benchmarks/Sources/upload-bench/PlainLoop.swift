import CVerneuil
import Glibc
import VerneuilSystem

/// PUTs of given bodies on so many connections, a thread for each: nothing is
/// computed but which body is next. What S3 wants in a head is made beforehand.
final class PlainLoop: Sendable {
    private let place: Place
    private let connections: Int
    private let heads: [[UInt8]]
    private let bodies: [MeasuredStore.Body]
    private let perSecond: Double?
    private let lock = Lock()
    nonisolated(unsafe) private var next = 0
    nonisolated(unsafe) private var running = 0
    nonisolated(unsafe) private var flaw: String?

    init(_ place: Place, connections: Int, bodies: [MeasuredStore.Body], perSecond: Double?) {
        self.place = place
        self.connections = connections
        self.bodies = bodies
        self.perSecond = perSecond
        heads = bodies.map { place.putHead(key: $0.key, body: $0.bytes) }
    }

    func run() throws -> Run {
        let sockets = try (0..<connections).map { _ in try Sockets.connect(place.port) }
        let start = MonotonicTime.now
        let cpu = cpuSeconds()
        running = connections
        for fd in sockets {
            try Threads.spawn("plain") { [self] in
                work(fd, start)
                lock.withLock {
                    running -= 1
                    lock.signal()
                }
            }
        }
        lock.withLock { while running > 0 { lock.wait() } }
        var run = Run()
        run.seconds = MonotonicTime.now.seconds(since: start)
        run.cpu = cpuSeconds() - cpu
        run.requests = bodies.count
        run.bytes = bodies.reduce(0) { $0 + $1.bytes.count }
        if let flaw = lock.withLock({ flaw }) { throw Failure(description: flaw) }
        return run
    }

    private func work(_ fd: Int32, _ start: MonotonicTime) {
        defer { _ = vrn_close(fd) }
        var answer = [UInt8](repeating: 0, count: 4096)
        while true {
            let i = lock.withLock {
                next += 1
                return next - 1
            }
            guard i < bodies.count else { return }
            if let perSecond {
                // As the client's budget: a burst of a second's requests, and then so many per second.
                let due = (Double(i) - perSecond) / perSecond - MonotonicTime.now.seconds(since: start)
                if due > 0 { usleep(UInt32(due * 1e6)) }
            }
            let sent = heads[i].withUnsafeBytes { Sockets.writeAll(fd, $0) } && bodies[i].bytes.withUnsafeBytes { Sockets.writeAll(fd, $0) }
            let count = sent ? answer.withUnsafeMutableBytes { vrn_read(fd, $0.baseAddress, $0.count) } : 0
            guard count > 12, answer[9] == UInt8(ascii: "2") else {
                lock.withLock { flaw = "the server refused a PUT: \(String(decoding: answer.prefix(max(0, count)), as: UTF8.self))" }
                return
            }
        }
    }
}

/// RFC 4648.
enum Base64 {
    static func encode(_ bytes: [UInt8]) -> String {
        let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(0) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for i in 0..<4 { text.append(i <= group.count ? digits[Int(bits >> UInt32(18 - 6 * i) & 63)] : UInt8(ascii: "=")) }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
