/// Finds out whether a connection reads in order, and what to load ahead of
/// it, in the manner of the kernel's read-ahead for files.
///
/// A stream begins where a chunk that isn't loaded follows the last such one,
/// or several that are loaded: then the next few are loaded. When the reader
/// touches what was loaded ahead last, the next window, twice as large, is
/// asked for: it is on its way while the reader goes through this one, and with
/// the largest window the source's requests in flight are always used up.
package struct ReadAhead: Sendable, Equatable {
    /// Chunks of the first window.
    private static let first = 4
    /// So many loaded chunks before one that isn't make a stream.
    private static let history = 3

    /// Chunks of the largest window: as many as may be in flight.
    private let largest: Int
    /// Chunks in the file.
    private let count: Int
    private var window = 0
    private var lastMiss = -2
    /// Touching one of these asks for the next window.
    package private(set) var trigger: Range<Int> = 0..<0

    package init(count: Int, largest: Int) {
        self.count = count
        self.largest = max(largest, Self.first)
    }

    /// Chunk `i` has to be waited for.
    /// - Parameter run: how many chunks directly before it are loaded, or being loaded; at most `limit` matter.
    /// - Returns: what to load besides, in order.
    package mutating func missed(_ i: Int, loadedBefore run: (_ limit: Int) -> Int) -> Range<Int> {
        if trigger.contains(i) { return touched(i) }
        defer { lastMiss = i }
        let before = i == lastMiss + 1 ? 1 : run(largest)
        guard i == lastMiss + 1 || before >= Self.history else { return i..<i }
        window = min(max(Self.first, before), largest)
        return ask(from: i + 1)
    }

    /// Chunk `i`, in `trigger`, was touched.
    package mutating func touched(_ i: Int) -> Range<Int> {
        guard trigger.contains(i) else { return i..<i }
        lastMiss = i
        window = min(2 * window, largest)
        return ask(from: trigger.upperBound)
    }

    private mutating func ask(from start: Int) -> Range<Int> {
        let start = min(start, count)
        trigger = start..<min(start + window, count)
        return trigger
    }
}
