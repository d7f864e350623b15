import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Where manifests come from: a local file, what this machine uploaded last, or
/// the stores in order. The first store that has the manifest is believed (`fetchNewest`: the one that has
/// the newest); one that can't be reached, or has something else there, is passed over, and named in the log.
public struct ManifestSource: Sendable {
    public var chunks: ChunkSource
    /// The last manifest that this machine uploaded under a name, if there is one.
    public var tap: @Sendable (_ manifestName: String) -> [UInt8]?

    public init(chunks: ChunkSource, tap: @escaping @Sendable (_ manifestName: String) -> [UInt8]? = { _ in nil }) {
        self.chunks = chunks
        self.tap = tap
    }

    /// Which of the sources an answer is from.
    public enum Origin: Hashable, Sendable {
        case file
        case tap
        /// The store's place in the list.
        case store(Int)
    }

    /// A manifest's bytes as they are stored.
    public struct Stored: Sendable {
        public var body: [UInt8]
        public var origin: Origin
        /// The store's entity tag; empty for others.
        public var tag: String
        public var manifest: StoredManifest
    }

    package enum Answer: Sendable {
        case found(Stored)
        /// The store that answered last time has the same object still.
        case notModified
    }

    /// Fetches a manifest; what it is made of is verified by `resolve`. Waits for the network.
    public func fetch(_ location: ReplicaLocation) throws(ReplicaError) -> Stored {
        switch try fetch(location, unless: nil) {
        case .found(let stored): return stored
        case .notModified: throw .refused("\(location): answered \"not modified\" to a plain GET")
        }
    }

    /// - Parameter known: where the last answer came from, and its tag.
    package func fetch(
        _ location: ReplicaLocation, unless known: (origin: Origin, tag: String)?
    ) throws(ReplicaError) -> Answer {
        switch location {
        case .file(let path):
            let body: [UInt8]?
            do throws(SystemError) {
                body = try Files.read(path, limit: Body.maximumLength)
            } catch {
                throw .system(error)
            }
            guard let body else { throw .refused("\(path): there is no such manifest file") }
            do throws(FormatError) {
                return .found(
                    Stored(body: body, origin: .file, tag: "", manifest: try StoredManifest(decoding: body)))
            } catch {
                throw .format(FormatError("\(path): \(error.what)", error.reason))
            }
        case .manifest(let name):
            return try fetch(named: name, unless: known)
        }
    }

    /// The newest of what this machine uploaded last and all stores have, by the database's ctime. For a restore: a
    /// target that has lagged for days must not be believed because it comes first, or because another doesn't answer just now.
    public func fetchNewest(named name: String) throws(ReplicaError) -> Stored {
        var attempts: [FetchError.Attempt] = []
        var newest = tapped(name, &attempts)
        for i in chunks.stores.indices {
            guard let found = ask(i, name, tag: nil, &attempts), case .found(let stored) = found else { continue }
            guard let known = newest else {
                newest = stored
                continue
            }
            let (one, other) = (stored.manifest, known.manifest)
            // 0: unknown.
            if one.ctime == 0 || other.ctime == 0 || one.ctime == other.ctime && one.ctimeNanoseconds == other.ctimeNanoseconds { continue }
            let isNewer = (one.ctime, one.ctimeNanoseconds) > (other.ctime, other.ctimeNanoseconds)
            if isNewer { newest = stored }
            let older = label((isNewer ? known : stored).origin), used = label((isNewer ? stored : known).origin)
            Report.warning("\(older): manifest \(name): is older than that of \(used), which is used")
        }
        guard let newest else { throw .fetch(FetchError(object: "manifest \(name)", attempts: attempts)) }
        warn(name, attempts)
        return newest
    }

    private func label(_ origin: Origin) -> String {
        switch origin {
        case .file: "file"
        case .tap: Self.tapLabel
        case .store(let i): chunks.stores[i].name
        }
    }

