import CVerneuil

/// A mutex with a condition variable, on pthreads: nothing here needs Dispatch
/// or Swift concurrency, which don't survive fork(2). Lives as long as its
/// references; every method is safe from any thread.
public final class Lock: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    public init() {
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        condition = .allocate(capacity: 1)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        #if os(Linux)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        #endif
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        condition.deallocate()
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    @inline(__always) public func lock() {
        vrn_gate_poll()
        if pthread_mutex_trylock(mutex) != 0 { waitToLock() }
    }
    @inline(never) private func waitToLock() {
        vrn_gate_leave()
        pthread_mutex_lock(mutex)
        vrn_gate_enter()
    }
    @inline(__always) public func unlock() { pthread_mutex_unlock(mutex) }

    @inline(__always)
    public func withLock<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock()
        defer { unlock() }
        return try body()
    }

    /// Waits for a signal; the lock must be held, is given up meanwhile, and is held again after.
    public func wait() {
        vrn_gate_leave()
        pthread_cond_wait(condition, mutex)
        vrn_gate_enter()
    }

    /// The same until `deadline`; false where that came first.
    @discardableResult
    public func wait(until deadline: MonotonicTime) -> Bool {
        var t = timespec(
            tv_sec: Int(deadline.nanoseconds / 1_000_000_000), tv_nsec: Int(deadline.nanoseconds % 1_000_000_000))
        vrn_gate_leave()
        let code = pthread_cond_timedwait(condition, mutex, &t)
        vrn_gate_enter()
        return code == 0
    }

    public func signal() { pthread_cond_signal(condition) }
    public func broadcast() { pthread_cond_broadcast(condition) }
}

/// A point on a clock that only runs forward. Not comparable between machines or boots.
public struct MonotonicTime: Hashable, Comparable, Sendable {
    public var nanoseconds: UInt64
    public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

    public static var now: MonotonicTime {
        var t = timespec()
        clock_gettime(CLOCK_MONOTONIC, &t)
        return MonotonicTime(nanoseconds: UInt64(t.tv_sec) * 1_000_000_000 + UInt64(t.tv_nsec))
    }
    /// By 30 years at most: callers wait for so long, or for ever.
    public func advanced(seconds: Double) -> MonotonicTime {
        MonotonicTime(nanoseconds: nanoseconds &+ UInt64(min(max(0, seconds), 1e9) * 1e9))
    }
    /// Seconds from `earlier` to this; negative where this is the earlier one.
    public func seconds(since earlier: MonotonicTime) -> Double {
        (Double(nanoseconds) - Double(earlier.nanoseconds)) / 1e9
    }
    public static func < (a: MonotonicTime, b: MonotonicTime) -> Bool { a.nanoseconds < b.nanoseconds }
}

/// Seconds since 1970 with a fraction, from the system's clock.
public func wallClock() -> FileTime {
    var t = timespec()
    clock_gettime(CLOCK_REALTIME, &t)
    return FileTime(t)
}

public enum Threads {
    /// usleep(3), during which the process may fork.
    public static func pause(microseconds: UInt32) {
        vrn_gate_leave()
        usleep(microseconds)
        vrn_gate_enter()
    }

    /// For long work that waits for nothing: whoever wants to fork gets the chance.
    public static func passGate() { vrn_gate_poll() }

    /// Runs `body` on a thread of its own, detached, with all signals blocked:
    /// the host's signal handlers never run on our threads. The process doesn't fork
    /// while it runs Swift (vrn_fork.c).
    public static func spawn(
        _ name: String, stackBytes: Int = 512 << 10, _ body: @escaping @Sendable () -> Void
    ) throws(SystemError) {
        final class Box {
            let name: String
            let body: @Sendable () -> Void
            init(_ name: String, _ body: @escaping @Sendable () -> Void) {
                self.name = name
                self.body = body
            }
        }
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, stackBytes)

        var all = sigset_t()
        var old = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &old)
        defer { pthread_sigmask(SIG_SETMASK, &old, nil) }

        let box = Unmanaged.passRetained(Box(name, body))
        var thread = pthread_t()
        let code = pthread_create(
            &thread, &attributes,
            { argument in
                vrn_gate_join()
                defer { vrn_gate_quit() }
                let box = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
                #if os(Linux)
                _ = box.name.withCString { pthread_setname_np(pthread_self(), $0) }
                #endif
                box.body()
                return nil
            }, box.toOpaque())
        if code != 0 {
            box.release()
            throw SystemError("pthread_create", name, code)
        }
    }
}
