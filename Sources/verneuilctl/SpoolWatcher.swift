import CVerneuil
import Logging
import VerneuilReplication
import VerneuilSystem

/// `flush --watch`: the copiers of this process look after a spooling directory
/// that others fill. Whoever stops it with SIGKILL loses nothing: what is not uploaded stays spooled (S3).
struct SpoolWatcher {
    /// Seconds between two looks.
    let interval: Double
    /// Seconds that the last flush may take.
    let stopTimeout: Double
    private let signals: StopSignals

    /// Blocks the signals that stop it, for this thread and those it starts: they are waited for.
    init(interval: Double, stopTimeout: Double) {
        self.interval = interval
        self.stopTimeout = stopTimeout
        signals = StopSignals()
    }

    func run(_ replicator: Replicator) throws {
        let logger = Logger(label: "verneuil.watch")
        try replicator.spool.prepare()
        replicator.scanNow()
        ServiceManager.notify("READY=1\nSTATUS=watching \(replicator.spool.root)")
        logger.notice("watching", metadata: ["directory": "\(replicator.spool.root)"])
        while signals.wait(seconds: interval) == nil { replicator.scanNow() }

        ServiceManager.notify("STOPPING=1")
        // Once more, so that a shutdown leaves nothing behind: after a boot the spool isn't trusted.
        let box = Outcome()
        let timeout = stopTimeout
        try Threads.spawn("verneuil-last") { box.set(replicator.flushAll(timeout: timeout).map { "\($0.path): \($0.reason)" }) }
        let deadline = MonotonicTime.now.advanced(seconds: stopTimeout + 1)
        while box.value == nil, MonotonicTime.now < deadline {
            if signals.wait(seconds: 0.05) != nil { break }
        }
        for failure in box.value ?? ["not everything was uploaded in time"] {
            logger.warning("stopped with something left in the spool", metadata: ["reason": "\(failure)"])
        }
    }

    private final class Outcome: @unchecked Sendable {
        private let lock = Lock()
        private var failures: [String]?
        var value: [String]? { lock.withLock { failures } }
        func set(_ value: [String]) { lock.withLock { failures = value } }
    }
}
