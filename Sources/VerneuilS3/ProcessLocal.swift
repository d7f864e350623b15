import CVerneuil
import Synchronization
import VerneuilSystem

/// A value that belongs to one process: made on first use, made afresh in a
/// child of fork(2), where the parent's is leaked: its threads don't exist
/// there, and its destructors would wait for them or assert.
///
/// The lock that guards the making is the maker's pid, so that a child forked
/// in the middle of it finds a lock of another process, which is free.
/// Safe from any thread.
final class ProcessLocal<Value: AnyObject & Sendable>: Sendable {
    private final class Owned: Sendable {
        let pid: pid_t
        let value: Value
        init(_ pid: pid_t, _ value: Value) {
            self.pid = pid
            self.value = value
        }
    }

    /// Address of a retained `Owned`, or 0.
    private let published = Atomic<UInt>(0)
    private let maker = Atomic<Int32>(0)

    /// This process's value, if it has been made.
    var existing: Value? {
        guard let owned = UnsafeRawPointer(bitPattern: published.load(ordering: .acquiring)) else { return nil }
        let value = Unmanaged<Owned>.fromOpaque(owned).takeUnretainedValue()
        return value.pid == getpid() ? value.value : nil
    }

    /// This process's value, made by `make` where there is none.
    func value<E: Error>(_ make: () throws(E) -> Value) throws(E) -> Value {
        if let existing { return existing }
        let pid = getpid()
        while true {
            let holder = maker.load(ordering: .relaxed)
            if holder == pid {
                Threads.pause(microseconds: 200)
            } else if maker.compareExchange(expected: holder, desired: pid, ordering: .acquiring).exchanged {
                break
            }
        }
        defer { maker.store(0, ordering: .releasing) }
        if let existing { return existing }
        let value = try make()
        let owned = Unmanaged.passRetained(Owned(pid, value)).toOpaque()
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
