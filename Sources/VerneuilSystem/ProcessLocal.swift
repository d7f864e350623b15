import CVerneuil
import Synchronization

/// A value that each process makes for itself, on first use. After fork(2) the
/// parent's value is no good to the child: its threads are gone, its locks may
/// be held by them for ever. The child gets a new one without looking into the
/// old, which is leaked.
package final class ProcessLocal<Value: AnyObject & Sendable>: Sendable {
    private final class Box {
        let process: pid_t
        let value: Value
        init(_ process: pid_t, _ value: Value) {
            self.process = process
            self.value = value
        }
    }

    private let box = Atomic<UInt>(0)
    private let make: @Sendable () -> Value

    package init(_ make: @escaping @Sendable () -> Value) {
        self.make = make
    }

    /// Where two threads ask first, one's value is dropped at once: `make` must do no more than make.
    package var value: Value {
        let process = getpid()
        var found = box.load(ordering: .acquiring)
        while true {
            if let pointer = UnsafeRawPointer(bitPattern: found) {
                let current = Unmanaged<Box>.fromOpaque(pointer).takeUnretainedValue()
                if current.process == process { return current.value }
            }
            let fresh = Unmanaged.passRetained(Box(process, make()))
            let bits = UInt(bitPattern: fresh.toOpaque())
            let (exchanged, original) = box.compareExchange(
                expected: found, desired: bits, ordering: .acquiringAndReleasing)
            if exchanged { return fresh.takeUnretainedValue().value }
            fresh.release()
            found = original
        }
    }
}
