import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore

// After a reboot the spool is empty (S4), and nothing is known of what a target
// has. But its manifest is read in any case (ManifestFence), and names every
// chunk of the database as it was. It is asked for them, rather than believed:
//
//   - LIST tells which of them are there, and how old they are: one request for a thousand;
//   - what no page told of has no known age, and so is touched before a manifest may refer to it
//     (SnapshotUpload): one request each, and no body. Where a bucket holds so much else that LIST would need
//     more than a sixteenth of that number, it isn't used at all.
//
// Either way the store itself has said after the boot that a chunk is there.

/// The chunks that a target has from before this boot.
struct StoredBefore {
    /// A chunk that was believed to be stored isn't, and is not in the spool any more either.
    struct Lost: Error, CustomStringConvertible {
        var chunk: Fingerprint
        var description: String { "chunk \(chunk.chunkName) is missing in the store" }
    }

    /// As `SpoolDatabase.storedChunks`: chunks that are in the manifest and nowhere else are zero here, and the base chunk comes last.
    private(set) var list: [Fingerprint]
    /// As `ChunkAges.hours`.
    private(set) var hours: [UInt16]
    /// The base chunk's content, where there is one.
    private(set) var base: [UInt8]?
    private(set) var requests = 0

    /// Touches for one LIST request, at least, that it saves.
    private static let worthList = 16

    /// nil: the manifest, or its base chunk, can't be read, so that nothing can be told of it.
    ///
    /// - Throws: where the store is away: a later pass asks again, which costs less than sending all of it once more.
    init?(manifest body: [UInt8], on store: any ObjectStore, _ urgency: Urgency, _ logger: Logger) throws(StoreError) {
        do {
            let stored = try StoredManifest(decoding: body)
            if let name = stored.baseChunk {
                let limit = min(stored.maximumBaseLength, (16 << 20) + 64 * Chunk.count(forLength: stored.length))
                requests += 1
                let get = GetRequest(.chunks, name.chunkName, limit: limit + limit / 128 + 1024, urgency: urgency)
                guard case .found(let body, _) = try store.get(get) else { return nil }
                base = try Body.decode(body, limit: limit) { Chunk.fingerprint($0) == name }
            }
            let manifest = try stored.resolved(base: base)
            list = manifest.chunks
            for bundled in manifest.bundled { list[bundled.index] = Chunk.zeroFingerprint }
            if let name = manifest.baseChunk { list.append(name) }
            hours = [UInt16](repeating: 0, count: list.count)
        } catch let error as StoreError where error.kind == .unavailable {
            throw error
        } catch {
            logger.notice(
                "what is stored already can't be told; everything is uploaded once more",
                metadata: ["store": "\(store.name)", "reason": "\(error)"])
            return nil
        }
        do throws(StoreError) { try learnAges(store, urgency) } catch {
            if error.kind == .unavailable { throw error }
            logger.notice(
                "chunks can't be listed; each is touched instead", metadata: ["store": "\(store.name)", "reason": "\(error)"])
        }
    }

    private mutating func learnAges(_ store: any ObjectStore, _ urgency: Urgency) throws(StoreError) {
        var places: [Fingerprint: [Int]] = [:]
        for (i, chunk) in list.enumerated() where chunk != Chunk.zeroFingerprint { places[chunk, default: []].append(i) }
        var pages = places.count / Self.worthList + 1
        if places.isEmpty { return }
        var last: String?
        while pages > 0 {
            let page = try store.list(.chunks, prefix: "", after: last, urgency: urgency)
            requests += 1
            for entry in page.entries {
                guard let chunk = Fingerprint(chunkName: entry.key), let found = places[chunk] else { continue }
                for i in found { hours[i] = ChunkAges.hour(entry.modified) }
            }
            guard page.isTruncated, let key = page.entries.last?.key else { return }
            // Names are hashes: how far the first page reaches tells how many there are.
            if last == nil, let chunk = Fingerprint(chunkName: key), Double(pages) * Double(chunk.primary) < 0x1p64 { return }
            last = key
            pages -= 1
        }
    }
}
