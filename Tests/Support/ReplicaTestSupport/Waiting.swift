import VerneuilSystem

/// Something that one thread waits for and another makes true.
public final class Flag: @unchecked Sendable {
    private let lock = Lock()
    private var value = false
    public init() {}

    public func set() {
        lock.withLock {
            value = true
            lock.broadcast()
        }
    }
    public var isSet: Bool { lock.withLock { value } }
    public func wait() { lock.withLock { while !value { lock.wait() } } }
}

/// A number that threads count up.
public final class Counter: @unchecked Sendable {
    private let lock = Lock()
    private var count = 0
    public init() {}
    public func add(_ n: Int = 1) { lock.withLock { count += n } }
    public var value: Int { lock.withLock { count } }
}
