import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// One snapshot's way to one target: chunks, base chunk, manifest, in that order (S5); then what is known of the target
/// is written down. Used under the copier's lock, by one thread and its helpers.
final class SnapshotUpload: @unchecked Sendable {
    private let database: SpoolDatabase
    private let target: ReplicationTarget
    private let replicator: Replicator
    private let fence: ManifestFence
    private let recent: RecentChunks
    private let snapshot: StagedSnapshot
    private let mark: WriterMark
    /// May change while chunks are on their way: somebody began to wait for a flush.
    private let urgency: () -> Urgency
    /// Called about once a second with the numbers of chunks done and to do.
    private let progress: (Int, Int) -> Void
    /// Called with the manifest once it is stored.
    private let didPutManifest: ([UInt8]) -> Void

    /// The manifest is written once more.
    private let isRepeat: Bool
    /// When whoever waits for it gives up; nil: nobody does.
    private let deadline: MonotonicTime?

    /// What the target is known to have: its chunks, and when each was stored or touched.
    private var list: [Fingerprint]
    private var hours: [UInt16]
    /// By fingerprint, for chunks that are elsewhere in the file now. Made with the first need.
    private lazy var known = Dictionary(zip(list + confirmed.left.map(\.chunk), hours + confirmed.left.map(\.hour))) {
        ChunkAges.age($0, at: now) ?? .max < ChunkAges.age($1, at: now) ?? .max ? $0 : $1
    }
    /// Chunks that it has without a manifest of them.
    private let confirmed: ConfirmedChunks
    private let now: UInt16
    /// Of chunks whose place in the list doesn't tell.
    private var newHours: [Int: UInt16] = [:]

    private(set) var sentChunks = 0
    private(set) var sentBytes = 0
    private(set) var requests = 0

    /// A chunk can't be read from the spool.
    struct Gap: Error, CustomStringConvertible {
        var path: String
        var index: Int
        /// The spool was never given its bytes, since all targets of that time had it.
        var isUnspooled: Bool
        var description: String {
            "chunk \(index) of \(path) is \(isUnspooled ? "not in the spool any more" : "damaged in the spool, or was overwritten there")"
        }
    }

    /// Not all of it was sent in time. What was is remembered.
    struct OutOfTime: Error, CustomStringConvertible {
        var done: Int
        var total: Int
        var description: String { "out of time with \(done) of \(total) chunks sent; the rest is sent in the background" }
    }

    init(
        _ snapshot: StagedSnapshot, _ database: SpoolDatabase, _ target: ReplicationTarget, _ replicator: Replicator,
        fence: ManifestFence, recent: RecentChunks, isRepeat: Bool, forgets: Bool, deadline: MonotonicTime?,
        urgency: @escaping () -> Urgency, progress: @escaping (Int, Int) -> Void,
        didPutManifest: @escaping ([UInt8]) -> Void
    ) {
        self.snapshot = snapshot
        self.database = database
        self.target = target
        self.replicator = replicator
        self.fence = fence
        self.recent = recent
        self.isRepeat = isRepeat
        self.deadline = deadline
        self.urgency = urgency
        self.progress = progress
        self.didPutManifest = didPutManifest
        mark = WriterMark(replicator.options.identity, device: snapshot.state.device, inode: snapshot.state.inode)
        // By the spool alone it can't be forgotten: the file may be one that can't be removed.
        list = forgets ? [] : database.storedChunks(target.identifier) ?? []
        hours = ChunkAges(database, target.identifier, list: list).hours
        now = ChunkAges.hour(replicator.options.clock())
        confirmed = ConfirmedChunks(database, target.identifier, chunks: snapshot.chunks.count, hour: now, forgets: forgets)
    }

    /// - Throws: StoreError, Gap, ManifestFence's errors, SystemError.
    func run() throws {
        try fence.prepare(mark, snapshot.state.changed, isRepeat: isRepeat, urgency())
        if list.isEmpty, let body = fence.inherited { try goOn(from: body) }
        try putChunks()
        let base = try putBase()
        try putManifest(base: base?.words, baseName: base?.name)
        do throws(SystemError) {
            // Chunk 0 is in the manifest and nowhere else. The base chunk, at the list's end, is an object as well.
            var stored = snapshot.chunks
            if !stored.isEmpty { stored[0] = Chunk.zeroFingerprint }
            if let base { stored.append(base.name) }
            let ages = stored.indices.map { i in
                newHours[i] ?? (i < list.count && list[i] == stored[i] ? hours[i] : known[stored[i]] ?? 0)
            }
            try database.setStoredChunks(target.identifier, stored)
            try ChunkAges.write(database, target.identifier, list: stored, hours: ages)
            ConfirmedChunks.remove(database, target.identifier)
        } catch {
            // Costs uploads later, and nothing else.
            replicator.noteFailure(database, error)
        }
    }

