import CVerneuil
import Synchronization

/// A value that belongs to one process: made on first use, and made afresh in a
/// child of fork(2). The parent's is no good to the child: its threads are gone,
/// its locks may be held by them for ever, its destructors may wait for them or
/// assert. It is leaked there, without a look into it.
///
/// One thread makes it while others wait. The lock for that is the maker's pid,
/// so that a child forked in the middle finds the lock of another process, which is free.
/// Safe from any thread.
package final class ProcessLocal<Value: AnyObject & Sendable>: Sendable {
    private final class Owned: Sendable {
        let process: pid_t
        let value: Value
        init(_ process: pid_t, _ value: Value) {
            self.process = process
            self.value = value
        }
    }

    /// Address of a retained `Owned`, or 0.
    private let published = Atomic<UInt>(0)
    private let maker = Atomic<Int32>(0)

    package init() {}

    /// This process's value, if it has been made.
    package var existing: Value? {
        guard let owned = UnsafeRawPointer(bitPattern: published.load(ordering: .acquiring)) else { return nil }
        let current = Unmanaged<Owned>.fromOpaque(owned).takeUnretainedValue()
        return current.process == getpid() ? current.value : nil
    }

    /// This process's value, made by `make` where there is none.
    package func value<E: Error>(_ make: () throws(E) -> Value) throws(E) -> Value {
        if let existing { return existing }
        let process = getpid()
        while true {
            let holder = maker.load(ordering: .relaxed)
            if holder == process {
                Threads.pause(microseconds: 200)
            } else if maker.compareExchange(expected: holder, desired: process, ordering: .acquiring).exchanged {
                break
            }
        }
        defer { maker.store(0, ordering: .releasing) }
        if let existing { return existing }
        let value = try make()
        let owned = Unmanaged.passRetained(Owned(process, value)).toOpaque()
        published.store(UInt(bitPattern: owned), ordering: .releasing)
        return value
    }

    deinit {
        guard existing != nil, let owned = UnsafeRawPointer(bitPattern: published.load(ordering: .acquiring)) else {
            return
        }
        Unmanaged<Owned>.fromOpaque(owned).release()
    }
}
