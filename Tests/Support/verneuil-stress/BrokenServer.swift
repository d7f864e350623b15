import CVerneuil
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#else
import Darwin
#endif

/// A store that is no use, on the loopback. Lives as long as the process that has made it.
enum BrokenServer: String, CaseIterable, Sendable {
    /// Nobody listens at its port.
    case unreachable
    /// Takes connections and requests, and never answers.
    case hanging
    /// Answers everything with 403.
    case refusing

    /// Its port.
    func start() throws -> Int {
        let (fd, port) = try Self.listen()
        switch self {
        case .unreachable: _ = vrn_close(fd)
        case .hanging: try Threads.spawn("hanging") { Self.serve(fd) { Self.drain($0) } }
        case .refusing:
            try Threads.spawn("refusing") {
                Self.serve(fd) { connection in
                    Self.refuse(connection)
                    shutdown(connection, Int32(SHUT_WR))
                    Self.drain(connection)
                }
            }
        }
        return port
    }

    /// A socket that listens, and its port: a free one. (Not TestServers', which needs what sanitizer builds leave out.)
    private static func listen() throws -> (fd: Int32, port: Int) {
        #if os(Linux)
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        #else
        let fd = socket(AF_INET, SOCK_STREAM, 0)
        #endif
        try SystemError.check(fd < 0 ? -vrn_errno() : fd, "socket", "127.0.0.1")
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, length) == 0 && getsockname(fd, $0, &length) == 0
            }
        }
        #if canImport(Glibc)
        let isListening = isBound && Glibc.listen(fd, 512) == 0
        #else
        let isListening = isBound && Darwin.listen(fd, 512) == 0
        #endif
        if !isListening { throw SystemError("listen", "127.0.0.1", vrn_errno()) }
        return (fd, Int(UInt16(bigEndian: address.sin_port)))
    }

    private static func serve(_ fd: Int32, _ answer: @escaping @Sendable (Int32) -> Void) {
        while true {
            let connection = accept(fd, nil, nil)
            if connection < 0 {
                usleep(10_000)
                continue
            }
            let work: @Sendable () -> Void = {
                answer(connection)
                _ = vrn_close(connection)
            }
            do throws(SystemError) { try Threads.spawn("connection", work) } catch { _ = vrn_close(connection) }
        }
    }

    /// Reads what comes until the client has had enough.
    private static func drain(_ connection: Int32) {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while vrn_read(connection, &buffer, buffer.count) > 0 {}
    }

    /// Reads a request's head, and refuses it.
    private static func refuse(_ connection: Int32) {
        var head: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while head.firstRange(of: [13, 10, 13, 10] as [UInt8]) == nil {
            let count = vrn_read(connection, &buffer, buffer.count)
            if count <= 0 { return }
            head += buffer[..<count]
        }
        let body = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        let text = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
        _ = text.withCString { send(connection, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
    }
}
