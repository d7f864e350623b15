import NIOCore
import NIOHTTP1

/// One request as it goes over the wire.
struct HTTPRequest: Sendable {
    var origin: Origin
    var method: HTTPMethod
    /// Path and query, encoded.
    var target: String
    /// All but Host and Content-Length, which are added.
    var headers: HTTPHeaders = [:]
    var body: ByteBuffer?
    /// Longest body that is taken from an answer with a 2xx status, in bytes.
    /// Of other answers 64 KiB are kept, and the rest is dropped.
    var limit: Int = 1 << 20
    var timeouts = HTTPTimeouts()
}

struct HTTPTimeouts: Hashable, Sendable {
    /// Until there is a connection: name, TCP and TLS, in seconds.
    var connect: Double = 10
    /// Without a byte sent or received, in seconds.
    var idle: Double = 30
    /// A request may take twice `idle`, and as long as what it has moved of both bodies takes at so many bytes a second.
    var leastRate: Double = 1024
}

struct HTTPAnswer: Sendable {
    var status: Int
    var headers: HTTPHeaders
    var body: [UInt8]
}

/// Why there is no whole answer.
enum HTTPFailure: Error, Sendable {
    /// No connection was made, and none of the request was sent.
    case unreachable(String)
    /// The server's certificate is not accepted. Another try won't help.
    case untrusted(String)
    /// The connection broke; the server may have seen the request.
    case interrupted(String)
    /// There was a connection, and then nothing.
    case timedOut(String)
    /// The answer has, or will have, this many bytes and more.
    case tooLarge(Int)

    var message: String {
        switch self {
        case .unreachable(let text), .untrusted(let text), .interrupted(let text), .timedOut(let text): return text
        case .tooLarge(let size): return "the answer has \(size) bytes or more, which is more than it may have"
        }
    }
}
