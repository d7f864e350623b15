import NIOCore
import NIOHTTP1
import VerneuilStore
import VerneuilSystem

/// Fetches a document by its URL: a plain GET without credentials, so that a
/// manifest can be had from a web server or by a pre-signed URL.
public enum HTTPDownload {
    /// Waits for the network; a few tries where another one may help. Redirections are
    /// reported, not followed. Safe from any thread.
    /// - Parameter limit: longest body that is taken, in bytes.
    public static func get(
        _ url: String, limit: Int, environment: Environment = .ofProcess()
    ) throws(StoreError) -> [UInt8] {
        guard let (origin, target) = Origin.parse(url: url) else {
            throw StoreError(
                .invalid, store: url, operation: "GET",
                reason: "expected a URL such as https://host/path, without a name and password")
        }
        let name = origin.url
        let operation = "GET \(target.prefix { $0 != "?" })"
        var request = HTTPRequest(origin: origin, method: .GET, target: target)
        request.headers.add(name: "user-agent", value: S3Client.userAgent)
        request.limit = limit
        let answer: HTTPAnswer
        do throws(HTTPFailure) {
            answer = try fetch(request, TLSSetup(environment))
        } catch {
            throw StoreError(.unavailable, store: name, operation: operation, reason: error.message)
        }
        switch answer.status {
        case 200: return answer.body
        case 300..<400:
            let place = answer.headers.first(name: "location") ?? "an unnamed place"
            throw StoreError(.invalid, store: name, operation: operation, reason: "redirected to \(place): fetch it from there")
        case 401, 403:
            throw StoreError(.denied, store: name, operation: operation, reason: "refused with status \(answer.status)")
        default:
            throw StoreError(
                answer.status >= 500 ? .unavailable : .invalid, store: name, operation: operation,
                reason: "answered with status \(answer.status)")
        }
    }

    private static func fetch(_ request: HTTPRequest, _ tls: TLSSetup) throws(HTTPFailure) -> HTTPAnswer {
        if request.origin.isTLS { try tls.prepare() }
        let loop: any EventLoop
        do throws(SystemError) { loop = try NetworkLoop.current } catch { throw .unreachable("\(error)") }
        let pool = HTTPPool(loop: loop, tls: tls, limit: 1)
        defer { loop.execute { pool.shutDown() } }
        var attempt = 1
        while true {
            let box = Box()
            loop.execute { pool.execute(request) { box.fill($0) } }
            switch box.take() {
            case .success(let answer) where answer.status < 500 || attempt == 3: return answer
            case .failure(let failure) where attempt == 3: throw failure
            case .failure(.untrusted(let text)): throw .untrusted(text)
            case .failure(.tooLarge(let size)): throw .tooLarge(size)
            case .success, .failure: attempt += 1
            }
        }
    }

    private final class Box: @unchecked Sendable {
        private let lock = Lock()
        private var result: Result<HTTPAnswer, HTTPFailure>?

        func fill(_ value: Result<HTTPAnswer, HTTPFailure>) {
            lock.withLock {
                result = value
                lock.signal()
            }
        }
        func take() -> Result<HTTPAnswer, HTTPFailure> {
            lock.withLock {
                while true {
                    if let result { return result }
                    lock.wait()
                }
            }
        }
    }
}
