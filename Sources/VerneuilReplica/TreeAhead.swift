import Synchronization
import VerneuilFormat
import VerneuilSystem

/// What a lookup in a fresh replica will probably read next, so that it need
/// not take a round trip for each level of a tree.
///
/// - *Upper levels*: the pages at which tables and indexes begin, as the schema
///   lists them, as soon as that is loaded; and the pages directly below a page
///   that has no more than three, or few that are far apart.
/// - *Leaves*: a tree that was filled in the order of its keys (a table by row
///   id, an index made when the rows were there, all after VACUUM) is laid out
///   in that order, an interior page among the pages below it. Where a reader has to
///   wait for an interior page that stands between its neighbours in key order,
///   and not far from them, the chunks around it are asked for at the same time.
///   Then the leaf arrives with the page that leads to it.
///
/// It costs no more than an allowance for each replica and process: twice as many
/// chunks as the loading policy's first ones, and three quarters of the requests
/// that may be in flight for one page. What is
/// asked for is no more urgent than read-ahead. A wrong guess costs requests and disk, never an answer.
///
/// Pages are looked at only where a reader has to wait anyway. Safe from any thread.
package final class TreeAhead: @unchecked Sendable {
    /// Chunks that may still be loaded on a guess, of all snapshots of a replica.
    package final class Allowance: Sendable {
        package init() {}

        private let left = Atomic<Int>(-1)

        /// - Parameter limit: of the first who asks.
        func take(_ count: Int, of limit: Int) -> Int {
            _ = left.compareExchange(expected: -1, desired: limit, ordering: .relaxed)
            while true {
                let before = left.load(ordering: .relaxed)
                let taken = min(count, before)
                guard taken > 0 else { return 0 }
                if left.compareExchange(expected: before, desired: before - taken, ordering: .relaxed).exchanged { return taken }
            }
        }
        func isUsedUp(_ limit: Int) -> Bool {
            let before = left.load(ordering: .relaxed)
            return before == 0 || limit == 0
        }
    }

    /// Roots, and pages of the schema, that are looked at.
    private static let mostPages = 256
    /// A page with more below it than this isn't of the upper levels.
    private static let fewChildren = 16
    /// Interior pages that are remembered.
    private static let mostChildren = 100_000

    private let allowance: Allowance
    /// Chunks that may be asked for on one occasion, beside the background's.
    private let most: Int

    private let lock = Lock()
    private var state = State()
    private struct State {
        /// All roots are among the pages known.
        var hasRoots = false
        /// Pages to be looked at once they are loaded.
        var pending: [UInt32] = []
        var seen: Set<UInt32> = []
        /// Chunks around a page, by the page.
        var around: [UInt32: Range<Int>] = [:]
    }

    init(allowance: Allowance, parallelism: Int) {
        self.allowance = allowance
        most = max(1, parallelism - parallelism / 4)
    }

    /// The chunks of the roots that the loaded part of the schema lists.
    func roots(of snapshot: Snapshot) -> [Int] {
        let limit = 2 * snapshot.initialChunks
        guard !allowance.isUsedUp(limit), let pages = LoadedPages(snapshot) else { return [] }
        lock.lock()
        addRoots(pages)
        _ = addChildren(pages)
        let upper = state.pending
        lock.unlock()
        return take(chunks(of: upper, pages), of: limit, in: snapshot)
    }

    /// A reader has to wait for the page at `offset`. Answers chunks to load with it, the nearest first.
    func missed(_ offset: UInt64, in snapshot: Snapshot) -> [Int] {
        let limit = 2 * snapshot.initialChunks
        guard !allowance.isUsedUp(limit), let pages = LoadedPages(snapshot),
            let page = UInt32(exactly: offset / UInt64(pages.pageSize) + 1)
        else { return [] }
        lock.lock()
        if !state.hasRoots { addRoots(pages) }
        let upper = addChildren(pages)
        let around = state.around[page] ?? 0..<0
        if !around.isEmpty { add([page], pages) }
        lock.unlock()
        let here = pages.chunk(of: page)
        let wanted = chunks(of: upper, pages) + around.sorted { abs($0 - here) < abs($1 - here) }
        return take(wanted.filter { $0 != here }, of: limit, in: snapshot)
    }

    /// Each once, in this order.
    private func chunks(of numbers: [UInt32], _ pages: LoadedPages) -> [Int] {
        var seen: Set<Int> = []
        return numbers.map { pages.chunk(of: $0) }.filter { seen.insert($0).inserted }
    }

    private func take(_ chunks: [Int], of limit: Int, in snapshot: Snapshot) -> [Int] {
        let missing = chunks.filter { snapshot.loadedAddress(ofChunk: $0) == nil }
        return Array(missing.prefix(allowance.take(min(missing.count, most), of: limit)))
    }

    // MARK: Under the lock

    private func add(_ numbers: [UInt32], _ pages: LoadedPages) {
        for page in numbers
        where page > 1 && UInt64(page) * UInt64(pages.pageSize) <= pages.snapshot.length && state.seen.count < Self.mostPages {
            if state.seen.insert(page).inserted { state.pending.append(page) }
        }
    }

    /// Walks through what is loaded of the schema's table, whose root is page 1, and adds what it lists.
    private func addRoots(_ pages: LoadedPages) {
        var next: [UInt32] = [1]
        var visited = 0
        var isComplete = true
        while let number = next.popLast() {
            visited += 1
            guard visited <= Self.mostPages else { break }
            guard let page = pages[number] else {
                isComplete = false
                continue
            }
            if let children = page.children { next += children }
            guard page.kind == .tableLeaf, let cells = page.cells else { continue }
            // Columns: type, name, tbl_name, rootpage, sql.
            add(
                cells.compactMap { cell in
                    page.row(at: cell).flatMap { page.integer(inColumn: 3, ofRecord: $0.record) }.flatMap { UInt32(exactly: $0) }
                }, pages)
        }
        state.hasRoots = isComplete
    }

    /// Looks at pages that have come since. Of children that are interior pages, the
    /// neighbours' distance is what a page has below it.
    /// - Returns: new pages of the upper levels.
    private func addChildren(_ pages: LoadedPages) -> [UInt32] {
        var waiting: [UInt32] = []
        var upper: [UInt32] = []
        for number in state.pending {
            guard let page = pages[number] else {
                waiting.append(number)
                continue
            }
            guard let children = page.children, state.around.count + children.count <= Self.mostChildren else { continue }
            if let first = children.min(), let last = children.max() {
                // The first two of a level are made together, and stand side by side.
                let isFarApart = Int(last - first) * pages.pageSize / Chunk.size / children.count > most
                if children.count <= 3 || (children.count <= Self.fewChildren && isFarApart) { upper += children }
            }
            for i in children.indices.dropFirst() {
                let page = children[i]
                let before = children[i - 1]
                let after = i + 1 < children.count ? children[i + 1] : page
                guard before < page, page <= after, UInt64(page) * UInt64(pages.pageSize) <= pages.snapshot.length else { continue }
                // Pages below it begin up to 5/8 of that before it, and end before its neighbour.
                let span = max(page - before, after - page)
                let first = pages.chunk(of: page - min(page - 1, span - span / 8 * 3))
                let last = min(pages.chunk(of: page) + pages.chunk(of: span + 1) + 1, pages.snapshot.chunkCount)
                if last - first > 3, last - first <= most { state.around[page] = first..<last }
            }
        }
        state.pending = waiting
        add(upper, pages)
        return Array(state.pending[waiting.count...])
    }
}