    /// Nothing is known since this machine started, and a manifest of before stands in the store.
    private func goOn(from body: [UInt8]) throws {
        guard let before = try StoredBefore(manifest: body, on: target.store, urgency(), replicator.logger) else { return }
        list = before.list
        hours = before.hours
        requests += before.requests
        if let base = before.base { try database.spool.write(base, to: basePath) }
    }

    // MARK: - Chunks

    /// Whether the store may be taken to have still what it had in this hour: the patrol keeps everything younger than that.
    private func isAlive(_ hour: UInt16) -> Bool {
        ChunkAges.age(hour, at: now).map { Double($0) * 3600 <= replicator.options.patrolMaxAge } ?? false
    }

    private func putChunks() throws {
        var wanted: [Int] = []
        var places: [Fingerprint: UInt16] = [:]
        // Of unknown age, or too old: nobody kept them alive for a while, or there was another boot.
        var doubtful: [Fingerprint: [Int]] = [:]
        let hourAgo = now &- 1
        // Chunk 0 is sent inside the manifest.
        for index in snapshot.chunks.indices.dropFirst() {
            let fingerprint = snapshot.chunks[index]
            if fingerprint == Chunk.zeroFingerprint { continue }
            if index < list.count && list[index] == fingerprint && isAlive(hours[index]) { continue }
            if let hour = places[fingerprint] {
                newHours[index] = hour
                continue
            }
            let hour = known[fingerprint]
            if let hour, isAlive(hour) {
                newHours[index] = hour
                continue
            }
            if recent.contains(fingerprint) {
                newHours[index] = hourAgo
                continue
            }
            if hour != nil {
                doubtful[fingerprint, default: []].append(index)
                continue
            }
            places[fingerprint] = now
            newHours[index] = now
            wanted.append(index)
        }
        wanted += try touch(doubtful)
        let window = UploadWindow()
        defer {
            let sent = window.drain()
            sentChunks = window.done
            requests += sent.count
            sentBytes += sent.bytes
        }
        // Compression takes most of the time. Where somebody waits, other cores help; in the background, the budget is
        // spent long before one core is.
        let helpers = urgency() == .flush && wanted.count >= Self.worthHelp ? ParallelLoop.mostHelpers : 0
        let teller = Teller(wanted.count > replicator.options.uploadWindow ? wanted.count : nil, progress)
        ParallelLoop.run(wanted.count, helpers: helpers) { [self, wanted] turn in
            if window.failure != nil { return false }
            if let deadline, MonotonicTime.now >= deadline {
                window.note(OutOfTime(done: window.done, total: wanted.count))
                return false
            }
            let index = wanted[turn]
            do throws(SystemError) {
                guard let bytes = try snapshot.chunk(index) else {
                    window.note(Gap(path: database.path, index: index, isUnspooled: !snapshot.isSpooled(index)))
                    return false
                }
                put(bytes, snapshot.chunks[index], window)
                teller.tell(window.done)
                saveConfirmed()
                return true
            } catch {
                window.note(error)
                return false
            }
        }
        _ = window.drain { teller.tell(window.done) }
        guard let failure = window.failure else { return }
        saveConfirmed(isLast: true)
        throw failure
    }

    private func saveConfirmed(isLast: Bool = false) {
        // Without, they are sent again, and that is all.
        do throws(SystemError) { try confirmed.save(isLast: isLast) } catch { replicator.noteFailure(database, error) }
    }

    /// Touches what may be gone, so that no manifest refers to it unseen. Answers which chunks have to be sent.
    /// - Parameter doubtful: where each stands in the file.
    private func touch(_ doubtful: [Fingerprint: [Int]]) throws -> [Int] {
        var missing: [Int] = []
        var rest = Array(doubtful.keys)
        while !rest.isEmpty {
            let batch = Array(rest.suffix(Patrol.slice))
            rest.removeLast(batch.count)
            requests += batch.count
            for (chunk, answer) in zip(batch, ChunkTouches.run(batch, target.store, urgency())) {
                let indexes = doubtful[chunk] ?? []
                if try answer.get() {
                    recent.insert(chunk)
                    confirmed.note(chunk)
                } else if let index = indexes.first(where: snapshot.isSpooled) {
                    missing.append(index)
                } else {
                    throw StoredBefore.Lost(chunk: chunk)
                }
                for index in indexes { newHours[index] = now }
            }
        }
        return missing
    }

