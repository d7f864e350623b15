import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// Where manifests come from: a local file, what this machine uploaded last, or
/// the stores in order. The first store that has the manifest is believed; one
/// that can't be reached, or has something else there, is passed over.
public struct ManifestSource: Sendable {
    public var chunks: ChunkSource
    /// The last manifest that this machine uploaded under a name, if there is one (SYSTEM 3).
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

    private func fetch(named name: String, unless known: (origin: Origin, tag: String)?) throws(ReplicaError) -> Answer {
        var attempts: [FetchError.Attempt] = []
        if let body = tap(name) {
            do throws(FormatError) {
                return .found(Stored(body: body, origin: .tap, tag: "", manifest: try StoredManifest(decoding: body)))
            } catch {
                attempts.append(.init(source: "local spool", outcome: .damaged, reason: error.description))
            }
        }
        for (i, store) in chunks.stores.enumerated() {
            let tag = known?.origin == .store(i) ? known?.tag : nil
            let get = GetRequest(.manifests, name, limit: Body.maximumLength, unlessTag: tag)
            do throws(StoreError) {
                switch try store.get(get) {
                case .notModified where tag != nil: return .notModified
                case .found(let body, let tag):
                    do throws(FormatError) {
                        let manifest = try StoredManifest(decoding: body)
                        return .found(Stored(body: body, origin: .store(i), tag: tag, manifest: manifest))
                    } catch {
                        attempts.append(.init(source: store.name, outcome: .damaged, reason: error.description))
                        Report.warning("\(store.name): manifest \(name): \(error)")
                    }
                case let answer:
                    if case .failure(let failure) = ChunkSource.body(of: .success(answer)) {
                        attempts.append(.init(source: store.name, outcome: failure.outcome, reason: failure.reason))
                    }
                }
            } catch {
                attempts.append(.init(source: store.name, outcome: .unavailable, reason: error.description))
            }
        }
        throw .fetch(FetchError(object: "manifest \(name)", attempts: attempts))
    }

    /// Verifies a manifest, with its base chunk where it has one. Waits for the network.
    /// - Parameter base: the last base chunk, which the next manifest often shares; updated.
    public func resolve(
        _ stored: StoredManifest, base: inout (name: Fingerprint, bytes: [UInt8])?
    ) throws(ReplicaError) -> Manifest {
        if let name = stored.baseChunk, base?.name != name {
            base = (name, try chunks.baseChunk(name, limit: Self.baseLimit(stored)))
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

    /// The most that a base chunk may unpack to, in bytes. What it has beyond
    /// the list is ignored, but a database may have shrunk since its base was
    /// made: four times the list, and at least what a database of 64 GiB has.
    private static func baseLimit(_ stored: StoredManifest) -> Int {
        let list = 16 * Chunk.count(forLength: stored.length)
        return min(stored.maximumBaseLength, (16 << 20) + 4 * list)
    }
}
