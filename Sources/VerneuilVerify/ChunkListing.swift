import VerneuilFormat
import VerneuilStore

/// An object of the chunk bucket that a database needs.
struct NeededChunk: Hashable, Comparable {
    var fingerprint: Fingerprint
    /// In bytes, decompressed.
    var length: Int

    /// In the order of their names.
    static func < (a: NeededChunk, b: NeededChunk) -> Bool {
        (a.fingerprint.primary, a.fingerprint.secondary, a.length) < (b.fingerprint.primary, b.fingerprint.secondary, b.length)
    }

    /// The chunk of zeros is never stored.
    static func isWellKnown(_ manifest: Manifest, _ i: Int) -> Bool {
        manifest.chunks[i] == Chunk.zeroFingerprint
            && Chunk.length(ofChunk: i, databaseLength: manifest.length) == Chunk.size
    }

    /// Distinct, in the order of their names; not those that the manifest holds itself.
    static func all(of manifest: Manifest) -> [NeededChunk] {
        let bundled = Set(manifest.bundled.map(\.index))
        var needed: [NeededChunk] = []
        needed.reserveCapacity(manifest.chunks.count)
        for (i, fingerprint) in manifest.chunks.enumerated() where !bundled.contains(i) && !isWellKnown(manifest, i) {
            needed.append(NeededChunk(fingerprint: fingerprint, length: Chunk.length(ofChunk: i, databaseLength: manifest.length)))
        }
        return union([needed])
    }

    static func union(_ lists: [[NeededChunk]]) -> [NeededChunk] {
        var all = lists.flatMap { $0 }
        all.sort()
        var kept = 0
        for i in all.indices where kept == 0 || all[i] != all[kept - 1] {
            all[kept] = all[i]
            kept += 1
        }
        all.removeSubrange(kept...)
        return all
    }
}

/// Which of many chunks are in a bucket, by as few lists as will do. Keys come
/// in order, 1,000 or so a page. Between two wanted ones may lie any number of other
/// databases' chunks: where the next wanted one is beyond the page, the next
/// page begins just before it.
enum ChunkListing {
    /// - Parameter wanted: in the order of their names.
    /// - Returns: those that are not listed, or are empty.
    static func missing(
        _ wanted: [NeededChunk], in store: any ObjectStore, _ progress: @Sendable (UInt64, UInt64) -> Void
    ) throws(StoreError) -> [NeededChunk] {
        var missing: [NeededChunk] = []
        var next = 0
        var after: String?
        while next < wanted.count {
            let name = wanted[next].fingerprint.chunkName
            // All but its last digit sorts before it, and after nothing that is wanted before it.
            let before = String(name.dropLast())
            let from = after.map { $0.utf8.lexicographicallyPrecedes(before.utf8) ? before : $0 } ?? before
            let page = try store.list(.chunks, prefix: "", after: from)
            var entries = page.entries[...]
            while next < wanted.count {
                let name = wanted[next].fingerprint.chunkName
                while let entry = entries.first, entry.key.utf8.lexicographicallyPrecedes(name.utf8) { entries.removeFirst() }
                if entries.isEmpty && page.isTruncated { break }
                if let entry = entries.first, entry.key == name, entry.size > 0 {} else { missing.append(wanted[next]) }
                next += 1
            }
            progress(UInt64(next), UInt64(wanted.count))
            if page.isTruncated {
                guard let last = page.entries.last?.key, from.utf8.lexicographicallyPrecedes(last.utf8) else {
                    throw StoreError(
                        .invalid, store: store.name, operation: "LIST chunks", reason: "the list is not in order, or does not go on")
                }
                after = last
            }
        }
        return missing
    }
}
