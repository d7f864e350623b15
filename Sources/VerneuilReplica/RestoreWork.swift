import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Which chunks a restore has, and which it still needs.
struct RestoreWork {
    private let manifest: Manifest
    /// By chunk.
    private var isDone: [Bool]
    /// All chunks that are not zeros, sorted by fingerprint: equal ones stand together.
    private let order: [Int32]
    var report = Restore.Report()

    init(_ manifest: Manifest) {
        self.manifest = manifest
        let chunks = manifest.chunks
        isDone = [Bool](repeating: false, count: chunks.count)
        report.length = manifest.length
        var order: [Int32] = []
        order.reserveCapacity(chunks.count)
        for (i, chunk) in chunks.enumerated() {
            if chunk == Chunk.zeroFingerprint, Chunk.length(ofChunk: i, databaseLength: manifest.length) == Chunk.size {
                isDone[i] = true
                report.zero += UInt64(Chunk.size)
            } else {
                order.append(Int32(i))
            }
        }
        order.sort { Self.isLess(chunks[Int($0)], chunks[Int($1)]) || (chunks[Int($0)] == chunks[Int($1)] && $0 < $1) }
        self.order = order
    }

    private static func isLess(_ a: Fingerprint, _ b: Fingerprint) -> Bool {
        (a.primary, a.secondary) < (b.primary, b.secondary)
    }

    private func length(_ i: Int) -> Int { Chunk.length(ofChunk: i, databaseLength: manifest.length) }

    /// Bytes that are in their place.
    var done: UInt64 { report.zero + report.resumed + report.bundled + report.fromBase + report.fetched }

    /// Chunks that are in their place, zeros included.
    var present: [Int] { isDone.indices.filter { isDone[$0] } }

    /// What is to be fetched: the places of each distinct chunk, in the order of the file.
    var missing: [[Int]] {
        var groups: [[Int]] = []
        var last: Fingerprint?
        for place in order where !isDone[Int(place)] {
            let i = Int(place)
            if manifest.chunks[i] == last, let first = groups.last?.first, length(first) == length(i) {
                groups[groups.count - 1].append(i)
            } else {
                groups.append([i])
                last = manifest.chunks[i]
            }
        }
        return groups.sorted { $0[0] < $1[0] }
    }

    /// Where a chunk with these bytes is still missing.
    private func places(of fingerprint: Fingerprint, length: Int) -> [Int] {
        var low = 0
        var high = order.count
        while low < high {
            let middle = (low + high) / 2
            if Self.isLess(manifest.chunks[Int(order[middle])], fingerprint) { low = middle + 1 } else { high = middle }
        }
        var places: [Int] = []
        while low < order.count, manifest.chunks[Int(order[low])] == fingerprint {
            let i = Int(order[low])
            if !isDone[i], self.length(i) == length { places.append(i) }
            low += 1
        }
        return places
    }

    /// Recognises what an earlier restore has written; makes holes where zeros belong.
    mutating func resume(from file: borrowing Descriptor, size: Int64) throws(SystemError) {
        var offset: Int64 = 0
        while true {
            // Holes are passed over: zeros are never missing, and other chunks are not in them.
            offset = vrn_next_data(file.fd, offset, size)
            let i = Int(offset / Int64(Chunk.size))
            guard offset < size, i < manifest.chunks.count else { return }
            let start = Int64(i) * Int64(Chunk.size)
            let bytes = try file.read(count: length(i), at: start)
            if FingerprintKey.chunk.fingerprint(bytes) == manifest.chunks[i] {
                if !isDone[i] { report.resumed += UInt64(bytes.count) }
                isDone[i] = true
            } else if isDone[i] {
                if vrn_punch_hole(file.fd, start, Int64(Chunk.size)) < 0 {
                    try file.write([UInt8](repeating: 0, count: Chunk.size), at: start)
                }
            }
            offset = start + Int64(Chunk.size)
        }
    }

    mutating func writeBundled(to file: borrowing Descriptor) throws(SystemError) {
        for chunk in manifest.bundled where chunk.index < isDone.count && !isDone[chunk.index] {
            guard FingerprintKey.chunk.fingerprint(chunk.data) == manifest.chunks[chunk.index] else { continue }
            try file.write(chunk.data, at: Int64(chunk.index) * Int64(Chunk.size))
            isDone[chunk.index] = true
            report.bundled += UInt64(chunk.data.count)
        }
    }

    /// Takes chunks from an older copy, wherever in it they stand. It may be in
    /// use: a chunk that changes while it is read has another fingerprint.
    mutating func copy(
        from base: String, to file: borrowing Descriptor, _ progress: (Restore.Progress) -> Void
    ) throws(SystemError) {
        let base = try Descriptor(base, O_RDONLY)
        var offset: Int64 = 0
        while true {
            let bytes = try base.read(count: Chunk.size, at: offset)
            if bytes.isEmpty { return }
            for i in places(of: FingerprintKey.chunk.fingerprint(bytes), length: bytes.count) {
                try file.write(bytes, at: Int64(i) * Int64(Chunk.size))
                isDone[i] = true
                report.fromBase += UInt64(bytes.count)
            }
            offset += Int64(bytes.count)
            if offset % (64 << 20) == 0 { progress(Restore.Progress(done: done, total: manifest.length)) }
        }
    }
}
