import VerneuilReplica
import VerneuilSystem

/// How a manifest is named on a command line (docs/VERNEUILCTL.md).
public enum ManifestReference: Sendable, Hashable, CustomStringConvertible {
    /// A local file.
    case file(String)
    /// `http://…` or `https://…`.
    case url(String)
    /// `s3://bucket.region[.endpoint]/key`: an object outside of the configured stores.
    case object(bucket: String, region: String, key: String)
    /// A database that is in the configured stores.
    case stored(DatabaseName)

    /// - Throws: where the scheme is unknown, or the text is malformed.
    public init(_ text: String) throws(ReplicaError) {
        guard let colon = text.firstRange(of: "://") else {
            self = .file(text)
            return
        }
        let rest = text[colon.upperBound...]
        let authority = rest.prefix { $0 != "/" }
        let path = rest[authority.endIndex...]
        switch text[..<colon.lowerBound].lowercased() {
        case "file":
            guard authority.isEmpty || authority == "localhost", let decoded = percentDecoded(path), path.count > 1 else {
                throw .refused("\(text): expected file:///path/of/the/manifest")
            }
            self = .file(decoded)
        case "http", "https":
            guard !authority.isEmpty else { throw .refused("\(text): names no server") }
            self = .url(text)
        case "s3":
            // Bucket names with dots would be ambiguous here: the first dot ends the bucket.
            guard let dot = authority.firstIndex(of: "."), dot != authority.startIndex,
                authority.index(after: dot) != authority.endIndex, path.count > 1
            else { throw .refused("\(text): expected s3://bucket.region/key or s3://bucket.region.endpoint/key") }
            self = .object(
                bucket: String(authority[..<dot]), region: String(authority[authority.index(after: dot)...]),
                key: String(path.dropFirst()))
        case "verneuil":
            guard path.count > 1 else { throw .refused("\(text): expected verneuil://host/path/of/the/database") }
            self = .stored(DatabaseName(host: String(authority), path: String(path)))
        default:
            throw .refused(
                "\(text): expected a file's path, or one of file://, http://, https://, s3:// and verneuil://")
        }
    }

    public var description: String {
        switch self {
        case .file(let path): path
        case .url(let url): url
        case .object(let bucket, let region, let key): "s3://\(bucket).\(region)/\(key)"
        case .stored(let database): "verneuil://\(database.host)\(database.path)"
        }
    }
}

/// nil where a percent sign is not followed by two hexadecimal digits.
private func percentDecoded(_ text: Substring) -> String? {
    var bytes: [UInt8] = []
    var rest = text.utf8[...]
    while let byte = rest.popFirst() {
        if byte == UInt8(ascii: "%") {
            guard let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16), rest.count >= 2 else { return nil }
            rest = rest.dropFirst(2)
            bytes.append(value)
        } else {
            bytes.append(byte)
        }
    }
    return String(validating: bytes, as: UTF8.self)
}
