import VerneuilCore
import VerneuilReplica
import VerneuilSystem

/// Why a replica can't be opened or refreshed, or a database not restored: which object or file, what was
/// expected and found, and what each store and cache answered.
public typealias ReplicaError = VerneuilReplica.ReplicaError

/// An object that could not be had: what each source answered.
public typealias FetchError = VerneuilReplica.FetchError

/// Which chunks of a snapshot are fetched before anyone reads them.
public typealias LoadingPolicy = VerneuilReplica.LoadingPolicy

/// Which replicated database: by machine and path, or by a manifest of it.
public struct DatabaseSource: Sendable, Hashable, CustomStringConvertible {
    let reference: ManifestReference

    /// A database that is in the configured stores.
    ///
    /// - Parameters:
    ///   - path: on the machine that replicates it.
    ///   - host: that machine's name; `nil` is this one.
    public init(path: String, host: String? = nil) {
        reference = .stored(DatabaseName(host: host, path: path))
    }

    /// Any of the names that `verneuilctl` takes for a manifest.
    ///
    /// - Parameter name: `verneuil://HOST/PATH`, a file's path, `file://…`, `https://…` or `s3://BUCKET.REGION/KEY`.
    /// - Throws: where the scheme is unknown, or the text is malformed.
    public init(_ name: String) throws(ReplicaError) {
        reference = try ManifestReference(name)
    }

    /// As it can be given to ``init(_:)``.
    public var description: String { reference.description }

    /// What SQLite opens, for sources that it can open: `file:verneuil://HOST/PATH?vfs=verneuil_snapshot`, or a
    /// manifest file's; `nil` for others.
    public var uri: String? {
        switch reference {
        case .file(let path): "file:\(percentEncoded(Files.canonical(path) ?? path))?vfs=verneuil_snapshot"
        case .stored: "file:\(percentEncoded(reference.description))?vfs=verneuil_snapshot"
        case .url, .object: nil
        }
    }
}

extension DatabaseSource {
    var location: ReplicaLocation {
        get throws(ReplicaError) {
            switch reference {
            case .file(let path): return .file(Files.canonical(path) ?? path)
            case .stored(let database): return .manifest(name: database.manifestName)
            case .url, .object: throw .refused("\(self): replicas are opened by verneuil://HOST/PATH or a manifest file; restore this one")
            }
        }
    }
}

/// For a `file:` URI, where SQLite decodes it.
func percentEncoded(_ text: String) -> String {
    var out = ""
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: ","):
            out.unicodeScalars.append(Unicode.Scalar(byte))
        default:
            let hex = String(byte, radix: 16, uppercase: true)
            out += hex.utf8.count == 1 ? "%0\(hex)" : "%\(hex)"
        }
    }
    return out
}
