import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Brings snapshots of one database to one target. One `copy` at a time.
final class TargetCopier: @unchecked Sendable {
    private let database: SpoolDatabase
    private let target: ReplicationTarget
    private let manifestName: String
    private let replicator: Replicator
    private let recent = RecentChunks()
    private var isPrepared = false

    private let lock = Lock()
    private var storedPoint: SpoolPoint?
    /// The newest snapshot that this process stored here.
    var stored: SpoolPoint? { lock.withLock { storedPoint } }

    /// Marks failures that only a full snapshot mends.
    static let damaged = "not in the spool, or damaged there"

    init(_ database: SpoolDatabase, _ target: ReplicationTarget, _ manifestName: String, _ replicator: Replicator) {
        self.database = database
        self.target = target
        self.manifestName = manifestName
        self.replicator = replicator
    }

    /// nil: chunks and manifest are stored. Else why not.
    func copy(_ snapshot: StagedSnapshot, urgency: Urgency) -> String? {
        let began = MonotonicTime.now
        var sent = Sent()
        do {
            if !isPrepared {
                try target.store.prepare()
                isPrepared = true
            }
            let list = database.storedChunks(target.identifier) ?? []
            try putChunks(snapshot, list, urgency, &sent)
            let base = try putBase(snapshot, Set(list), urgency, &sent)
            try putManifest(snapshot, base: base?.words, baseName: base?.name, urgency, &sent)
            do throws(SystemError) {
                // Chunk 0 is in the manifest and nowhere else. The base chunk, at the list's end, is an object as well.
                var list = snapshot.chunks
                if !list.isEmpty { list[0] = Chunk.zeroFingerprint }
                if let base { list.append(base.name) }
                try database.setStoredChunks(target.identifier, list)
            } catch {
                // Costs uploads later, and nothing else.
                replicator.noteFailure(database, error)
            }
            lock.withLock { storedPoint = snapshot.point }
            replicator.logger.info(
                "stored a snapshot",
                metadata: [
                    "database": "\(database.path)", "store": "\(target.store.name)", "snapshot": "\(snapshot.point)",
                    "chunks": "\(sent.chunks)", "requests": "\(sent.requests)", "bytes": "\(sent.bytes)",
                    "milliseconds": "\(Int(MonotonicTime.now.seconds(since: began) * 1000))",
                ])
            return nil
        } catch let error as StoreError {
            if error.kind == .noSuchSpace { isPrepared = false }
            return "\(error)"
        } catch {
            return "\(error)"
        }
    }

    /// What a pass cost.
    private struct Sent {
        var chunks = 0
        var requests = 0
        /// Of bodies, compressed.
        var bytes = 0
    }

    private struct Missing: Error, CustomStringConvertible {
        var database: String
        var index: Int
        var description: String { "chunk \(index) of \(database) is \(TargetCopier.damaged)" }
    }

    // MARK: - Chunks

    private func putChunks(_ snapshot: StagedSnapshot, _ list: [Fingerprint], _ urgency: Urgency, _ sent: inout Sent) throws {
        let stored = Set(list)
        var seen: Set<Fingerprint> = [Chunk.zeroFingerprint]
        // Chunk 0 is sent inside the manifest.
        let wanted = snapshot.chunks.indices.dropFirst().filter { index in
            let fingerprint = snapshot.chunks[index]
            if index < list.count && list[index] == fingerprint { return false }
            return !stored.contains(fingerprint) && !recent.contains(fingerprint) && seen.insert(fingerprint).inserted
        }
        let window = UploadWindow(limit: replicator.options.uploadWindow)
        // Compression takes most of the time. Where somebody waits, other cores help; in the background, the budget is
        // spent long before one core is.
        let helpers = urgency == .flush && wanted.count >= Self.worthHelp ? ParallelLoop.mostHelpers : 0
        ParallelLoop.run(wanted.count, helpers: helpers) { [self] turn in
            if window.failure != nil { return false }
            let index = wanted[turn]
            do throws(SystemError) {
                guard let bytes = try snapshot.chunk(index) else {
                    window.note(Missing(database: database.path, index: index))
                    return false
                }
                put(bytes, snapshot.chunks[index], window, urgency)
                return true
            } catch {
                window.note(error)
                return false
            }
        }
        let all = window.drain()
        sent.chunks += all.count
        sent.requests += all.count
        sent.bytes += all.bytes
        if let failure = window.failure { throw failure }
    }

    /// Chunks from which on a flush takes more than one thread.
    private static let worthHelp = 32

    private func put(_ bytes: [UInt8], _ fingerprint: Fingerprint, _ window: UploadWindow, _ urgency: Urgency) {
        let body = bytes.withUnsafeBytes { Body.compress($0) }
        let keep = replicator.didStoreChunk
        window.enter(bytes: body.count)
        target.store.put(PutRequest(.chunks, fingerprint.chunkName, body, urgency: urgency)) { [recent] result in
            switch result {
            case .success:
                recent.insert(fingerprint)
                keep?(fingerprint, bytes)
                window.leave(nil)
            case .failure(let error):
                window.leave(error)
            }
        }
    }

