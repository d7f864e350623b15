import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Chunks that one target is known to have since it stored or touched them within the last hour, whichever of this
/// process's databases they are of: equal ones are sent once. Memory is bounded: 65,536 names. Safe from any thread.
package final class RecentChunks: @unchecked Sendable {
    /// Names that were noted since a moment. All of them count until `lifetime` after that moment.
    private struct Generation {
        var since: MonotonicTime
        var names: Set<Fingerprint> = []
    }
    private let lock = Lock()
    private var young: Generation
    private var old: Generation
    private let clock: @Sendable () -> MonotonicTime

    /// Names in each of the two generations.
    package static let capacity = 32_768
    /// For how long a name counts, in seconds.
    package static let lifetime = 3600.0

    package init(clock: @escaping @Sendable () -> MonotonicTime = { RecentChunks.sleeplessTime() }) {
        self.clock = clock
        young = Generation(since: clock())
        old = young
    }

    /// Time that a machine sleeps counts: objects in a store grow old meanwhile.
    package static func sleeplessTime() -> MonotonicTime {
        #if os(Linux)
        var t = timespec()
        clock_gettime(CLOCK_BOOTTIME, &t)
        return MonotonicTime(nanoseconds: UInt64(t.tv_sec) * 1_000_000_000 + UInt64(t.tv_nsec))
        #else
        return .now
        #endif
    }

    package func contains(_ name: Fingerprint) -> Bool {
        lock.withLock {
            let now = clock()
            func has(_ generation: Generation) -> Bool {
                now.seconds(since: generation.since) < Self.lifetime && generation.names.contains(name)
            }
            return has(young) || has(old)
        }
    }

    package func insert(_ name: Fingerprint) {
        lock.withLock {
            let now = clock()
            if young.names.count >= Self.capacity || now.seconds(since: young.since) >= Self.lifetime / 2 {
                old = young
                young = Generation(since: now)
            }
            young.names.insert(name)
        }
    }

    package func removeAll() {
        lock.withLock {
            young.names = []
            old.names = []
        }
    }
}
