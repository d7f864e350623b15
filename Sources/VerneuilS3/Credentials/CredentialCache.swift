import Logging
import NIOCore
import VerneuilSystem

/// The credentials in use: one look-up at a time for all requests, renewed
/// before they expire, while the old ones still serve; absence is believed for
/// a while. Look-ups run on a thread of their own. Confined to its event loop.
final class CredentialCache: @unchecked Sendable {
    typealias Completion = (Result<Held, Failure>) -> Void

    /// Credentials with the number of the look-up that brought them.
    struct Held {
        var credentials: S3Credentials
        var generation: Int
        /// Until when they serve, by a clock that nobody sets; nil where they last.
        var until: MonotonicTime?

        var isValid: Bool { until.map { $0 > .now } ?? true }
    }
    struct Failure: Error {
        var reason: String
    }

    private let provider: any CredentialProvider
    private let context: CredentialContext
    private let loop: any EventLoop
    private let pause: Double
    private let logger: Logger

    private var held: Held?
    /// When to look for new ones though the old ones serve.
    private var renewal: MonotonicTime?
    private var failure: (reason: String, until: MonotonicTime)?
    private var isLooking = false
    private var waiting: [Completion] = []
    /// When a server last made us look again, and nothing new was found.
    private var lastVainDemand: MonotonicTime?
    /// Seconds that the last look-up took.
    private var effort = 0.0

    /// Credentials are renewed so long before they expire, in seconds, or after
    /// half of their time where that is later.
    private static let lead = 300.0...600.0

    /// - Parameter pause: how long to believe that there are none, in seconds.
    init(
        _ provider: any CredentialProvider, context: CredentialContext, loop: any EventLoop, pause: Double,
        logger: Logger
    ) {
        self.provider = provider
        self.context = context
        self.loop = loop
        self.pause = pause
        self.logger = logger
    }

    var current: S3Credentials? { held?.credentials }

    func get(_ completion: @escaping Completion) {
        let now = MonotonicTime.now
        if let held, held.isValid {
            if let renewal, renewal <= now { look() }
            return completion(.success(held))
        }
        if let failure, failure.until > now { return completion(.failure(Failure(reason: failure.reason))) }
        waiting.append(completion)
        look()
    }

    /// A server has refused the credentials of that look-up: gets others, and
    /// answers whether there are any. A provider that keeps bringing the same ones
    /// is asked again after a hundred times what that took, 1 to 10 s: whoever
    /// corrects a file is not answered with what stood there before.
    func replace(_ refused: Held, _ completion: @escaping (Bool) -> Void) {
        if let held, held.generation != refused.generation {
            return completion(!held.credentials.hasSameSecrets(as: refused.credentials))
        }
        if !isLooking, let lastVainDemand, MonotonicTime.now.seconds(since: lastVainDemand) < min(max(1, 100 * effort), 10) {
            return completion(false)
        }
        waiting.append { [self] result in
            var isNew = false
            if case .success(let held) = result { isNew = !held.credentials.hasSameSecrets(as: refused.credentials) }
            if !isNew { lastVainDemand = .now }
            completion(isNew)
        }
        look()
    }

    private func look() {
        guard !isLooking else { return }
        isLooking = true
        do throws(SystemError) {
            try Threads.spawn("vrn-credentials") { [self] in
                let began = MonotonicTime.now
                let result: Result<S3Credentials, CredentialError>
                do throws(CredentialError) {
                    result = .success(try provider.load(context))
                } catch {
                    result = .failure(error)
                }
                let effort = MonotonicTime.now.seconds(since: began)
                loop.execute {
                    self.effort = effort
                    self.found(result)
                }
            }
        } catch {
            found(.failure(.failed("\(error)")))
        }
    }

    private func found(_ result: Result<S3Credentials, CredentialError>) {
        isLooking = false
        let now = MonotonicTime.now
        switch result {
        case .success(let credentials):
            if held?.credentials.source != credentials.source {
                logger.info("credentials found", metadata: ["source": "\(credentials.source)"])
            }
            held = Held(credentials: credentials, generation: (held?.generation ?? 0) + 1)
            failure = nil
            renewal = nil
            if let expiration = credentials.expiration { limit(to: Double(expiration - wallClock().seconds), now) }
        case .failure(.absent(let reason)), .failure(.failed(let reason)):
            failed(reason, now)
        }
        let answer: Result<Held, Failure>
        if let held, held.isValid {
            answer = .success(held)
        } else {
            answer = .failure(Failure(reason: failure?.reason ?? "no credentials"))
        }
        let waiting = waiting
        self.waiting = []
        for completion in waiting { completion(answer) }
    }

    /// - Parameter lifetime: seconds that are left by this machine's clock.
    private func limit(to lifetime: Double, _ now: MonotonicTime) {
        guard lifetime > 0 else {
            // Either their source is ill, or our clock is ahead. The server knows: it refuses them, or takes them.
            held?.until = now.advanced(seconds: 2 * pause)
            renewal = now.advanced(seconds: pause)
            logger.warning(
                "credentials have expired already by this machine's clock, and are tried all the same",
                metadata: ["source": "\(held?.credentials.source ?? "")", "seconds": "\(Int(-lifetime))"])
            return
        }
        held?.until = now.advanced(seconds: lifetime)
        renewal = now.advanced(seconds: max(lifetime - .random(in: Self.lead), lifetime * .random(in: 0.4...0.6)))
    }

    private func failed(_ reason: String, _ now: MonotonicTime) {
        failure = (reason, now.advanced(seconds: pause))
        // Where the old ones still serve, don't wait until they don't.
        if let until = held?.until {
            renewal = now.advanced(seconds: min(pause, max(1, until.seconds(since: now) / 4)))
        }
        logger.warning("no new credentials", metadata: ["reason": "\(reason)"])
    }
}
