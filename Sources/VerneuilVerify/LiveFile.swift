import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Compares a stored snapshot with the database file that it is made from,
/// without a lock: a writer must not wait for a verification. So a difference
/// counts only where the file has provably stood still from before the first byte was
/// read to after the last.
enum LiveFile {
    private static let attempts = 3
    /// Changes within one tick of the kernel's clock may leave the ctime as it was; in nanoseconds.
    private static let tick: Int64 = 20_000_000

    private enum Comparison {
        case same
        case different(Verification.Finding)
        case moving(String)
    }

    static func compare(_ path: String, with manifest: Manifest, _ verification: inout Verification) {
        var reason = ""
        for _ in 0..<attempts {
            do throws(SystemError) {
                switch try compareOnce(path, manifest) {
                case .same: return
                case .different(let finding): return verification.add(finding)
                case .moving(let why): reason = why
                }
            } catch {
                return verification.add(.init(.unknown, path, expected: "the live database", found: "\(error)"))
            }
        }
        verification.add(.init(.unknown, path, expected: "a database that stands still while it is compared", found: reason))
    }

    private static func compareOnce(_ path: String, _ manifest: Manifest) throws(SystemError) -> Comparison {
        let file = try Descriptor(path, O_RDONLY)
        var before = try file.status()
        while isFresh(before) {
            Threads.pause(microseconds: useconds_t(tick / 1000))
            before = try file.status()
        }
        let length = UInt64(clamping: before.size)
        var differing = 0
        var first: (index: Int, found: Fingerprint)?
        for i in 0..<Chunk.count(forLength: length) {
            let bytes = try file.read(
                count: Chunk.length(ofChunk: i, databaseLength: length), at: Int64(i) * Int64(Chunk.size))
            let found = FingerprintKey.chunk.fingerprint(bytes)
            if i < manifest.chunks.count, found == manifest.chunks[i] { continue }
            differing += 1
            if first == nil { first = (i, found) }
        }
        if differing == 0, length == manifest.length { return .same }

        guard try file.status() == before, try Files.status(path).map({ $0.inode == before.inode }) ?? false else {
            return .moving("it was written to meanwhile")
        }
        let journal = "\(path)-journal"
        if let status = try Files.status(journal), status.size > 0,
            let byte = try Descriptor(journal, O_RDONLY).read(count: 1, at: 0).first, byte != 0
        {
            return .moving("a transaction is under way, or was cut off: \(journal) is not empty")
        }
        let stored = "the snapshot of \(manifest.ctime).\(manifest.ctimeNanoseconds), of \(manifest.length) bytes"
        let place = first.map { "; the first is chunk \($0.index), \($0.found.chunkName)" } ?? ""
        return .different(
            .init(
                .bad, path, expected: stored,
                found: "a file of \(length) bytes, last changed \(before.changed.seconds).\(before.changed.nanoseconds): "
                    + "\(differing) chunks differ\(place) (where commits are still spooled, flush them first)"))
    }

    private static func isFresh(_ status: FileStatus) -> Bool {
        status.changed.isYounger(than: tick, at: wallClock())
    }
}
