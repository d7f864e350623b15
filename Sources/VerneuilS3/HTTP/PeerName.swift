import NIOCore
import NIOSSL

/// Whom a server's certificate is made out to.
///
/// SwiftNIO accepts, for a host that was asked for by name, also a certificate
/// that is made out to the address it was reached at. Whoever can lead the name
/// to an address of his own could get one for that. So here, a name counts by names alone.
enum PeerName {
    /// After the handshake, which has checked all else.
    static func isRight(for origin: Origin, in pipeline: ChannelPipeline) -> Bool {
        if origin.isAddress { return true }
        guard let handler = try? pipeline.syncOperations.handler(type: NIOSSLClientHandler.self),
            let certificate = handler.peerCertificate
        else { return false }
        let names = certificate._subjectAlternativeNames()
        // None at all: then the common name was compared, with the host alone.
        if names.isEmpty { return true }
        return names.contains { name in
            name.nameType == .dnsName && matches(origin.host, String(decoding: name.contents, as: UTF8.self).lowercased())
        }
    }

    /// RFC 6125: "*" stands for the whole of the first label, and for nothing else.
    static func matches(_ host: String, _ name: String) -> Bool {
        if host == name { return true }
        guard name.hasPrefix("*."), let dot = host.firstIndex(of: "."), dot != host.startIndex else { return false }
        return host[dot...] == name.dropFirst()
    }
}
