import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Touches of several chunks at once.
enum ChunkTouches {
    /// Waits for all. Answers, in the order of `chunks`, whether the store has each.
    static func run(
        _ chunks: [Fingerprint], _ store: any ObjectStore, _ urgency: Urgency
    ) -> [Result<Bool, StoreError>] {
        let board = Board(chunks.count)
        for (i, chunk) in chunks.enumerated() {
            store.touch(.chunks, chunk.chunkName, urgency: urgency) { board.put(i, $0) }
        }
        return board.take()
    }

    private final class Board: @unchecked Sendable {
        private let lock = Lock()
        private var results: [Result<Bool, StoreError>]
        private var missing: Int
        init(_ count: Int) {
            results = Array(repeating: .success(true), count: count)
            missing = count
        }
        func put(_ index: Int, _ result: Result<Bool, StoreError>) {
            lock.withLock {
                results[index] = result
                missing -= 1
                lock.broadcast()
            }
        }
        func take() -> [Result<Bool, StoreError>] {
            lock.withLock {
                while missing > 0 { lock.wait() }
                return results
            }
        }
    }
}
