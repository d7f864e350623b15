import CVerneuil

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Blocking HTTP on the loopback, for controlling servers: one request per connection.
public enum LoopbackHTTP {
    public struct Failure: Error {}

    #if os(Linux)
    private static let stream = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    #else
    private static let stream = SOCK_STREAM
    #endif

    private static func withAddress<T>(_ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// A connected socket.
    public static func connect(_ port: Int) throws -> Int32 {
        let fd = socket(AF_INET, stream, 0)
        guard fd >= 0 else { throw Failure() }
        let result = withAddress(port) {
            #if canImport(Glibc)
            return Glibc.connect(fd, $0, $1)
            #elseif canImport(Musl)
            return Musl.connect(fd, $0, $1)
            #else
            return Darwin.connect(fd, $0, $1)
            #endif
        }
        if result == 0 { return fd }
        _ = vrn_close(fd)
        throw Failure()
    }

    /// A listening socket on a port that the kernel chooses.
    static func listen() throws -> (fd: Int32, port: Int) {
        let fd = socket(AF_INET, stream, 0)
        guard fd >= 0 else { throw Failure() }
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isListening =
            withAddress(0) { bind(fd, $0, $1) } == 0 && listenOn(fd, 1024) == 0
            && withUnsafeMutablePointer(to: &address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) }
            } == 0
        if isListening { return (fd, Int(UInt16(bigEndian: address.sin_port))) }
        _ = vrn_close(fd)
        throw Failure()
    }

    private static func listenOn(_ fd: Int32, _ backlog: Int32) -> Int32 {
        #if canImport(Glibc)
        return Glibc.listen(fd, backlog)
        #elseif canImport(Musl)
        return Musl.listen(fd, backlog)
        #else
        return Darwin.listen(fd, backlog)
        #endif
    }

    static func canListen(on port: Int) -> Bool {
        let fd = socket(AF_INET, stream, 0)
        guard fd >= 0 else { return false }
        defer { _ = vrn_close(fd) }
        return withAddress(port) { bind(fd, $0, $1) } == 0
    }

    /// Status and body of the answer.
    public static func request(
        _ method: String, port: Int, path: String, body: String = ""
    ) throws -> (status: Int, body: String) {
        let fd = try connect(port)
        defer { _ = vrn_close(fd) }
        let text =
            "\(method) \(path) HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { vrn_write(fd, $0.baseAddress, $0.count) }
            guard sent > 0 else { throw Failure() }
            rest = rest.dropFirst(sent)
        }
        var answer: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = buffer.withUnsafeMutableBytes { vrn_read(fd, $0.baseAddress, $0.count) }
            guard count >= 0 else { throw Failure() }
            if count == 0 { break }
            answer += buffer[..<count]
        }
        let whole = String(decoding: answer, as: UTF8.self)
        guard let end = whole.firstRange(of: "\r\n\r\n"),
            let status = whole.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { throw Failure() }
        return (status, String(whole[end.upperBound...]))
    }
}
