import CVerneuil
import NIOCore
import NIOHTTP1
import NIOSSL
import VerneuilSystem

/// What credential providers work with: plain HTTP requests that block, with
/// short time-outs and a few tries.
public final class CredentialContext: Sendable {
    private let pool: HTTPPool
    private let tls: TLSSetup

    init(pool: HTTPPool, tls: TLSSetup) {
        self.pool = pool
        self.tls = tls
    }

    struct Reply {
        var status: Int
        var body: [UInt8]
        var text: Substring { String(decoding: body, as: UTF8.self)[...] }
    }

    /// - Parameters:
    ///   - tries: on network errors, time-outs, 429 and 5xx, with a growing pause between.
    ///   - timeout: for the connection, and then without an answer, in seconds.
    func fetch(
        _ method: HTTPMethod, _ origin: Origin, _ target: String, headers: HTTPHeaders = [:],
        body: [UInt8]? = nil, timeout: Double = 5, tries: Int = 3
    ) throws(HTTPFailure) -> Reply {
        var request = HTTPRequest(origin: origin, method: method, target: target, headers: headers)
        request.headers.add(name: "user-agent", value: S3Client.userAgent)
        request.body = body.map { ByteBuffer(bytes: $0) }
        request.limit = 1 << 20
        request.timeouts = HTTPTimeouts(connect: timeout, idle: timeout)
        if origin.isTLS { try tls.prepare() }
        var pause: UInt32 = 100_000
        var attempt = 1
        while true {
            let result = wait(request)
            switch result {
            case .success(let answer) where attempt < tries && (answer.status == 429 || answer.status >= 500): break
            case .success(let answer): return Reply(status: answer.status, body: answer.body)
            case .failure(.untrusted(let text)): throw .untrusted(text)
            case .failure(let failure) where attempt >= tries: throw failure
            case .failure: break
            }
            Threads.pause(microseconds: UInt32.random(in: pause / 2...pause))
            pause *= 3
            attempt += 1
        }
    }

    private func wait(_ request: HTTPRequest) -> Result<HTTPAnswer, HTTPFailure> {
        final class Box: @unchecked Sendable {
            let lock = Lock()
            var result: Result<HTTPAnswer, HTTPFailure>?
        }
        let box = Box()
        pool.loop.execute { [pool] in
            pool.execute(request) { result in
                box.lock.withLock {
                    box.result = result
                    box.lock.signal()
                }
            }
        }
        return box.lock.withLock {
            while true {
                if let result = box.result { return result }
                box.lock.wait()
            }
        }
    }
}
