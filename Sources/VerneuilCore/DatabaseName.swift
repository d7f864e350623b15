import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A database as stores know it: by machine and path.
public struct DatabaseName: Sendable, Hashable, CustomStringConvertible {
    public var host: String
    /// Absolute.
    public var path: String

    /// - Parameters:
    ///   - host: nil or empty: this machine.
    ///   - path: on that machine. Relative paths and symbolic links are resolved as the writer resolves
    ///     them, as far as that can be known here: where the file exists here, or at least its
    ///     directory on this machine's own behalf. Otherwise the path is taken as it is, below the
    ///     current directory where it is relative.
    public init(host: String?, path: String) {
        let here = Host.name()
        self.host = host.flatMap { $0.isEmpty ? nil : $0 } ?? here
        let exists = ((try? Files.status(path)) ?? nil) != nil
        let canonical = exists || self.host == here ? Files.canonical(path) : nil
        self.path = canonical ?? absolutePath(path)
    }

    /// The manifest's key.
    public var manifestName: String { ManifestName.make(host: host, path: path) }

    public var description: String { "\(path) of \(host)" }
}

/// Below the current directory where it is relative; nothing is resolved.
func absolutePath(_ path: String) -> String {
    if path.utf8.first == UInt8(ascii: "/") { return path }
    guard let current = getcwd(nil, 0) else { return path }
    defer { free(current) }
    return "\(String(cString: current))/\(path)"
}
