import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Makes one connection: looks the host up, tries its addresses in turn, and
/// waits for TLS, all of it within one time limit. Confined to its event loop.
final class HTTPConnector: @unchecked Sendable {
    private let loop: any EventLoop
    private let origin: Origin
    private let resolver: Resolver
    private let tls: NIOSSLContext?
    private weak var owner: HTTPConnection.Owner?
    private var completion: ((Result<HTTPConnection, HTTPFailure>) -> Void)?
    private var deadline: NIODeadline
    private var alarm: Scheduled<Void>?
    private var untried: ArraySlice<SocketAddress> = []
    private var channel: (any Channel)?
    private var isDone = false
    /// Itself, from start to finish: nobody else holds it.
    private var running: HTTPConnector?

    init(
        origin: Origin, loop: any EventLoop, resolver: Resolver, tls: NIOSSLContext?, timeout: Double,
        owner: HTTPConnection.Owner, completion: @escaping (Result<HTTPConnection, HTTPFailure>) -> Void
    ) {
        self.origin = origin
        self.loop = loop
        self.resolver = resolver
        self.tls = tls
        self.owner = owner
        self.completion = completion
        deadline = .now() + .nanoseconds(Int64(timeout * 1e9))
        alarm = loop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in
            self?.finish(.failure(.unreachable("no connection to \(origin.url) within \(timeout) s")))
        }
    }

    func start() {
        running = self
        resolver.resolve(origin) { [self] result in
            switch result {
            case .failure(let failure): finish(.failure(failure))
            case .success(let addresses):
                untried = addresses[...]
                tryNext(after: .unreachable("\(origin.host) has no address"))
            }
        }
    }

    private func tryNext(after failure: HTTPFailure) {
        guard completion != nil else { return }
        guard let address = untried.popFirst() else {
            resolver.forget(origin)
            return finish(.failure(failure))
        }
        // An address that swallows packets must leave time for the others.
        let share = (deadline - .now()).nanoseconds / Int64(untried.count + 1)
        let origin = origin
        let tls = tls
        let opened = NIOLoopBound<(HTTPConnection, HTTPFailure?) -> Void>(
            { [weak self] connection, failure in
                self?.opened(connection, failure, address)
            }, eventLoop: loop)
        let owner = NIOLoopBound(owner, eventLoop: loop)
        ClientBootstrap(group: loop)
            .connectTimeout(.nanoseconds(max(share, 1_000_000)))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    guard let owner = owner.value else { throw ChannelError.inputClosed }
                    let pipeline = channel.pipeline.syncOperations
                    if let tls {
                        try pipeline.addHandler(
                            NIOSSLClientHandler(context: tls, serverHostname: origin.isAddress ? nil : origin.host))
                    }
                    try pipeline.addHTTPClientHandlers(
                        leftOverBytesStrategy: .dropBytes, enableOutboundHeaderValidation: true)
                    let holder = Holder()
                    let connection = HTTPConnection(origin: origin, owner: owner) { failure in
                        guard let connection = holder.connection else { return }
                        holder.connection = nil
                        opened.value(connection, failure)
                    }
                    holder.connection = connection
                    try pipeline.addHandler(connection)
                }
            }
            .connect(to: address)
            .assumeIsolated()
            .whenComplete { [weak self] result in
                guard let self else { return }
                switch result {
                case .success(let channel):
                    // Over already: too late, unless it was this channel that came in time.
                    if completion != nil { self.channel = channel } else if !isDone { channel.close(promise: nil) }
                case .failure(let error):
                    if case .interrupted(let text) = HTTPFailure.explaining(error, origin) {
                        tryNext(after: .unreachable(text))
                    } else {
                        tryNext(after: HTTPFailure.explaining(error, origin))
                    }
                }
            }
    }

    /// Until it is open, a connection is held by the closure that it holds.
    private final class Holder {
        var connection: HTTPConnection?
    }

    private func opened(_ connection: HTTPConnection, _ failure: HTTPFailure?, _ address: SocketAddress) {
        guard let failure else {
            resolver.prefer(address, for: origin)
            if completion == nil { connection.close() } else { finish(.success(connection)) }
            return
        }
        // A connection that TCP refused has no channel yet, and fails by the bootstrap.
        guard channel != nil else { return }
        channel = nil
        if case .untrusted = failure { return finish(.failure(failure)) }
        tryNext(after: failure)
    }

    private func finish(_ result: Result<HTTPConnection, HTTPFailure>) {
        guard let completion else { return }
        self.completion = nil
        running = nil
        alarm?.cancel()
        alarm = nil
        switch result {
        case .success: isDone = true
        case .failure: channel?.close(promise: nil)
        }
        channel = nil
        completion(result)
    }
}
