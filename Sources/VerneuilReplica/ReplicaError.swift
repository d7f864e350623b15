import CVerneuil
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Why a replica could not be opened, read or restored.
public enum ReplicaError: Error, Sendable, CustomStringConvertible {
    /// An object that no source could give.
    case fetch(FetchError)
    /// An object that is not what it should be: which, expected and found.
    case format(FormatError)
    /// A local file: the replica's temporary file, a manifest, a restore's output.
    case system(SystemError)
    /// What the caller asked for can't be done: why, and what to do.
    case refused(String)

    /// One line: the object or file, what was expected and found, what to do.
    public var description: String {
        switch self {
        case .fetch(let error): error.description
        case .format(let error): error.description
        case .system(let error): error.description
        case .refused(let reason): reason
        }
    }

    /// Whether the disk (or a quota or limit on it) is what ran out.
    public var isDiskFull: Bool {
        guard case .system(let error) = self else { return false }
        return error.isDiskFull
    }
}

extension SystemError {
    package var isDiskFull: Bool {
        code == ENOSPC || code == EDQUOT || code == EFBIG
    }
}

/// An object that could not be had: what each source answered, in the order in which they were asked.
public struct FetchError: Error, Sendable, CustomStringConvertible {
    /// What a source answered.
    public enum Outcome: Hashable, Sendable {
        /// The source is sure that it has no such object.
        case missing
        /// It has one, with other bytes than its name promises.
        case damaged
        /// It could not say: network, permissions, a disk error.
        case unavailable
    }
    /// One source, and its answer.
    public struct Attempt: Sendable {
        /// The store's name, or the cache's directory.
        public var source: String
        /// In short.
        public var outcome: Outcome
        /// What was expected and found, or what went wrong.
        public var reason: String
    }

    /// "chunk 0123…%2F…", "manifest 7010-verneuil…".
    public var object: String
    /// In the order in which sources were asked.
    public var attempts: [Attempt]

    /// An object that nobody could give.
    public init(object: String, attempts: [Attempt]) {
        self.object = object
        self.attempts = attempts
    }

    /// Whether every source is sure that there is no such object.
    public var isMissing: Bool { !attempts.isEmpty && attempts.allSatisfy { $0.outcome == .missing } }

    /// One line: the object, and each source with its reason.
    public var description: String {
        if attempts.isEmpty { return "\(object): no store is configured to fetch it from" }
        return "\(object): " + attempts.map { "\($0.source): \($0.reason)" }.joined(separator: "; ")
    }
}
