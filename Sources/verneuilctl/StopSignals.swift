import CVerneuil
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

/// The signals that ask this program to stop (SIGTERM, SIGINT, SIGHUP; not those that it was started to ignore), taken in hand by one who has to put something in order first.
struct StopSignals: Sendable {
    private let signals: sigset_t

    /// Blocks them, for this thread and those that it starts: from here on they are waited for.
    init() {
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGTERM, SIGINT, SIGHUP] where vrn_signal_is_ignored(number) == 0 { sigaddset(&signals, number) }
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        self.signals = signals
    }

    /// The one that came; nil where none did in that time.
    func wait(seconds: Double) -> Int32? {
        var set = signals
        var time = timespec(tv_sec: Int(seconds), tv_nsec: Int((seconds - seconds.rounded(.down)) * 1e9))
        let number = vrn_sigtimedwait(&set, &time)
        return number > 0 ? number : nil
    }

    /// From the first one on, has `cleanUp` done on a thread of its own; then the signal ends the program, as it would have.
    func beforeTheEnd(_ cleanUp: @escaping @Sendable () -> Void) throws(SystemError) {
        try Threads.spawn("verneuil-stop") {
            while true {
                guard let number = wait(seconds: 3600) else { continue }
                cleanUp()
                // Threads have it blocked: this one opens it for itself.
                signal(number, SIG_DFL)
                var one = sigset_t()
                sigemptyset(&one)
                sigaddset(&one, number)
                pthread_sigmask(SIG_UNBLOCK, &one, nil)
                raise(number)
            }
        }
    }
}
