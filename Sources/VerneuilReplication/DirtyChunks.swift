import VerneuilFormat

/// Which chunks a transaction wrote to. `mark` is called for every page that
/// SQLite writes: a bit test, and nothing else for a chunk that is marked already.
struct DirtyChunks: ~Copyable {
    private var bits: UnsafeMutablePointer<UInt64>
    /// Words of `bits`.
    private var words: Int
    /// The marked ones, in the order of marking.
    private var list: UnsafeMutablePointer<UInt32>
    private var capacity: Int
    private(set) var count = 0

    init() {
        words = 16
        bits = .allocate(capacity: words)
        bits.initialize(repeating: 0, count: words)
        capacity = 64
        list = .allocate(capacity: capacity)
    }

    deinit {
        bits.deallocate()
        list.deallocate()
    }

    /// Marks all chunks that bytes `offset ..< offset + length` lie in.
    @inline(__always)
    mutating func mark(offset: Int64, length: Int) {
        guard length > 0 else { return }
        let first = Int(truncatingIfNeeded: offset &>> 16)
        let last = Int(truncatingIfNeeded: (offset &+ Int64(truncatingIfNeeded: length) &- 1) &>> 16)
        if first == last && first < words &* 64 && bits[first &>> 6] & (1 &<< UInt64(first & 63)) != 0 { return }
        insert(first, last)
    }

    @inline(never)
    private mutating func insert(_ first: Int, _ last: Int) {
        for i in first...max(first, last) { insert(i) }
    }

    private mutating func insert(_ i: Int) {
        if i >= words * 64 { grow(toHold: i) }
        let bit: UInt64 = 1 << UInt64(i & 63)
        if bits[i >> 6] & bit != 0 { return }
        bits[i >> 6] |= bit
        if count == capacity {
            let larger = UnsafeMutablePointer<UInt32>.allocate(capacity: capacity * 2)
            larger.moveInitialize(from: list, count: count)
            list.deallocate()
            list = larger
            capacity *= 2
        }
        list[count] = UInt32(truncatingIfNeeded: i)
        count += 1
    }

    private mutating func grow(toHold i: Int) {
        let more = max(words * 2, (i >> 6) + 1)
        let larger = UnsafeMutablePointer<UInt64>.allocate(capacity: more)
        larger.moveInitialize(from: bits, count: words)
        (larger + words).initialize(repeating: 0, count: more - words)
        bits.deallocate()
        bits = larger
        words = more
    }

    /// Marks chunks `first ..< end`.
    mutating func mark(chunks first: Int, _ end: Int) {
        var i = first
        while i < end {
            insert(i)
            i += 1
        }
    }

    /// The marked indexes, ascending; valid until the next change.
    mutating func sorted() -> UnsafeBufferPointer<UInt32> {
        var all = UnsafeMutableBufferPointer(start: list, count: count)
        var isSorted = true
        for i in all.indices.dropFirst() where all[i - 1] > all[i] {
            isSorted = false
            break
        }
        if !isSorted { all.sort() }
        return UnsafeBufferPointer(all)
    }

    /// Forgets all marks. Takes time for those that there are, not for the database's size.
    mutating func removeAll() {
        for i in 0..<count { bits[Int(list[i]) >> 6] = 0 }
        count = 0
    }
}
