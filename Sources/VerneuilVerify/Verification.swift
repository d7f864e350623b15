import VerneuilFormat
import VerneuilStore

/// What was found out about one database in one store.
public struct Verification: Sendable, Hashable {
    /// From good to bad.
    public enum Outcome: String, Sendable, Hashable, Comparable {
        /// Everything that was looked at is as it must be.
        case good
        /// It could not be found out, and nothing was seen that is wrong.
        case unknown
        /// Something is wrong: the database can't be had from this store, or not as it should be.
        case bad

        private var rank: Int { self == .good ? 0 : self == .unknown ? 1 : 2 }
        /// The worse, the greater.
        public static func < (a: Outcome, b: Outcome) -> Bool { a.rank < b.rank }
    }

    /// One thing that is wrong, or can't be told.
    public struct Finding: Sendable, Hashable, CustomStringConvertible {
        /// `.bad` or `.unknown`.
        public var outcome: Outcome
        /// "chunk 0123…%2F…", "manifest 7010-verneuil…", or a file.
        public var object: String
        /// What should have been there.
        public var expected: String
        /// What was found in its place, or why nothing could be.
        public var found: String

        /// A finding about an object.
        public init(_ outcome: Outcome, _ object: String, expected: String, found: String) {
            self.outcome = outcome
            self.object = object
            self.expected = expected
            self.found = found
        }
        /// One line.
        public var description: String { "\(object): expected \(expected); found: \(found)" }
    }

    /// The manifest's object name, or how else it was named.
    public var name: String
    /// The store's name.
    public var store: String
    /// Bytes of the database; nil where the manifest could not be read.
    public var length: UInt64?
    /// When the source file last changed: seconds since 1970 (UTC), by its own machine's clock; 0 where not known.
    public var ctime: Int64 = 0
    /// Distinct objects of the chunk bucket that the database is made of, its base chunk not counted.
    public var objects = 0
    /// The first of them, up to `findingLimit`.
    public private(set) var findings: [Finding] = []
    /// All of them.
    public private(set) var findingCount = 0
    /// The worst of all findings.
    public private(set) var outcome = Outcome.good

    /// So many are kept; all are counted.
    public static let findingLimit = 1000

    /// Good, until something is found.
    public init(name: String, store: String) {
        self.name = name
        self.store = store
    }

    /// Counts a finding, and keeps it where there is room.
    public mutating func add(_ finding: Finding) {
        findingCount += 1
        outcome = max(outcome, finding.outcome)
        if findings.count < Self.findingLimit { findings.append(finding) }
    }
}

/// How thoroughly to look.
public struct VerificationOptions: Sendable {
    /// Fetch every chunk and check its fingerprint; else they only must be there.
    public var deep = false
    /// The live database's file, with which the stored snapshot must agree.
    public var against: String?
    /// The manifest that this machine uploaded last under a name: the stored one must not be older.
    public var lastUploaded: @Sendable (_ manifestName: String) -> [UInt8]? = { _ in nil }
    /// Called on the verifying thread, some times a second: bytes of databases, or objects where not `deep`.
    public var progress: @Sendable (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }

    public init() {}
}
