/// Stored bytes that are not what the format says: which object, and why.
public struct FormatError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The object, as far as the format layer knows it: "manifest", "chunk 54a3…%2F93f5…".
    public var what: String
    /// What was found, what was expected, and at which byte where that helps.
    public var reason: String

    public init(_ what: String, _ reason: String) {
        self.what = what
        self.reason = reason
    }

    public var description: String { "\(what): \(reason)" }
}
