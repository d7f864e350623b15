import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A directory of chunk files that processes share (docs/REPLICAS.md, Caches): a `local` cache,
/// read and written, or a `read_only` one.
///
/// On disk: `DIRECTORY[/BOOT-ID]/SHARD/CHUNK-NAME`, each file a chunk's bytes,
/// not compressed; SHARD is the primary fingerprint modulo `num_shards`, in hex.
///
/// What it promises, and why:
/// - *Nothing is used unverified.* All 128 bits of the fingerprint are checked
///   in memory, after reading, so whatever happens to a file (a torn write, a
///   crash, another program) makes it a miss, never wrong data.
/// - *A name appears with its content*: files are written under `.tmp.*` and
///   renamed. Nothing is synced: after a crash a file may be torn, which is a miss.
/// - *No locks.* Every operation is one that the kernel makes atomic (rename,
///   unlink, utimensat), and each is right whatever others do between them. Two
///   processes that evict at once choose the same victims.
/// - *Bounded.* Each shard holds capacity / num_shards files; where that is less than one, all shards together hold
///   `capacity`, as one queue. Whoever adds a
///   file looks, with probability p, whether the shard has grown beyond that,
///   and evicts. However many processes add files, the overshoot is
///   geometric with mean 1/p; p is chosen so that twice the capacity is reached
///   with a probability of 1e-7.
/// - *Second chance* (CLOCK): a file's mtime is its place in the queue, and an
///   atime later than that says that it was read since. The oldest goes first;
///   one that was read is put to the end of the queue instead.
/// - *Deletable at any time*, in part or whole: directories are made again.
///
/// Safe from any thread and any number of processes, and after fork(2).
public final class CacheDirectory: Sendable {
    /// Where the shards are.
    public let path: String
    public let isReadOnly: Bool
    private let shards: UInt64
    /// Files per queue.
    private let capacity: Int
    /// Whether a queue is one shard, or all of them.
    private let hasQueuePerShard: Bool
    /// What to clean of earlier boots' directories; nil where none are made.
    private let parent: String?

    /// A file under a temporary name for longer than this is a dead writer's.
    private static let temporaryLifetime: Int64 = 600
    /// An earlier boot's directory goes once nothing has changed in it for so long.
    private static let bootLifetime: Int64 = 86_400

    /// A cache to read and write.
    /// - Parameters:
    ///   - shards: subdirectories; at least 1. All who share a cache must agree on it.
    ///   - capacity: about how many files to keep; at least one is.
    ///   - appendInstanceID: whether to use a subdirectory named by this boot.
    public init(local directory: String, shards: Int, capacity: Int, appendInstanceID: Bool = true) {
        path = appendInstanceID ? "\(directory)/\(Host.bootID())" : directory
        parent = appendInstanceID ? directory : nil
        isReadOnly = false
        let (shards, capacity) = (max(1, shards), max(1, capacity))
        self.shards = UInt64(shards)
        hasQueuePerShard = capacity >= shards
        self.capacity = hasQueuePerShard ? (capacity + shards - 1) / shards : capacity
    }

    /// A cache that somebody else fills.
    public init(readOnly directory: String, shards: Int, appendInstanceID: Bool = true) {
        path = appendInstanceID ? "\(directory)/\(Host.bootID())" : directory
        parent = nil
        isReadOnly = true
        self.shards = UInt64(max(1, shards))
        hasQueuePerShard = true
        capacity = 0
    }

    // MARK: Reading

    /// What a cache has to say about a chunk.
    package enum Answer {
        case found([UInt8])
        case missing
        /// It had other bytes; they have been removed where that is ours to do.
        case damaged(String)
    }

    /// The chunk's bytes, verified; nil where it isn't here.
    /// - Parameter length: what the manifest implies; nil for a base chunk, of at most `limit` bytes.
    public func read(_ fingerprint: Fingerprint, length: Int?, limit: Int = Chunk.size) -> [UInt8]? {
        if case .found(let bytes) = look(for: fingerprint, length: length, limit: limit) { return bytes }
        return nil
    }