    // MARK: - Base chunk (FORMAT 6.2)

    private func putBase(
        _ snapshot: StagedSnapshot, _ stored: Set<Fingerprint>, _ urgency: Urgency, _ sent: inout Sent
    ) throws -> (words: [UInt64], name: Fingerprint)? {
        guard snapshot.chunks.count * 2 >= BaseChunk.minimumWords else { return nil }
        let path = "\(database.directory)/basechunk.\(target.identifier)"
        if let bytes = try Files.read(path, limit: 1 << 31), let words = try? BaseChunk.decode(bytes),
            BaseChunk.shouldKeep(base: words, for: snapshot.chunks, random: Double.random(in: 0..<1))
        {
            let name = bytes.withUnsafeBytes(Chunk.fingerprint)
            if stored.contains(name) || recent.contains(name) { return (words, name) }
        }
        let bytes = BaseChunk.encode(snapshot.chunks)
        let name = bytes.withUnsafeBytes(Chunk.fingerprint)
        let body = bytes.withUnsafeBytes { Body.compress($0) }
        try target.store.put(PutRequest(.chunks, name.chunkName, body, urgency: urgency))
        recent.insert(name)
        sent.requests += 1
        sent.bytes += body.count
        try Files.writeAtomically(bytes, to: path, isOnlyWriter: true)
        return (try BaseChunk.decode(bytes), name)
    }

    // MARK: - Manifest

    private func putManifest(
        _ snapshot: StagedSnapshot, base: [UInt64]?, baseName: Fingerprint?, _ urgency: Urgency,
        _ sent: inout Sent
    ) throws {
        var bundled: [BundledChunk] = []
        if let first = snapshot.chunks.first {
            guard let bytes = try snapshot.chunk(0) else { throw Missing(database: database.path, index: 0) }
            bundled = [BundledChunk(index: 0, offset: 0, fingerprint: first, data: bytes)]
        }
        let manifest = Manifest(
            headerFingerprint: snapshot.state.header, versionID: snapshot.state.versionID, length: snapshot.state.length,
            ctime: snapshot.state.changed.seconds, ctimeNanoseconds: Int32(snapshot.state.changed.nanoseconds),
            generatedBy: Array(replicator.options.generatedBy.utf8), chunks: snapshot.chunks, bundled: bundled,
            baseChunk: baseName)
        let body = Body.compressManifest(manifest.encoded(base: base))
        try target.store.put(PutRequest(.manifests, manifestName, body, urgency: urgency))
        sent.requests += 1
        sent.bytes += body.count
        do throws(SystemError) {
            try database.spool.setTap(manifestName, body)
        } catch {
            replicator.noteFailure(database, error)
        }
    }
}

/// Chunks that were stored within the last hour, whoever's they are. Bounded.
final class RecentChunks: @unchecked Sendable {
    private let lock = Lock()
    private var young: Set<Fingerprint> = []
    private var old: Set<Fingerprint> = []
    private var turned = MonotonicTime.now
    /// Entries in each of the two halves.
    static let capacity = 32_768
    /// Two halves of half an hour.
    static let seconds = 1800.0

    func contains(_ fingerprint: Fingerprint) -> Bool {
        lock.withLock {
            turn()
            return young.contains(fingerprint) || old.contains(fingerprint)
        }
    }
    func insert(_ fingerprint: Fingerprint) {
        lock.withLock {
            turn()
            young.insert(fingerprint)
        }
    }
    private func turn() {
        let age = MonotonicTime.now.seconds(since: turned)
        if young.count < Self.capacity && age < Self.seconds { return }
        old = age < 2 * Self.seconds ? young : []
        young = []
        turned = MonotonicTime.now
    }
}

/// How many PUTs are in flight, how many there were, and the first failure.
private final class UploadWindow: @unchecked Sendable {
    private let lock = Lock()
    private let limit: Int
    private var inFlight = 0
    private var count = 0
    private var bytes = 0
    private var first: (any Error)?

    init(limit: Int) { self.limit = max(1, limit) }

    var failure: (any Error)? { lock.withLock { first } }

    /// Something else than a PUT has failed.
    func note(_ failure: any Error) { lock.withLock { if first == nil { first = failure } } }

    func enter(bytes: Int) {
        lock.withLock {
            while inFlight >= limit { lock.wait() }
            inFlight += 1
            count += 1
            self.bytes += bytes
        }
    }
    func leave(_ failure: (any Error)?) {
        lock.withLock {
            inFlight -= 1
            if first == nil { first = failure }
            lock.broadcast()
        }
    }
    /// Waits for all, and answers with what was sent.
    func drain() -> (count: Int, bytes: Int) {
        lock.withLock {
            while inFlight > 0 { lock.wait() }
            return (count, bytes)
        }
    }
}