    /// Chunks from which on a flush takes more than one thread.
    private static let worthHelp = 32

    /// Tells how far a long upload is, about once a second.
    private final class Teller: @unchecked Sendable {
        private let lock = Lock()
        private let total: Int?
        private let progress: (Int, Int) -> Void
        private var told = MonotonicTime(nanoseconds: 0)

        init(_ total: Int?, _ progress: @escaping (Int, Int) -> Void) {
            self.total = total
            self.progress = progress
        }
        func tell(_ done: Int) {
            guard let total else { return }
            lock.withLock {
                let now = MonotonicTime.now
                if now.seconds(since: told) < 1 { return }
                told = now
                progress(done, total)
            }
        }
    }

    private func put(_ bytes: [UInt8], _ fingerprint: Fingerprint, _ window: UploadWindow) {
        let body = bytes.withUnsafeBytes { Body.compress($0) }
        let keep = replicator.didStoreChunk
        let urgency = urgency()
        let options = replicator.options
        window.enter(bytes: body.count, limit: urgency == .background ? options.backgroundWindow : options.uploadWindow)
        target.store.put(PutRequest(.chunks, fingerprint.chunkName, body, urgency: urgency)) { [recent, confirmed] result in
            switch result {
            case .success:
                recent.insert(fingerprint)
                confirmed.note(fingerprint)
                keep?(fingerprint, bytes)
                window.leave(nil)
            case .failure(let error):
                window.leave(error)
            }
        }
    }

    // MARK: - Base chunk (FORMAT 6.2)

    private var basePath: String { "\(database.directory)/basechunk.\(target.identifier)" }

    private func putBase() throws -> (words: [UInt64], name: Fingerprint)? {
        guard snapshot.chunks.count * 2 >= BaseChunk.minimumWords else { return nil }
        // One that can't be read, or isn't one, is made anew.
        if let bytes = (try? Files.read(basePath, limit: 1 << 31)) ?? nil, let words = try? BaseChunk.decode(bytes),
            BaseChunk.shouldKeep(base: words, for: snapshot.chunks, random: Double.random(in: 0..<1))
        {
            let name = bytes.withUnsafeBytes(Chunk.fingerprint)
            // It stands at the list's end, if anywhere.
            if list.last == name, let hour = hours.last {
                let isThere = try isAlive(hour) || target.store.touch(.chunks, name.chunkName, urgency: urgency())
                if isThere {
                    newHours[snapshot.chunks.count] = isAlive(hour) ? hour : now
                    return (words, name)
                }
            }
            if recent.contains(name) {
                newHours[snapshot.chunks.count] = now &- 1
                return (words, name)
            }
        }
        let bytes = BaseChunk.encode(snapshot.chunks)
        let name = bytes.withUnsafeBytes(Chunk.fingerprint)
        let body = bytes.withUnsafeBytes { Body.compress($0) }
        try target.store.put(PutRequest(.chunks, name.chunkName, body, urgency: urgency()))
        recent.insert(name)
        replicator.didStoreChunk?(name, bytes)
        newHours[snapshot.chunks.count] = now
        requests += 1
        sentBytes += body.count
        try database.spool.write(bytes, to: basePath)
        return (try BaseChunk.decode(bytes), name)
    }

    // MARK: - Manifest

    private func putManifest(base: [UInt64]?, baseName: Fingerprint?) throws {
        var bundled: [BundledChunk] = []
        if let first = snapshot.chunks.first {
            guard let bytes = try snapshot.chunk(0) else {
                throw Gap(path: database.path, index: 0, isUnspooled: !snapshot.isSpooled(0))
            }
            bundled = [BundledChunk(index: 0, offset: 0, fingerprint: first, data: bytes)]
        }
        let manifest = Manifest(
            headerFingerprint: snapshot.state.header, versionID: snapshot.state.versionID, length: snapshot.state.length,
            ctime: snapshot.state.changed.seconds, ctimeNanoseconds: Int32(snapshot.state.changed.nanoseconds),
            generatedBy: Array(mark.generatedBy(replicator.options.generatedBy).utf8), chunks: snapshot.chunks,
            bundled: bundled, baseChunk: baseName)
        let body = Body.compressManifest(manifest.encoded(base: base))
        try fence.put(body, mark, snapshot.state.changed, urgency())
        requests += 1
        sentBytes += body.count
        didPutManifest(body)
    }
}
