import VerneuilSystem

/// Where replicated data lives: two name spaces of immutable-looking blobs
/// (FORMAT 1). Implementations know nothing of SQLite.
///
/// **Calls.** Each operation exists once, with a completion handler, so that a
/// hundred of them can be in flight without a hundred threads; the blocking
/// forms in the extension below wait for it. A completion handler runs exactly
/// once, on any thread, perhaps before the call returns; it must not block.
///
/// **Retries, pacing and credentials** are the store's business: a failure that
/// reaches the caller has been retried as often as is worth it.
///
/// **fork(2).** A store made before a fork works in the child; calls that were
/// in flight in the parent never complete there.
///
/// Safe from any thread.
public protocol ObjectStore: AnyObject, Sendable {
    /// For messages: "s3://bucket at http://…", "directory /mnt/backup". No secrets.
    var name: String { get }

    /// Fetches one object whole.
    func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void)

    /// Stores one object: whoever reads the key sees all of the old body or all of the new one.
    /// Answers with the new object's entity tag.
    func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void)

    /// Renews an object's age for retention rules, without sending its body
    /// (S3: COPY onto itself, metadata REPLACE). false where there is no such object.
    func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void)

    /// One page of keys in ascending order (of UTF-8 bytes), those after `after`.
    func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void)

    /// Makes what must exist before the first PUT (buckets, directories), where the
    /// configuration allows it; checks that it is there, where not.
    func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void)
}

/// The two buckets.
public enum ObjectSpace: String, Sendable, CaseIterable {
    case chunks
    case manifests
}

/// Which budget a request is paced by (docs/REPLICATION.md, Requests).
public enum Urgency: Sendable {
    /// Background replication: 30 requests per second, bursts of 100, unless configured.
    case background
    /// Somebody waits for a flush: 1,000 per second.
    case flush
    /// Reads for replicas and restores: not paced.
    case interactive
}

public struct GetRequest: Sendable {
    public var space: ObjectSpace
    public var key: String
    /// Bodies longer than this fail with `.tooLarge`, before they are read whole.
    public var limit: Int
    /// Answer `.notModified` where the object still has this entity tag.
    public var unlessTag: String?
    public var urgency: Urgency

    public init(
        _ space: ObjectSpace, _ key: String, limit: Int, unlessTag: String? = nil, urgency: Urgency = .interactive
    ) {
        self.space = space
        self.key = key
        self.limit = limit
        self.unlessTag = unlessTag
        self.urgency = urgency
    }
}

public enum GetResult: Sendable {
    case found(body: [UInt8], tag: String)
    case notModified
    /// The store is sure that there is no such object.
    case missing
}

public struct PutRequest: Sendable {
    public var space: ObjectSpace
    public var key: String
    public var body: [UInt8]
    public var condition: PutCondition
    public var urgency: Urgency

    public init(
        _ space: ObjectSpace, _ key: String, _ body: [UInt8], condition: PutCondition = .always,
        urgency: Urgency = .background
    ) {
        self.space = space
        self.key = key
        self.body = body
        self.condition = condition
        self.urgency = urgency
    }
}

public enum PutCondition: Sendable, Hashable {
    case always
    /// Only where there is no such object (If-None-Match: *).
    case ifAbsent
    /// Only where the object has this entity tag (If-Match).
    case ifTag(String)
}

public struct ObjectPage: Sendable {
    public struct Entry: Sendable, Hashable {
        public var key: String
        public var size: Int
        /// Seconds since 1970.
        public var modified: Int64
        public init(key: String, size: Int, modified: Int64) {
            self.key = key
            self.size = size
            self.modified = modified
        }
    }
    public var entries: [Entry]
    public var isTruncated: Bool
    public init(entries: [Entry], isTruncated: Bool) {
        self.entries = entries
        self.isTruncated = isTruncated
    }
}

/// A failed operation on a store: where, on what, why, and whether another try may help.
public struct StoreError: Error, Sendable, CustomStringConvertible {
    public enum Kind: Sendable, Hashable {
        /// No answer: network, time-out, 5xx. A later try may work.
        case unavailable
        /// Refused for who we are: missing, wrong or expired credentials, 403.
        case denied
        /// The bucket (or directory) itself is not there.
        case noSuchSpace
        /// A conditional PUT whose condition did not hold; or a store without conditions.
        case conditionFailed
        case conditionUnsupported
        case tooLarge
        /// Anything else that won't get better by itself: bad request, bad endpoint.
        case invalid
    }
    public var kind: Kind
    /// The store's name.
    public var store: String
    /// "GET chunks/…": operation, space and key.
    public var operation: String
    /// What was found, and what to do where that is known.
    public var reason: String

    public init(_ kind: Kind, store: String, operation: String, reason: String) {
        self.kind = kind
        self.store = store
        self.operation = operation
        self.reason = reason
    }

    public var description: String { "\(operation) on \(store): \(reason)" }
}

extension ObjectStore {
    /// Waits on the calling thread for an operation with a completion handler.
    public func wait<T: Sendable>(
        _ start: (@escaping @Sendable (Result<T, StoreError>) -> Void) -> Void
    ) throws(StoreError) -> T {
        let box = Completion<T>()
        start { box.fill($0) }
        return try box.take().get()
    }

    public func get(_ request: GetRequest) throws(StoreError) -> GetResult {
        try wait { get(request, completion: $0) }
    }
    @discardableResult
    public func put(_ request: PutRequest) throws(StoreError) -> String {
        try wait { put(request, completion: $0) }
    }
    public func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency = .background
    ) throws(StoreError) -> Bool {
        try wait { touch(space, key, urgency: urgency, completion: $0) }
    }
    public func list(
        _ space: ObjectSpace, prefix: String, after: String? = nil, urgency: Urgency = .interactive
    ) throws(StoreError) -> ObjectPage {
        try wait { list(space, prefix: prefix, after: after, urgency: urgency, completion: $0) }
    }
    public func prepare() throws(StoreError) {
        try wait { prepare(completion: $0) }
    }
}

/// A result that one thread leaves for another.
private final class Completion<T: Sendable>: @unchecked Sendable {
    private let lock = Lock()
    private var result: Result<T, StoreError>?

    func fill(_ value: Result<T, StoreError>) {
        lock.withLock {
            result = value
            lock.signal()
        }
    }
    func take() -> Result<T, StoreError> {
        lock.withLock {
            while true {
                if let result { return result }
                lock.wait()
            }
        }
    }
}
