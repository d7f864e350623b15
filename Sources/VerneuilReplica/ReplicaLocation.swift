import VerneuilFormat
import VerneuilSystem

/// What a replica is opened by.
public enum ReplicaLocation: Hashable, Sendable, CustomStringConvertible {
    /// A manifest in a local file.
    case file(String)
    /// A manifest in the stores, by its object name.
    case manifest(name: String)

    public static let scheme = "verneuil://"

    /// - Parameters:
    ///   - text: `verneuil://HOST/PATH`, where an empty HOST is this machine, or the path of a manifest file.
    ///   - host: this machine's name.
    /// - Throws: `.refused` where it begins like the first, but names no path.
    public init(_ text: String, host: String) throws(ReplicaError) {
        guard text.hasPrefix(Self.scheme) else {
            self = .file(text)
            return
        }
        let rest = text.dropFirst(Self.scheme.count)
        guard let slash = rest.firstIndex(of: "/"), rest[slash...].count > 1 else {
            throw .refused("\(text): expected verneuil://HOST/absolute/path/of/the/database, found no path")
        }
        let named = String(rest[..<slash])
        var path = String(rest[slash...])
        // The writer goes by the canonical path. Here alone it can be asked for.
        if named.isEmpty || named == host, let canonical = Files.canonical(path) { path = canonical }
        self = .manifest(name: ManifestName.make(host: named.isEmpty ? host : named, path: path))
    }

    public var description: String {
        switch self {
        case .file(let path): "manifest file \(path)"
        case .manifest(let name): "manifest \(name)"
        }
    }
}
