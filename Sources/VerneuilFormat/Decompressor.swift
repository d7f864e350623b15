import CZstd
import Synchronization

/// zstd's decompressors, some 100 KB each, kept for the next chunk.
/// Safe from any thread, without a lock; what a thread had at the moment of fork(2) is leaked in the child.
enum Decompressor {
    /// As many as threads unpack at the same time, about; more are made and freed.
    private static let most = 16
    /// Addresses, or 0.
    private nonisolated(unsafe) static let kept: UnsafeMutablePointer<Atomic<UInt>> = {
        let kept = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: most)
        for i in 0..<most { (kept + i).initialize(to: Atomic(0)) }
        return kept
    }()

    /// Makes room for them.
    static func prepare() { _ = kept[0].load(ordering: .relaxed) }

    /// nil where memory is short.
    static func take() -> OpaquePointer? {
        for i in 0..<most where kept[i].load(ordering: .relaxed) != 0 {
            let found = kept[i].exchange(0, ordering: .acquiring)
            if found != 0 { return OpaquePointer(bitPattern: found) }
        }
        return ZSTD_createDCtx()
    }

    static func giveBack(_ context: OpaquePointer) {
        for i in 0..<most where kept[i].load(ordering: .relaxed) == 0 {
            let new = UInt(bitPattern: context)
            if kept[i].compareExchange(expected: 0, desired: new, ordering: .releasing).exchanged { return }
        }
        ZSTD_freeDCtx(context)
    }
}
