import NIOSSL
import VerneuilSystem

/// What TLS connections trust: the system's authorities, or those in the file
/// that AWS_CA_BUNDLE names. Host names are always verified. Made on the thread
/// that first needs it, since it reads and parses files; safe from any thread.
final class TLSSetup: Sendable {
    private let bundle: String?
    private let lock = Lock()
    nonisolated(unsafe) private var context: NIOSSLContext?

    init(_ environment: Environment) { bundle = environment["AWS_CA_BUNDLE"] }

    /// nil before `prepare`.
    var prepared: NIOSSLContext? { lock.withLock { context } }

    func prepare() throws(HTTPFailure) {
        try lock.withLock { () throws(HTTPFailure) in
            if context != nil { return }
            var configuration = TLSConfiguration.makeClientConfiguration()
            configuration.certificateVerification = .fullVerification
            configuration.minimumTLSVersion = .tlsv12
            if let bundle {
                // An unreadable file would leave the system's authorities in force.
                do throws(SystemError) {
                    guard try Files.read(bundle, limit: 16 << 20) != nil else {
                        throw SystemError("open", bundle, 2)
                    }
                } catch { throw .untrusted("AWS_CA_BUNDLE can't be read: \(error)") }
                configuration.trustRoots = .file(bundle)
            }
            do {
                context = try NIOSSLContext(configuration: configuration)
            } catch {
                throw .untrusted(
                    bundle.map { "AWS_CA_BUNDLE, \($0), holds no certificates in PEM form: \(error)" }
                        ?? "the system's certificate authorities can't be read: \(error)")
            }
        }
    }
}