    package func look(for fingerprint: Fingerprint, length: Int?, limit: Int = Chunk.size) -> Answer {
        let file = file(of: fingerprint)
        // Whatever lies there, opening it must not wait, nor lead elsewhere.
        let fd = vrn_open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)
        guard fd >= 0 else { return .missing }
        let opened = Descriptor(owning: fd, path: file)
        var st = stat()
        guard vrn_fstat(fd, &st) == 0 else { return .missing }
        let size = Int(st.st_size)
        var flaw = "it is not a regular file"
        if UInt32(st.st_mode) & UInt32(S_IFMT) == UInt32(S_IFREG) {
            if size == length ?? size, size <= limit {
                do throws(SystemError) {
                    let bytes = try opened.read(count: size, at: 0)
                    let found = FingerprintKey.chunk.fingerprint(bytes)
                    if found == fingerprint {
                        if !isReadOnly { markRead(file, st) }
                        return .found(bytes)
                    }
                    flaw = "expected fingerprint \(fingerprint.chunkName), found \(found.chunkName)"
                } catch {
                    return .damaged(error.description)
                }
            } else {
                flaw = "expected \(length ?? limit) bytes, found \(size)"
            }
        }
        // Another process may have put a good file there since: then it is lost, and fetched again.
        if !isReadOnly { _ = vrn_unlink(file) }
        return .damaged(flaw)
    }

    /// For the second chance. The kernel does the same by itself where the
    /// file system is mounted with relatime.
    private func markRead(_ file: String, _ st: stat) {
        let (atime, mtime) = Self.times(st)
        if atime <= mtime { _ = vrn_set_times(AT_FDCWD, file, wallClock().nanosecondsSince1970, -1) }
    }

    // MARK: Writing

    /// Makes a chunk available to everyone who shares this cache. Failing is
    /// fine (a full disk, no permission): it is a cache. Does nothing in one that is only read.
    /// - Parameter bytes: must be what the fingerprint says.
    public func publish(_ fingerprint: Fingerprint, _ bytes: [UInt8]) {
        guard !isReadOnly else { return }
        let directory = directory(of: fingerprint)
        let file = "\(directory)/\(fingerprint.chunkName)"
        if vrn_access(file, F_OK) == 0 { return }
        do throws(SystemError) {
            do throws(SystemError) {
                try Files.writeAtomically(bytes, to: file)
            } catch {
                guard error.code == ENOENT else { throw error }
                // The first chunk of this shard, or somebody deleted the directory.
                if let parent { Self.removeOldBoots(in: parent, except: Files.lastComponent(of: path)) }
                try Files.makeDirectories(directory)
                try Files.writeAtomically(bytes, to: file)
            }
        } catch {
            return
        }
        if Double.random(in: 0..<1) < 16 / Double(capacity) { trim(hasQueuePerShard ? [directory] : allShards()) }
    }

    /// Directories of those that are there.
    private func allShards() -> [String] {
        ((try? Files.list(path)) ?? []).filter { UInt64($0, radix: 16).map { $0 < shards } ?? false }.map { "\(path)/\($0)" }
    }

    /// Evicts what these shards have in excess together, in about the order of last use.
    private func trim(_ directories: [String]) {
        let now = wallClock()
        var files: [(path: String, mtime: Int64, wasRead: Bool)] = []
        for directory in directories {
            for name in (try? Files.list(directory)) ?? [] {
                let path = "\(directory)/\(name)"
                var st = stat()
                guard vrn_lstat(path, &st) == 0 else { continue }
                let (atime, mtime) = Self.times(st)
                if name.hasPrefix(".tmp.") {
                    if mtime / 1_000_000_000 < now.seconds - Self.temporaryLifetime { _ = vrn_unlink(path) }
                } else {
                    files.append((path, mtime, atime > mtime))
                }
            }
        }
        var excess = files.count - capacity
        guard excess > 0 else { return }
        files.sort { $0.mtime < $1.mtime }
        let end = now.nanosecondsSince1970
        for file in files where excess > 0 {
            if file.wasRead {
                _ = vrn_set_times(AT_FDCWD, file.path, end, end)
            } else {
                _ = vrn_unlink(file.path)
                excess -= 1
            }
        }
        // All of them were read since: the queue has come round, the oldest go.
        for file in files where excess > 0 && file.wasRead {
            _ = vrn_unlink(file.path)
            excess -= 1
        }
    }

    /// A boot's directory is of no use to the next one; without this, every
    /// reboot would leave a full cache behind.
    private static func removeOldBoots(in parent: String, except current: String) {
        let now = wallClock().seconds
        for name in (try? Files.list(parent)) ?? [] where name != current && isBootID(name) {
            let directory = "\(parent)/\(name)"
            let inside = ((try? Files.list(directory)) ?? []).map { "\(directory)/\($0)" }
            let youngest = (inside + [directory]).compactMap { path in
                ((try? Files.status(path, followLinks: false)) ?? nil)?.modified.seconds
            }.max()
            if let youngest, youngest < now - bootLifetime { try? Files.removeTree(directory) }
        }
    }

    private static func isBootID(_ name: String) -> Bool {
        let groups = name.split(separator: "-", omittingEmptySubsequences: false)
        return groups.map(\.count) == [8, 4, 4, 4, 12] && groups.allSatisfy { $0.allSatisfy(\.isHexDigit) }
    }

    // MARK: Names and times

    private func directory(of fingerprint: Fingerprint) -> String {
        "\(path)/\(String(fingerprint.primary % shards, radix: 16))"
    }
    private func file(of fingerprint: Fingerprint) -> String {
        "\(directory(of: fingerprint))/\(fingerprint.chunkName)"
    }
    /// In nanoseconds since 1970.
    private static func times(_ st: stat) -> (atime: Int64, mtime: Int64) {
        withUnsafePointer(to: st) {
            (FileTime(vrn_stat_atime($0)).nanosecondsSince1970, FileTime(vrn_stat_mtime($0)).nanosecondsSince1970)
        }
    }
}
