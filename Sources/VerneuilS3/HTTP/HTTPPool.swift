import NIOCore
import NIOSSL

/// The connections of one store: kept alive and reused, so many at most,
/// requests in order of arrival where all are busy. Confined to its event loop.
///
/// A request that was written to a kept connection which the server had closed
/// meanwhile goes to another one at once. Mostly the server has not seen it; it
/// may have, where it went away just then, and who sent it is told.
final class HTTPPool: HTTPConnection.Owner, @unchecked Sendable {
    struct Events: Sendable {
        var opened: @Sendable () -> Void = {}
        var bytes: @Sendable (_ sent: Int, _ received: Int) -> Void = { _, _ in }
    }

    private struct Site {
        /// The most recently used last.
        var idle: [HTTPConnection] = []
        var connecting = 0
        var waiting = CircularBuffer<HTTPExchange>()
        var isUnused: Bool { idle.isEmpty && connecting == 0 && waiting.isEmpty }
    }

    let loop: any EventLoop
    private let resolver: Resolver
    private let tls: TLSSetup
    private let limit: Int
    private let keep: Int64
    private let events: Events
    private var sites: [Origin: Site] = [:]
    /// Connections of all sites, those being made included.
    private var count = 0
    private var sweep: Scheduled<Void>?
    private var isClosed = false

    /// Stale connections that one request may meet before that is called a failure.
    private static let staleTries = 4

    /// - Parameters:
    ///   - tls: for https; whoever executes such requests has prepared it.
    ///   - limit: connections open at one time.
    ///   - keep: seconds that an idle connection is kept, unless the server says less.
    init(loop: any EventLoop, tls: TLSSetup, limit: Int, keep: Int64 = 20, events: Events = Events()) {
        self.loop = loop
        self.tls = tls
        self.limit = max(1, limit)
        self.keep = keep
        self.events = events
        resolver = Resolver(loop: loop)
    }

    /// Both closures run on the event loop.
    /// - Parameter resent: called where the request goes to another connection, since the first one was stale.
    func execute(
        _ request: HTTPRequest, resent: @escaping () -> Void = {},
        _ completion: @escaping (Result<HTTPAnswer, HTTPFailure>) -> Void
    ) {
        loop.assertInEventLoop()
        if isClosed { return completion(.failure(.unreachable("the store is closed"))) }
        if request.origin.isTLS && tls.prepared == nil {
            return completion(.failure(.untrusted("TLS is not set up for \(request.origin.url)")))
        }
        sites[request.origin, default: Site()].waiting.append(HTTPExchange(request, resent: resent, completion))
        serve(request.origin)
    }

    /// Closes what is idle, and the rest when it is.
    func shutDown() {
        isClosed = true
        sweep?.cancel()
        sweep = nil
        for connection in sites.values.flatMap(\.idle) { retire(connection) }
    }

    /// Closing takes a while under TLS: nobody may pick it up meanwhile.
    private func retire(_ connection: HTTPConnection) {
        sites[connection.origin]?.idle.removeAll { $0 === connection }
        connection.close()
    }

    private func serve(_ origin: Origin) {
        while let exchange = sites[origin]?.waiting.first {
            if let connection = sites[origin]?.idle.popLast() {
                sites[origin]?.waiting.removeFirst()
                connection.start(exchange)
                continue
            }
            guard let site = sites[origin], site.connecting < site.waiting.count else { return }
            if count >= limit {
                // Room that another site doesn't use just now.
                if let other = sites.values.lazy.compactMap(\.idle.first).first { retire(other) }
                return
            }
            connect(origin, timeout: exchange.request.timeouts.connect)
        }
    }

    private func connect(_ origin: Origin, timeout: Double) {
        count += 1
        sites[origin]?.connecting += 1
        HTTPConnector(
            origin: origin, loop: loop, resolver: resolver, tls: origin.isTLS ? tls.prepared : nil, timeout: timeout, owner: self
        ) { [self] result in
            sites[origin]?.connecting -= 1
            switch result {
            case .success(let connection):
                events.opened()
                connection.isPooled = true
                connectionIsIdle(connection)
            case .failure(let failure):
                count -= 1
                let exchange = sites[origin]?.waiting.popFirst()
                serveAll()
                exchange?.completion(.failure(failure))
            }
        }.start()
    }

    private func serveAll() {
        for (origin, site) in sites where !site.waiting.isEmpty { serve(origin) }
    }

    // MARK: HTTPConnection.Owner

    func connectionIsIdle(_ connection: HTTPConnection) {
        if isClosed && sites[connection.origin]?.waiting.isEmpty ?? true { return connection.close() }
        connection.idleSince = .now()
        sites[connection.origin, default: Site()].idle.append(connection)
        serve(connection.origin)
        // Another site may have waited for room.
        if count >= limit { serveAll() }
        if sweep == nil && !isClosed { scheduleSweep() }
    }

    func connectionClosed(_ connection: HTTPConnection) {
        sites[connection.origin]?.idle.removeAll { $0 === connection }
        guard connection.isPooled else { return }
        count -= 1
        serveAll()
    }

    func connectionWasStale(_ connection: HTTPConnection, _ exchange: HTTPExchange) {
        exchange.staleTries += 1
        if exchange.staleTries > Self.staleTries {
            return exchange.completion(.failure(.interrupted("\(connection.origin.url) keeps closing its connections")))
        }
        exchange.resent()
        // The others have been idle for as long or longer.
        for other in sites[connection.origin]?.idle ?? [] where other.idleSince <= connection.idleSince {
            retire(other)
        }
        sites[connection.origin, default: Site()].waiting.prepend(exchange)
        serve(connection.origin)
    }

    func bodyBytesMoved(sent: Int, received: Int) { events.bytes(sent, received) }

    /// Closes what has been idle for too long. Runs while anything is idle.
    private func scheduleSweep() {
        sweep = loop.assumeIsolated().scheduleTask(in: .seconds(1)) { [weak self] in
            guard let self else { return }
            sweep = nil
            let now = NIODeadline.now()
            var left = 0
            for connection in sites.values.flatMap(\.idle) {
                // A second before the server does it.
                let seconds = min(keep, (connection.keepAlive ?? .max) - 1)
                if connection.idleSince + .seconds(max(0, seconds)) <= now { retire(connection) } else { left += 1 }
            }
            for origin in sites.keys where sites[origin]?.isUnused == true { sites[origin] = nil }
            if left > 0 { scheduleSweep() }
        }
    }
}
