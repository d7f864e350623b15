import CVerneuil
import NIOCore
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// Looks up names with getaddrinfo(3), each on a short-lived thread of its own
/// (SwiftNIO's resolver needs Dispatch, which does not survive fork), one
/// look-up at a time per name. Confined to its event loop.
final class Resolver: @unchecked Sendable {
    typealias Completion = (Result<[SocketAddress], HTTPFailure>) -> Void

    private let loop: any EventLoop
    private var known: [Origin: (addresses: [SocketAddress], until: NIODeadline)] = [:]
    private var waiting: [Origin: [Completion]] = [:]

    /// Answers are used for so long; the system's own cache, if any, knows better.
    private static let lifetime = TimeAmount.seconds(15)

    init(loop: any EventLoop) { self.loop = loop }

    func resolve(_ origin: Origin, _ completion: @escaping Completion) {
        if let addresses = Self.addressesWithoutAsking(origin) { return completion(.success(addresses)) }
        if let entry = known[origin], entry.until > .now() { return completion(.success(entry.addresses)) }
        if waiting[origin] != nil {
            waiting[origin]?.append(completion)
            return
        }
        waiting[origin] = [completion]
        do throws(SystemError) {
            try Threads.spawn("vrn-resolver") { [self] in
                let result = Self.ask(origin)
                loop.execute { self.finish(origin, result) }
            }
        } catch {
            finish(origin, .failure(.unreachable("can't look up \(origin.host): \(error)")))
        }
    }

    /// None of the addresses could be reached: ask again next time.
    func forget(_ origin: Origin) { known[origin] = nil }

    /// Moves an address that works to the front.
    func prefer(_ address: SocketAddress, for origin: Origin) {
        guard var entry = known[origin], let index = entry.addresses.firstIndex(of: address), index > 0 else { return }
        entry.addresses.swapAt(0, index)
        known[origin] = entry
    }

    private func finish(_ origin: Origin, _ result: Result<[SocketAddress], HTTPFailure>) {
        if case .success(let addresses) = result { known[origin] = (addresses, .now() + Self.lifetime) }
        for completion in waiting.removeValue(forKey: origin) ?? [] { completion(result) }
    }

    /// Addresses stand for themselves, and names under .localhost for the
    /// loopback (RFC 6761), which not every libc knows.
    private static func addressesWithoutAsking(_ origin: Origin) -> [SocketAddress]? {
        if origin.host == "localhost" || origin.host.hasSuffix(".localhost") {
            return ["127.0.0.1", "::1"].compactMap { try? SocketAddress(ipAddress: $0, port: origin.port) }
        }
        guard origin.isAddress, let address = try? SocketAddress(ipAddress: origin.host, port: origin.port) else {
            return nil
        }
        return [address]
    }

    private static func ask(_ origin: Origin) -> Result<[SocketAddress], HTTPFailure> {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        #if os(Linux)
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        #else
        hints.ai_socktype = SOCK_STREAM
        #endif
        hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        let port = String(origin.port)
        vrn_gate_leave()
        let code = getaddrinfo(origin.host, port, &hints, &list)
        vrn_gate_enter()
        guard code == 0 else {
            let reason = code == EAI_SYSTEM ? String(cString: strerror(errno)) : String(cString: gai_strerror(code))
            return .failure(.unreachable("can't look up the host \(origin.host): \(reason)"))
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let info = next {
            if let address = info.pointee.ai_addr {
                switch info.pointee.ai_family {
                case AF_INET:
                    addresses.append(
                        SocketAddress(UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self), host: origin.host))
                case AF_INET6:
                    addresses.append(
                        SocketAddress(UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in6.self), host: origin.host)
                    )
                default: break
                }
            }
            next = info.pointee.ai_next
        }
        if addresses.isEmpty { return .failure(.unreachable("the host \(origin.host) has no address")) }
        return .success(addresses)
    }
}
