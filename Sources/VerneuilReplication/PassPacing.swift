import VerneuilSpool
import VerneuilSystem

/// When the next pass over one database on one target may begin in the
/// background. It follows from the target's record, and so is the same in every
/// process: eight that have the database open send no more manifests than one, and leave a target that fails alone for as long.
package struct PassPacing: Sendable {
    /// Between two passes that send something, and between two manifests, in seconds.
    package var passInterval: Double
    /// See ``passInterval``.
    package var manifestInterval: Double

    /// The longest pause after failures, in seconds.
    package static let longestPause = 60.0
    /// Failures after which it doesn't grow any more. A fenced target is left alone for as long from the first one on.
    static let mostDoublings = 6

    package init(passInterval: Double, manifestInterval: Double) {
        self.passInterval = passInterval
        self.manifestInterval = manifestInterval
    }

    /// Seconds to wait from `now` on; 0: none.
    package func wait(_ record: TargetRecord, at now: MonotonicTime) -> Double {
        var wait = max(
            rest(of: passInterval, since: record.lastPass, now), rest(of: manifestInterval, since: record.lastManifest, now))
        if record.failures > 0 { wait = max(wait, rest(of: pause(after: record), since: record.lastFailure, now)) }
        return wait
    }

    /// After the n-th failure 2^n times the interval between manifests, less up to a quarter: databases that failed
    /// together don't come back together. The failure's time is the die, so that all processes throw the same.
    func pause(after record: TargetRecord) -> Double {
        let doublings = record.fencedBy.isEmpty ? min(record.failures, Self.mostDoublings) : Self.mostDoublings
        let jitter = Double((record.lastFailure?.nanoseconds ?? 0) % 1024) / 1024
        return min(Self.longestPause, manifestInterval * Double(1 << doublings)) * (1 - jitter / 4)
    }

    /// A time that is still to come is of another clock (a container may have its own), and says nothing.
    private func rest(of interval: Double, since then: MonotonicTime?, _ now: MonotonicTime) -> Double {
        guard let then, then <= now else { return 0 }
        return max(0, interval - now.seconds(since: then))
    }
}
