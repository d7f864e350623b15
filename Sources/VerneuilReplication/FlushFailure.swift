/// Why a flush isn't true: for programs by its cause, for people by its reason.
public struct FlushFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of obstacle it is.
    public enum Cause: Sendable, Hashable {
        /// No spooling directory is configured.
        case off
        /// No target that stores anything is configured.
        case noTarget
        /// There is no such file, or another one in its place, or it can't be looked at.
        case noDatabase
        /// The database is in WAL mode, which is not replicated.
        case walMode
        /// A transaction was interrupted, and nobody has rolled it back: open the database once with SQLite.
        case hotJournal
        /// Another machine of this name has written the manifest: see to which one is right, and let that one take over.
        case fenced
        /// The time was up: the reason says what took so long, such as a transaction that is open.
        case timedOut
        /// Something else keeps it from a target: the reason has the store's, or the system's, answer.
        case notStored
    }
    public var cause: Cause
    /// For people.
    public var reason: String

    public init(_ cause: Cause, _ reason: String) {
        self.cause = cause
        self.reason = reason
    }

    public var description: String { reason }

    /// Of several targets: the reasons of all, and the cause of the first, but that which waits for somebody before that which may pass.
    static func all(_ failures: [FlushFailure]) -> FlushFailure? {
        guard let first = failures.first(where: { $0.cause == .fenced }) ?? failures.first else { return nil }
        return FlushFailure(first.cause, failures.map(\.reason).joined(separator: "; "))
    }
}
