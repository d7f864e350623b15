import NIOCore

/// A token bucket: so many requests per second on average, and so many at once
/// after a pause. Requests pass in order. Confined to its event loop.
final class Pacer: @unchecked Sendable {
    private let loop: any EventLoop
    private let pacing: S3Pacing.Budget?
    private var tokens: Double
    private var counted = NIODeadline.now()
    private var waiting = CircularBuffer<() -> Void>()
    private var isAwaitingToken = false

    /// - Parameter pacing: nil lets everything pass.
    init(_ pacing: S3Pacing.Budget?, loop: any EventLoop) {
        self.loop = loop
        self.pacing = pacing
        tokens = pacing?.burst ?? 0
    }

    /// Runs `request` when it may go out: now, or later on the event loop.
    func admit(_ request: @escaping () -> Void) {
        guard pacing != nil else { return request() }
        refill()
        if waiting.isEmpty && tokens >= 1 {
            tokens -= 1
            return request()
        }
        waiting.append(request)
        awaitToken()
    }

    /// Counts a request that did not wait. The next ones wait longer.
    func charge() {
        guard pacing != nil else { return }
        refill()
        tokens -= 1
    }

    private func refill() {
        guard let pacing else { return }
        let now = NIODeadline.now()
        let seconds = Double((now - counted).nanoseconds) / 1e9
        counted = now
        tokens = min(pacing.burst, tokens + seconds * pacing.requestsPerSecond)
    }

    private func awaitToken() {
        guard !isAwaitingToken, let pacing else { return }
        isAwaitingToken = true
        let seconds = (1 - tokens) / pacing.requestsPerSecond
        loop.assumeIsolated().scheduleTask(in: .nanoseconds(Int64(max(0, seconds) * 1e9) + 1)) { [self] in
            isAwaitingToken = false
            refill()
            while tokens >= 1, let request = waiting.popFirst() {
                tokens -= 1
                request()
            }
            if !waiting.isEmpty { awaitToken() }
        }
    }
}
