/// A configuration that can't be used: where it stands, what was found, what is expected.
public struct ConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// "VERNEUIL_CONFIG", or the file's path.
    public var source: String
    /// In the source, where the fault has a place there.
    public var position: TextPosition?
    /// The key's path, such as `replication_targets[1].s3.region`; empty for the text as a whole.
    public var key: String
    /// What was found, and what is expected.
    public var reason: String

    /// An error at a place.
    public init(source: String, position: TextPosition? = nil, key: String = "", reason: String) {
        self.source = source
        self.position = position
        self.key = key
        self.reason = reason
    }

    /// One line: place, key, reason.
    public var description: String {
        var place = source
        if let position { place += ":\(position)" }
        if !key.isEmpty { place += ": \(key)" }
        return "\(place): \(reason)"
    }
}
