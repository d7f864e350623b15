import NIOCore
import NIOHTTP1
import NIOSSL

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

extension HTTPFailure {
    static func otherHost(_ origin: Origin) -> HTTPFailure {
        .untrusted("the certificate of \(origin.url) is not made out to the host \(origin.host)")
    }

    /// What an error of the channel means to somebody who has to do something about it.
    static func explaining(_ error: any Error, _ origin: Origin) -> HTTPFailure {
        switch error {
        case let error as HTTPFailure:
            return error
        case let error as IOError:
            let reason = String(cString: strerror(error.errnoCode))
            return .interrupted("the connection to \(origin.url) failed: \(reason)")
        case ChannelError.connectTimeout(_):
            return .unreachable("no connection to \(origin.url) in time")
        case HTTPParserError.invalidEOFState:
            return .interrupted("\(origin.url) closed the connection in the middle of its answer")
        case let error as HTTPParserError:
            return .interrupted("\(origin.url) did not answer in HTTP: \(error)")
        case let error as NIOSSLExtraError
        where error == .failedToValidateHostname || error == .serverHostnameImpossibleToMatch:
            return otherHost(origin)
        case NIOSSLError.unableToValidateCertificate, NIOSSLError.noCertificateToValidate:
            return .untrusted("\(origin.url) has no certificate that could be checked")
        case NIOSSLError.uncleanShutdown:
            return .interrupted("\(origin.url) closed the connection in the middle of its answer")
        case NIOSSLError.handshakeFailed(let reason):
            let text = "\(reason)"
            if text.contains("CERTIFICATE_VERIFY_FAILED") {
                return .untrusted(
                    "the certificate of \(origin.url) is not signed by an authority that this machine trusts, or has "
                        + "expired (AWS_CA_BUNDLE names a file of authorities; else the system's are used)")
            }
            if text.contains("WRONG_VERSION_NUMBER") || text.contains("HTTP_REQUEST") {
                return .untrusted("\(origin.url) does not speak TLS: should the endpoint begin with http://?")
            }
            return .interrupted("no TLS connection to \(origin.url): \(text)")
        default:
            return .interrupted("the connection to \(origin.url) failed: \(error)")
        }
    }
}
