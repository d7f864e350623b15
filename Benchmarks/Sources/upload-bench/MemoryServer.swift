import CVerneuil
import Crypto
import Glibc
import VerneuilSystem

/// As much of S3 as uploads need, in memory: a thread for each connection, each
/// body checked against its Content-MD5 and SHA-256, and kept. Nothing else is checked.
/// GET /cpu answers with the seconds of CPU that the process has used.
final class MemoryServer: Sendable {
    private let lock = Lock()
    nonisolated(unsafe) private var objects: [String: [UInt8]] = [:]

    /// Prints the port, and serves until standard input ends.
    func run() throws {
        let listener = try Sockets.make()
        var address = Sockets.address(0)
        var length = socklen_t(16)
        let code = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, 16) == 0 && listen(listener, 1024) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        guard code else { throw Failure(description: "can't listen") }
        say("\(UInt16(bigEndian: address.sin_port))")
        try Threads.spawn("parent") {
            while getchar() != EOF {}
            exit(0)
        }
        while true {
            let fd = accept(listener, nil, nil)
            if fd < 0 { continue }
            var one: Int32 = 1
            setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
            try Threads.spawn("serve") { [self] in
                serve(fd)
                _ = vrn_close(fd)
            }
        }
    }

    private func serve(_ fd: Int32) {
        let capacity = 1 << 20
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
        defer { buffer.deallocate() }
        var filled = 0
        while true {
            // The head.
            var end = 0
            while true {
                end = Self.endOfHead(UnsafeRawBufferPointer(rebasing: buffer[..<filled]))
                if end > 0 { break }
                let count = vrn_read(fd, buffer.baseAddress.map { $0 + filled }, capacity - filled)
                if count <= 0 { return }
                filled += count
            }
            let head = String(decoding: buffer[..<end], as: UTF8.self)
            let headers = Self.headers(head)
            let length = headers["content-length"].flatMap { Int($0) } ?? 0
            guard end + length <= capacity else { return }
            while filled < end + length {
                let count = vrn_read(fd, buffer.baseAddress.map { $0 + filled }, end + length - filled)
                if count <= 0 { return }
                filled += count
            }
            let body = UnsafeRawBufferPointer(rebasing: buffer[end..<end + length])
            let answer = answer(head, headers, body)
            guard answer.withUnsafeBytes({ Sockets.writeAll(fd, $0) }) else { return }
            let rest = filled - end - length
            if rest > 0, let base = buffer.baseAddress { memmove(base, base + end + length, rest) }
            filled = rest
        }
    }

    private static func endOfHead(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let base = bytes.baseAddress, let found = memmem(base, bytes.count, "\r\n\r\n", 4) else { return 0 }
        return UnsafeRawPointer(found) - base + 4
    }

    private static func headers(_ head: String) -> [String: String] {
        var headers: [String: String] = [:]
        for line in head.split(separator: "\r\n").dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            headers[line[..<colon].lowercased()] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        return headers
    }

    private func answer(_ head: String, _ headers: [String: String], _ body: UnsafeRawBufferPointer) -> [UInt8] {
        let words = head.prefix { $0 != "\r\n" }.split(separator: " ")
        guard words.count == 3 else { return Self.text(400, "") }
        if words[1] == "/cpu" { return Self.text(200, "\(cpuSeconds())") }
        guard words[0] == "PUT" else { return Self.text(200, "") }
        var md5 = Insecure.MD5()
        md5.update(bufferPointer: body)
        var sha = SHA256()
        sha.update(bufferPointer: body)
        let hex = sha.finalize().map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
        let digest = Base64.encode(Array(md5.finalize()))
        if headers["content-md5"] ?? digest != digest || headers["x-amz-content-sha256"] ?? hex != hex {
            return Self.text(400, "<Error><Code>BadDigest</Code></Error>")
        }
        let kept = Array(body)
        lock.withLock { objects[String(words[1])] = kept }
        return Self.text(200, "", header: "ETag: \"\(digest)\"\r\n")
    }

    private static func text(_ status: Int, _ text: String, header: String = "") -> [UInt8] {
        Array("HTTP/1.1 \(status) X\r\n\(header)Content-Length: \(text.utf8.count)\r\n\r\n\(text)".utf8)
    }
}

/// The server in a process of its own, which ends with this one.
final class ServerProcess {
    let port: Int
    private let input: UnsafeMutablePointer<FILE>

    /// - Parameter directory: a scratch one.
    init(in directory: String) throws {
        // popen has one direction; the port comes through a file.
        let path = "\(directory)/port"
        let program = CommandLine.arguments[0]
        guard let input = popen("exec '\(program)' serve >'\(path)'", "we") else { throw Failure(description: "popen") }
        self.input = input
        let deadline = MonotonicTime.now.advanced(seconds: 30)
        while true {
            if let bytes = try Files.read(path), bytes.last == 0x0A,
                let port = Int(String(decoding: bytes.dropLast(), as: UTF8.self))
            {
                self.port = port
                return
            }
            guard .now < deadline else { throw Failure(description: "no server") }
            usleep(10_000)
        }
    }

    func cpuSeconds() -> Double {
        guard let fd = try? Sockets.connect(port) else { return 0 }
        defer { _ = vrn_close(fd) }
        let request = Array("GET /cpu HTTP/1.1\r\n\r\n".utf8)
        var answer = [UInt8](repeating: 0, count: 4096)
        guard request.withUnsafeBytes({ Sockets.writeAll(fd, $0) }) else { return 0 }
        let count = answer.withUnsafeMutableBytes { vrn_read(fd, $0.baseAddress, $0.count) }
        let text = String(decoding: answer.prefix(max(0, count)), as: UTF8.self)
        return text.split(separator: "\r\n").last.flatMap { Double($0) } ?? 0
    }

    func stop() { pclose(input) }
}
