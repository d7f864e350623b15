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
///
/// ```swift
/// let here = DatabaseSource(path: "/srv/app.db")
/// let elsewhere = DatabaseSource(path: "/srv/app.db", host: "db1.example.com")
/// let saved = try DatabaseSource(reference: "/backup/app.manifest")
/// ```
public struct DatabaseSource: Sendable, Hashable, CustomStringConvertible {
    let reference: ManifestReference

    /// A database that is in the configured stores.
    ///
    /// - Parameters:
    ///   - path: on the machine that replicates it. A relative path, or one with symbolic links, is resolved here and now where the
    ///     file exists here; where it doesn't, a relative one is below the current directory.
    ///   - host: that machine's name, the first line of its `/etc/hostname`; `nil` is this one.
    public init(path: String, host: String? = nil) {
        reference = .stored(DatabaseName(host: host, path: path))
    }

    /// A manifest, by any of the names that `verneuilctl --manifest` takes.
    ///
    /// - Parameter text: `verneuil://HOST/PATH` for a database in the configured stores; or a manifest itself: its file's path,
    ///   `file:///PATH`, `https://…` or `s3://BUCKET.REGION/KEY`. A path without a scheme is a *manifest's*, not a database's, which is
    ///   ``init(path:host:)``.
    /// - Throws: where the scheme is unknown, or the text is malformed. Nothing is looked up yet.
    public init(reference text: String) throws(ReplicaError) {
        reference = try ManifestReference(text)
    }

    /// As it can be given to ``init(reference:)``.
    public var description: String { reference.description }

    /// What SQLite opens, for sources that it can open: `file:verneuil://HOST/PATH?vfs=verneuil_snapshot`, or a
    /// manifest file's; `nil` for others, which can only be restored.
    public var uri: String? {
        guard let name = place?.name else { return nil }
        return "file:\(percentEncoded(name))?vfs=verneuil_snapshot"
    }

    /// Where a replica of it is, and as what the `verneuil_snapshot` VFS knows it.
    var place: (location: ReplicaLocation, name: String)? {
        switch reference {
        case .file(let path):
            let canonical = Files.canonical(path) ?? path
            return (.file(canonical), canonical)
        case .stored(let database): return (.manifest(name: database.manifestName), description)
        case .url, .object: return nil
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
