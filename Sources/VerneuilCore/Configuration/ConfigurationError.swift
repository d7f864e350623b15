/// A configuration that can't be used, or not now: where it stands, what was found, what is expected.
public struct ConfigurationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of obstacle it is.
    public enum Cause: Sendable, Hashable {
        /// A setting, or the text as a whole, can't be used.
        case invalid
        /// This process replicates with other settings already.
        case alreadyConfigured
        /// SQLite refused, with this result code.
        case sqlite(code: Int32)
        /// A system call failed, with this value of errno; it may work later.
        case system(code: Int32)
    }
    /// What kind of obstacle it is.
    public var cause: Cause
    /// "VERNEUIL_CONFIG", or the file's path; "configuration" for one that a program made.
    public var source: String
    /// In the source, where the fault has a place there.
    public var position: TextPosition?
    /// The key's path, such as `replication_targets[1].s3.region`, or the property's, such as `pacing.workers`, in what a program
    /// made; empty for the whole.
    public var key: String
    /// What was found, and what is expected.
    public var reason: String

    /// An error at a place.
    public init(
        source: String, position: TextPosition? = nil, key: String = "", reason: String, cause: Cause = .invalid
    ) {
        self.cause = cause
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
