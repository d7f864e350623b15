import NIOCore
import NIOHTTP1
import NIOTLS

/// A request on its way, with what is to happen at its end.
final class HTTPExchange {
    let request: HTTPRequest
    let completion: (Result<HTTPAnswer, HTTPFailure>) -> Void
    /// Called when it is sent once more, since a kept connection turned out to be closed.
    let resent: () -> Void
    var staleTries = 0

    init(
        _ request: HTTPRequest, resent: @escaping () -> Void,
        _ completion: @escaping (Result<HTTPAnswer, HTTPFailure>) -> Void
    ) {
        self.request = request
        self.resent = resent
        self.completion = completion
    }
}

/// One connection and, at most, one request on it. Confined to its event loop.
///
/// A connection is kept for the next request only where the whole request was
/// sent, the whole answer received, and neither side asked for the end.
final class HTTPConnection: ChannelInboundHandler, @unchecked Sendable {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    /// What the pool wants to know.
    protocol Owner: AnyObject {
        /// The connection can take the next request.
        func connectionIsIdle(_ connection: HTTPConnection)
        func connectionClosed(_ connection: HTTPConnection)
        /// A kept connection was closed without a byte of an answer: mostly
        /// before the server saw the request, which may go elsewhere.
        func connectionWasStale(_ connection: HTTPConnection, _ exchange: HTTPExchange)
        func bodyBytesMoved(sent: Int, received: Int)
    }

    let origin: Origin
    private weak var owner: Owner?
    private var context: ChannelHandlerContext?
    private var opening: ((HTTPFailure?) -> Void)?
    private var isClosed = false
    /// The last thing that went wrong, for messages.
    private var trouble: HTTPFailure?

    private var exchange: HTTPExchange?
    private var answersSoFar = 0
    private var requestIsSent = false
    private var status: HTTPResponseHead?
    private var body: [UInt8] = []
    private var bodyLimit = 0
    private var sawByte = false
    private var lastProgress = NIODeadline.now()
    /// Of this exchange, in both directions.
    private var started = NIODeadline.now()
    private var bodyBytesMoved = 0
    private var watch: Scheduled<Void>?

    /// How long the server says it keeps an idle connection, in seconds.
    private(set) var keepAlive: Int64?
    var idleSince = NIODeadline.now()
    /// Whether the pool counts it.
    var isPooled = false

    /// Bodies are handed to the channel in pieces of so many bytes, so that
    /// progress shows.
    private static let piece = 256 << 10
    private static let errorBodyLimit = 64 << 10

    /// - Parameter opened: called once, when requests can be sent (nil), or never will be.
    init(origin: Origin, owner: Owner, opened: @escaping (HTTPFailure?) -> Void) {
        self.origin = origin
        self.owner = owner
        self.opening = opened
    }

    // MARK: Requests