    private static let tapLabel = "local spool"

    /// What this machine uploaded last; nil where that is nothing, or damaged.
    private func tapped(_ name: String, _ attempts: inout [FetchError.Attempt]) -> Stored? {
        guard let body = tap(name) else { return nil }
        do throws(FormatError) {
            return Stored(body: body, origin: .tap, tag: "", manifest: try StoredManifest(decoding: body))
        } catch {
            attempts.append(.init(source: Self.tapLabel, outcome: .damaged, reason: error.description))
            return nil
        }
    }

    /// Of sources that were passed over for another one.
    private func warn(_ name: String, _ attempts: [FetchError.Attempt]) {
        for attempt in attempts {
            Report.warning("\(attempt.source): manifest \(name): \(attempt.reason); another source's is used, which may be older")
        }
    }

    private func fetch(named name: String, unless known: (origin: Origin, tag: String)?) throws(ReplicaError) -> Answer {
        var attempts: [FetchError.Attempt] = []
        if let stored = tapped(name, &attempts) { return .found(stored) }
        for i in chunks.stores.indices {
            if let answer = ask(i, name, tag: known?.origin == .store(i) ? known?.tag : nil, &attempts) {
                // A refresh comes often, and says so once.
                if known == nil || known?.origin == .store(0) { warn(name, attempts) }
                return answer
            }
        }
        throw .fetch(FetchError(object: "manifest \(name)", attempts: attempts))
    }

    /// One store's answer; nil where that is none, and why not.
    private func ask(_ i: Int, _ name: String, tag known: String?, _ attempts: inout [FetchError.Attempt]) -> Answer? {
        let store = chunks.stores[i]
        do throws(StoreError) {
            switch try store.get(GetRequest(.manifests, name, limit: Body.maximumLength, unlessTag: known)) {
            case .notModified where known != nil: return .notModified
            case .found(let body, let tag):
                do throws(FormatError) {
                    return .found(Stored(body: body, origin: .store(i), tag: tag, manifest: try StoredManifest(decoding: body)))
                } catch {
                    attempts.append(.init(source: store.name, outcome: .damaged, reason: error.description))
                }
            case let answer:
                if case .failure(let failure) = ChunkSource.body(of: .success(answer)) {
                    attempts.append(.init(source: store.name, outcome: failure.outcome, reason: failure.reason))
                }
            }
        } catch {
            attempts.append(.init(source: store.name, outcome: .unavailable, reason: error.description))
        }
        return nil
    }

    /// Verifies a manifest, with its base chunk where it has one. Waits for the network.
    /// - Parameter base: the last base chunk, which the next manifest often shares; updated.
    public func resolve(
        _ stored: StoredManifest, base: inout (name: Fingerprint, bytes: [UInt8])?
    ) throws(ReplicaError) -> Manifest {
        if let name = stored.baseChunk, base?.name != name {
            base = (name, try chunks.baseChunk(name, limit: Self.baseLimit(stored), most: stored.maximumBaseLength))
        }
        do throws(FormatError) {
            return try stored.resolved(base: stored.baseChunk == nil ? nil : base?.bytes)
        } catch {
            throw .format(error)
        }
    }

    public func resolve(_ stored: StoredManifest) throws(ReplicaError) -> Manifest {
        var base: (name: Fingerprint, bytes: [UInt8])?
        return try resolve(stored, base: &base)
    }

    /// What a base chunk usually has at most, in bytes: four times the list, and at least what a database of 64 GiB has.
    /// What it has beyond the list is ignored, but the original may go on with the base of a database that has shrunk
    /// to next to nothing: up to the format's limit, it is only looked at more closely.
    private static func baseLimit(_ stored: StoredManifest) -> Int {
        let list = 16 * Chunk.count(forLength: stored.length)
        return min(stored.maximumBaseLength, (16 << 20) + 4 * list)
    }
}
