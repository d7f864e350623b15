/// Finds out whether a connection reads in order, and what to load ahead of
/// it, in the manner of the kernel's read-ahead for files.
///
/// A stream begins where a chunk that isn't loaded follows the last such one,
/// or several that are loaded. From then on four times what the stream has read
/// is kept loaded, or on its way, ahead of the reader, up to twice what may be
/// in flight: one half travels while the other is unpacked and read. More is
/// asked for in small steps, so that all requests that may be in flight are.
/// So a reader that stops has had at most five times what it read loaded, and
/// the full speed is reached after four round trips. Loaded chunks before one
/// that isn't may be there for other reasons, and count as three.
///
/// An interior page beside its leaf looks like the beginning of a stream, too.
/// So a stream goes on only where its reader comes to where it was expected next;
/// a lookup that happens to fall into what was loaded ahead says nothing.
package struct ReadAhead: Sendable, Equatable {
    /// The least to keep ahead, in chunks.
    private static let least = 4
    /// Chunks ahead per chunk that was read.
    private static let growth = 4
    /// So many loaded chunks before one that isn't make a stream.
    private static let history = 3
    /// So many chunks may be passed over where more is asked for.
    private static let leap = 1

    /// Chunks to keep ahead at most.
    private let largest: Int
    /// Chunks in the file.
    private let count: Int
    private var lastMiss = -2
    /// Where the stream began, and the first chunk beyond what it has asked for.
    private var start = 0
    private var end = 0
    /// Touching one of these asks for more.
    package private(set) var trigger: Range<Int> = 0..<0

    /// - Parameters:
    ///   - count: chunks in the file.
    ///   - parallelism: requests that may be in flight.
    package init(count: Int, parallelism: Int) {
        self.count = count
        largest = max(2 * parallelism, Self.least)
    }

    /// Chunk `i` has to be waited for.
    /// - Parameter run: how many chunks directly before it are loaded, or being loaded, counting up to `limit`.
    /// - Returns: what to load besides, in order.
    package mutating func missed(_ i: Int, loadedBefore run: (_ limit: Int) -> Int) -> Range<Int> {
        if i >= start, i < end { return touched(i) }
        defer { lastMiss = i }
        let before = i == lastMiss + 1 ? 1 : run(Self.history)
        guard i == lastMiss + 1 || before >= Self.history else { return i..<i }
        start = i - before
        end = i + 1
        return advance(to: i)
    }

    /// Chunk `i` was touched.
    package mutating func touched(_ i: Int) -> Range<Int> {
        // Who reads in order comes by the first of them: every touch is told.
        guard trigger.contains(i), i - trigger.lowerBound <= Self.leap else { return i..<i }
        lastMiss = i
        return advance(to: i)
    }

    private mutating func advance(to i: Int) -> Range<Int> {
        let window = min(max(Self.least, Self.growth * (i - start + 1)), largest)
        let new = min(end, count)..<min(max(end, i + 1 + window), count)
        end = new.upperBound
        trigger = min(i + 1 + window / 8, end)..<end
        return new
    }
}
