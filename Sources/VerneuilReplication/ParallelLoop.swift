import CVerneuil
import VerneuilSystem

/// A loop whose turns are taken, in order, by the calling thread and by helpers
/// that end with it. For work that is worth more than one core; needs no pool, and nothing to be left behind.
enum ParallelLoop {
    /// Helpers that leave a machine's other cores something to do.
    static let mostHelpers = min(max(Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))) - 1, 0), 3)

    /// - Parameter body: takes a turn; false ends the loop: turns that others have begun are finished.
    static func run(_ turns: Int, helpers: Int, _ body: @escaping @Sendable (Int) -> Bool) {
        guard turns > 0 else { return }
        let state = State(turns)
        let work: @Sendable () -> Void = {
            while let turn = state.next() {
                if !body(turn) { state.stop() }
            }
        }
        for _ in 0..<min(max(helpers, 0), turns - 1) {
            state.enter()
            // Without a thread it takes longer, and that is all.
            let isRunning = (try? Threads.spawn("vrn-upload") {
                work()
                state.leave()
            }) != nil
            if !isRunning { state.leave() }
        }
        work()
        state.join()
    }

    private final class State: Sendable {
        private let lock = Lock()
        nonisolated(unsafe) private var following = 0
        nonisolated(unsafe) private var end: Int
        nonisolated(unsafe) private var helping = 0

        init(_ turns: Int) { end = turns }

        func next() -> Int? {
            lock.withLock {
                guard following < end else { return nil }
                following += 1
                return following - 1
            }
        }
        func stop() { lock.withLock { end = 0 } }
        func enter() { lock.withLock { helping += 1 } }
        func leave() {
            lock.withLock {
                helping -= 1
                lock.signal()
            }
        }
        func join() { lock.withLock { while helping > 0 { lock.wait() } } }
    }
}