    func start(_ exchange: HTTPExchange) {
        guard let context, !isClosed else {
            exchange.completion(.failure(.interrupted("the connection is closed")))
            return
        }
        self.exchange = exchange
        requestIsSent = false
        status = nil
        body = []
        sawByte = false
        progress()
        started = lastProgress
        bodyBytesMoved = 0
        watchProgress(of: exchange, context.eventLoop)

        let request = exchange.request
        var head = HTTPRequestHead(version: .http1_1, method: request.method, uri: request.target)
        head.headers.reserveCapacity(request.headers.count + 2)
        head.headers.add(name: "host", value: origin.authority)
        head.headers.add(contentsOf: request.headers)
        if let length = request.body?.readableBytes {
            head.headers.add(name: "content-length", value: String(length))
        } else if request.method == .PUT || request.method == .POST {
            head.headers.add(name: "content-length", value: "0")
        }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if var rest = request.body {
            owner?.bodyBytesMoved(sent: rest.readableBytes, received: 0)
            while let piece = rest.readSlice(length: min(rest.readableBytes, Self.piece)), piece.readableBytes > 0 {
                let sent = context.eventLoop.makePromise(of: Void.self)
                let count = piece.readableBytes
                sent.futureResult.assumeIsolated().whenSuccess { [weak self] in
                    guard let self, self.exchange === exchange else { return }
                    bodyBytesMoved += count
                    progress()
                }
                context.write(wrapOutboundOut(.body(.byteBuffer(piece))), promise: sent)
            }
        }
        let sent = context.eventLoop.makePromise(of: Void.self)
        sent.futureResult.assumeIsolated().whenSuccess { [weak self] in
            guard let self, self.exchange === exchange else { return }
            requestIsSent = true
            progress()
        }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: sent)
    }

    func close() {
        guard !isClosed, let context else { return }
        context.close(promise: nil)
    }

    private func progress() { lastProgress = .now() }

    /// Ends the exchange where nothing moves, or so little that it would take for ever: checked when either could first
    /// be so, and then again.
    private func watchProgress(of exchange: HTTPExchange, _ loop: any EventLoop) {
        let idle = exchange.request.timeouts.idle
        let idleEnd = lastProgress + Self.amount(idle)
        watch = loop.assumeIsolated().scheduleTask(deadline: min(idleEnd, wholeEnd(of: exchange))) { [weak self] in
            guard let self, self.exchange === exchange else { return }
            let now = NIODeadline.now()
            if lastProgress + Self.amount(idle) <= now {
                end(
                    with: .failure(
                        .timedOut("\(origin.url) did not answer: nothing was sent or received for \(idle) s")))
            } else if wholeEnd(of: exchange) <= now {
                let seconds = (now - started).nanoseconds / 1_000_000_000
                end(
                    with: .failure(
                        .timedOut("\(origin.url) is too slow: \(bodyBytesMoved) bytes were sent and received in \(seconds) s")))
            } else {
                return watchProgress(of: exchange, loop)
            }
            close()
        }
    }

    /// Twice the idle time: whoever says nothing at all is always told as that.
    private func wholeEnd(of exchange: HTTPExchange) -> NIODeadline {
        let timeouts = exchange.request.timeouts
        return started + Self.amount(2 * timeouts.idle + Double(bodyBytesMoved) / timeouts.leastRate)
    }

    /// By 30 years at most.
    private static func amount(_ seconds: Double) -> TimeAmount { .nanoseconds(Int64(min(max(0, seconds), 1e9) * 1e9)) }

    private func end(with result: Result<HTTPAnswer, HTTPFailure>) {
        guard let exchange else { return }
        self.exchange = nil
        watch?.cancel()
        watch = nil
        exchange.completion(result)
    }

    // MARK: Answers

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if !origin.isTLS && context.channel.isActive { opened(nil) }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        opening = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        if !origin.isTLS { opened(nil) }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .handshakeCompleted? = event as? TLSUserEvent {
            if PeerName.isRight(for: origin, in: context.pipeline) {
                opened(nil)
            } else {
                trouble = HTTPFailure.otherHost(origin)
                opened(trouble)
                context.close(promise: nil)
            }
        }
        context.fireUserInboundEventTriggered(event)
    }

    private func opened(_ failure: HTTPFailure?) {
        guard let opening else { return }
        self.opening = nil
        opening(failure)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        progress()
        sawByte = true
        guard let exchange else {
            // An answer that nobody asked for: 408 at the end of the idle time, mostly.
            return close()
        }
        switch unwrapInboundIn(data) {
        case .head(let head):
            status = head
            let wanted = (200..<300).contains(head.status.code)
            bodyLimit = wanted ? exchange.request.limit : Self.errorBodyLimit
            if let length = head.headers.first(name: "content-length").flatMap({ Int($0) }),
                exchange.request.method != .HEAD
            {
                if wanted && length > bodyLimit {
                    end(with: .failure(.tooLarge(length)))
                    return close()
                }
                body.reserveCapacity(min(length, bodyLimit))
            }
        case .body(let part):
            bodyBytesMoved += part.readableBytes
            let room = bodyLimit - body.count
            if part.readableBytes > room {
                if let code = status?.status.code, (200..<300).contains(code) {
                    end(with: .failure(.tooLarge(body.count + part.readableBytes)))
                    return close()
                }
                body.append(contentsOf: part.readableBytesView.prefix(room))
            } else {
                part.withUnsafeReadableBytes { body.append(contentsOf: $0) }
            }
        case .end:
            guard let head = status else { return close() }
            answersSoFar += 1
            owner?.bodyBytesMoved(sent: 0, received: body.count)
            let isReusable = requestIsSent && Self.isKept(head, exchange.request.method)
            keepAlive = Self.keepAlive(in: head.headers)
            let answer = HTTPAnswer(status: Int(head.status.code), headers: head.headers, body: body)
            body = []
            // First the connection, so that what the completion starts finds it.
            let exchange = self.exchange
            self.exchange = nil
            watch?.cancel()
            watch = nil
            if isReusable { owner?.connectionIsIdle(self) } else { close() }
            exchange?.completion(.success(answer))
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if trouble == nil { trouble = HTTPFailure.explaining(error, origin) }
        if let trouble { opened(trouble) }
        context.close(promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        isClosed = true
        let failure = trouble ?? .interrupted("\(origin.url) closed the connection")
        opened(failure)
        if let exchange, answersSoFar > 0, !sawByte {
            self.exchange = nil
            watch?.cancel()
            watch = nil
            owner?.connectionClosed(self)
            owner?.connectionWasStale(self, exchange)
        } else {
            owner?.connectionClosed(self)
            end(with: .failure(failure))
        }
        context.fireChannelInactive()
    }

    /// Whether the connection lasts. (SwiftNIO takes the answer to a HEAD without
    /// Content-Length for one that ends with the connection.)
    private static func isKept(_ head: HTTPResponseHead, _ method: HTTPMethod) -> Bool {
        guard method == .HEAD else { return head.isKeepAlive }
        return head.version == .http1_1
            && !head.headers[canonicalForm: "connection"].contains { $0.lowercased() == "close" }
    }

    /// N of "Keep-Alive: timeout=N".
    private static func keepAlive(in headers: HTTPHeaders) -> Int64? {
        for value in headers[canonicalForm: "keep-alive"] {
            let parts = value.split(separator: "=")
            if parts.count == 2, parts[0].lowercased() == "timeout" { return Int64(parts[1]).map { max(0, $0) } }
        }
        return nil
    }
}
