import CVerneuil
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

/// Finds out whether what one store holds is good. Only reads.
///
/// Three outcomes. *Bad* is said of what the store itself has answered: an object is
/// not there, or is not what its name or the manifest says. *Unknown* is whatever
/// keeps from telling (no answer, no permission, a file that changes meanwhile).
/// *Good* is the rest. Caches are not looked at.
///
/// **Nothing is invented.** Databases are replicated while this runs: before a
/// database is called bad, its manifest is fetched again, and where that has changed
/// everything begins anew. A chunk that a list lacks is asked for by name.
///
/// **Cost.** One GET for each manifest, one for its base chunk. Chunks by LIST, 1,000
/// keys a request, passing over what lies between the wanted ones: never more requests
/// than wanted chunks, nor than pages of the bucket. Deep: one GET for each distinct chunk.
/// Memory: 16 bytes for each chunk of the databases that are verified at a time.
///
/// Waits for the network on the calling thread. Safe from any thread.
public final class Verifier: Sendable {
    public let store: any ObjectStore
    private let source: ChunkSource
    private let manifests: ManifestSource

    /// Times that a database is verified anew because it was replicated meanwhile.
    private static let attempts = 5
    /// Chunks that a list lacks and that are asked for by name.
    private static let confirmations = 100

    /// - Parameter parallelism: GETs in flight at most.
    public init(_ store: any ObjectStore, parallelism: Int = 64) {
        self.store = store
        source = ChunkSource(caches: [], stores: [store], parallelism: parallelism)
        manifests = ManifestSource(chunks: source)
    }

    // MARK: One database

    /// Verifies the database whose manifest the store has under this name.
    public func verify(name: String, options: VerificationOptions = VerificationOptions()) -> Verification {
        var last: (body: [UInt8], verification: Verification)?
        for attempt in 1...Self.attempts {
            let body: [UInt8]
            var verification = Verification(name: name, store: store.name)
            switch manifest(name) {
            case .success(let found): body = found
            case .failure(let failure):
                verification.add(failure.finding)
                return verification
            }
            // What was wrong is still wrong with the same manifest.
            if let last, last.body == body { return last.verification }
            verification = verify(body, verification, options)
            if verification.outcome != .bad { return verification }
            last = (body, verification)
            // A copier that uploads to several stores may be between two of them.
            if attempt == 1, options.lastUploaded(name) != nil { Threads.pause(microseconds: 1_500_000) }
        }
        var verification = Verification(name: name, store: store.name)
        verification.add(
            .init(
                .unknown, "manifest \(name)", expected: "to verify one snapshot before the next is stored",
                found: "\(Self.attempts) snapshots in a row that were replaced meanwhile; try again when there are fewer commits"))
        return verification
    }

    /// Verifies the database that a manifest's bytes describe, which may be kept elsewhere.
    /// - Parameter name: for messages.
    public func verify(
        manifest body: [UInt8], named name: String, options: VerificationOptions = VerificationOptions()
    ) -> Verification {
        verify(body, Verification(name: name, store: store.name), options)
    }

    private func verify(_ body: [UInt8], _ start: Verification, _ options: VerificationOptions) -> Verification {
        var verification = start
        let manifest: Manifest
        switch resolve(body, name: start.name) {
        case .success(let found): manifest = found
        case .failure(let failure):
            verification.add(failure.finding)
            return verification
        }
        checkAge(manifest, &verification, options)
        let needed = NeededChunk.all(of: manifest)
        verification.length = manifest.length
        verification.ctime = manifest.ctime
        verification.objects = needed.count
        checkHeader(manifest, needed, &verification, options)
        for finding in options.deep ? fetch(needed, options.progress) : look(for: needed, options.progress) {
            verification.add(finding)
        }
        if let path = options.against { LiveFile.compare(path, with: manifest, &verification) }
        return verification
    }

    // MARK: Manifests

    struct Failure: Error {
        var finding: Verification.Finding
    }

    /// The stored manifest's bytes.
    private func manifest(_ name: String) -> Result<[UInt8], Failure> {
        let object = "manifest \(name)"
        do throws(StoreError) {
            switch try store.get(GetRequest(.manifests, name, limit: Body.maximumLength)) {
            case .found(let body, _): return .success(body)
            case .missing, .notModified:
                return .failure(Failure(finding: .init(.bad, object, expected: "a manifest", found: "no such object")))
            }
        } catch {
            return .failure(
                Failure(
                    finding: .init(
                        error.kind == .tooLarge ? .bad : .unknown, object, expected: "a manifest", found: "\(error)")))
        }
    }

    private func resolve(_ body: [UInt8], name: String) -> Result<Manifest, Failure> {
        let object = "manifest \(name)"
        let stored: StoredManifest
        do throws(FormatError) { stored = try StoredManifest(decoding: body) } catch {
            return .failure(
                Failure(finding: .init(.bad, object, expected: "a manifest", found: "\(body.count) bytes; \(error)")))
        }
        do throws(ReplicaError) {
            return .success(try manifests.resolve(stored))
        } catch {
            switch error {
            case .fetch(let fetch):
                return .failure(
                    Failure(finding: Self.finding(fetch, expected: "the base chunk that the manifest \(name) is stored with")))
            case .format(let format):
                return .failure(
                    Failure(
                        finding: .init(
                            .bad, format.what == "manifest" ? object : format.what,
                            expected: "a list of chunks with the fingerprint \(stored.contentsFingerprint.chunkName)",
                            found: format.reason)))
            case .system, .refused:
                return .failure(Failure(finding: .init(.unknown, object, expected: "a manifest", found: "\(error)")))
            }
        }
    }

    /// A store may have kept, or got back, an older manifest: good in itself, and not the newest.
    private func checkAge(_ manifest: Manifest, _ verification: inout Verification, _ options: VerificationOptions) {
        guard let bytes = options.lastUploaded(verification.name),
            let newest = try? StoredManifest(decoding: bytes), newest.ctime != 0, manifest.ctime != 0,
            (manifest.ctime, manifest.ctimeNanoseconds) < (newest.ctime, newest.ctimeNanoseconds)
        else { return }
        verification.add(
            .init(
                .bad, "manifest \(verification.name)",
                expected: "the snapshot of \(newest.ctime).\(newest.ctimeNanoseconds), which this machine has uploaded",
                found: "an older one, of \(manifest.ctime).\(manifest.ctimeNanoseconds)"))
    }

    private func checkHeader(
        _ manifest: Manifest, _ needed: [NeededChunk], _ verification: inout Verification, _ options: VerificationOptions
    ) {
        let first: [UInt8]
        if manifest.chunks.isEmpty {
            first = []
        } else if let bundled = manifest.bundled.first(where: { $0.index == 0 }) {
            first = bundled.data
        } else if NeededChunk.isWellKnown(manifest, 0) {
            first = [UInt8](repeating: 0, count: 100)
        } else if options.deep {
            // Fetched once more below, where what is wrong with it is said.
            guard let bytes = try? source.chunk(
                manifest.chunks[0], length: Chunk.length(ofChunk: 0, databaseLength: manifest.length))
            else { return }
            first = bytes
        } else {
            return
        }
        let found = FingerprintKey.header.fingerprint(Array(first.prefix(100)))
        guard found != manifest.headerFingerprint else { return }
        verification.add(
            .init(
                .bad, "manifest \(verification.name)",
                expected: "header_fprint \(found.chunkName), of the first 100 bytes of the database",
                found: manifest.headerFingerprint.chunkName))
    }

    static func finding(_ error: FetchError, expected: String) -> Verification.Finding {
        let attempt = error.attempts.last
        let outcome: Verification.Outcome = attempt.map { $0.outcome == .unavailable } ?? true ? .unknown : .bad
        return .init(outcome, error.object, expected: expected, found: attempt?.reason ?? "no store to ask")
    }

    // MARK: Chunks

    /// Fetches chunks and checks every byte.
    private func fetch(
        _ needed: [NeededChunk], _ progress: @Sendable (UInt64, UInt64) -> Void
    ) -> [Verification.Finding] {
        final class Flow: @unchecked Sendable {
            let lock = Lock()
            var outstanding = 0
            var done: UInt64 = 0
            var findings: [(Int, Verification.Finding)] = []
        }
        let flow = Flow()
        let total = needed.reduce(0) { $0 + UInt64($1.length) }
        func wait(below limit: Int) {
            flow.lock.lock()
            while flow.outstanding >= limit {
                flow.lock.wait(until: MonotonicTime.now.advanced(seconds: 0.1))
                let done = flow.done
                flow.lock.unlock()
                progress(done, total)
                flow.lock.lock()
            }
            flow.lock.unlock()
        }
        for (i, chunk) in needed.enumerated() {
            wait(below: 2 * source.parallelism)
            flow.lock.withLock { flow.outstanding += 1 }
            source.start(
                ChunkSource.Request(chunk.fingerprint, length: chunk.length, priority: .ahead) { result in
                    flow.lock.withLock {
                        flow.outstanding -= 1
                        flow.done += UInt64(chunk.length)
                        if case .failure(let error) = result { flow.findings.append((i, Self.finding(error, chunk))) }
                        flow.lock.signal()
                    }
                })
        }
        wait(below: 1)
        progress(total, total)
        return flow.lock.withLock { flow.findings.sorted { $0.0 < $1.0 }.map(\.1) }
    }

    private static func finding(_ error: ReplicaError, _ chunk: NeededChunk) -> Verification.Finding {
        let expected = "\(chunk.length) bytes with that fingerprint"
        guard case .fetch(let fetch) = error else {
            return .init(.unknown, "chunk \(chunk.fingerprint.chunkName)", expected: expected, found: "\(error)")
        }
        return finding(fetch, expected: expected)
    }

    /// Looks whether chunks are there.
    private func look(
        for needed: [NeededChunk], _ progress: @Sendable (UInt64, UInt64) -> Void
    ) -> [Verification.Finding] {
        let missing: [NeededChunk]
        do throws(StoreError) {
            missing = try ChunkListing.missing(needed, in: store, progress)
        } catch {
            return [
                .init(
                    .unknown, "\(needed.count) chunks", expected: "to be in the list of the chunk bucket",
                    found: "\(error) (a deep verification needs no list)")
            ]
        }
        // A list may be wrong, or in another order than S3's: what a GET answers counts.
        var findings: [Verification.Finding] = []
        for (i, chunk) in missing.enumerated() {
            if i < Self.confirmations {
                do throws(ReplicaError) {
                    _ = try source.chunk(chunk.fingerprint, length: chunk.length)
                } catch {
                    findings.append(Self.finding(error, chunk))
                }
            } else {
                findings.append(
                    .init(
                        .bad, "chunk \(chunk.fingerprint.chunkName)", expected: "to be in the list of the chunk bucket",
                        found: "not listed, or empty"))
            }
        }
        return findings
    }

    // MARK: All databases

    /// Verifies every database of the manifest bucket. Chunks that several of them share are looked at once.
    /// - Parameter each: called with each database's result, in the order of their names.
    /// - Returns: where the list of databases could not be had whole, why.
    public func verifyAll(
        options: VerificationOptions = VerificationOptions(), each: (Verification) -> Void
    ) -> Verification.Finding? {
        var names: [String] = []
        var failure: Verification.Finding?
        do throws(StoreError) {
            names = try manifestNames()
        } catch {
            failure = .init(.unknown, "list of manifests", expected: "all keys of the manifest bucket", found: "\(error)")
        }
        var start = 0
        while start < names.count {
            start += verifyGroup(names[start...], options, each)
        }
        return failure
    }

    private func manifestNames() throws(StoreError) -> [String] {
        var names: [String] = []
        var after: String?
        while true {
            let page = try store.list(.manifests, prefix: "", after: after)
            // The two buckets may be one, and hold what isn't ours.
            names += page.entries.map(\.key).filter { $0.utf8.dropFirst(4).starts(with: "-verneuil%3A".utf8) }
            guard page.isTruncated, let last = page.entries.last?.key, last != after else { return names }
            after = last
        }
    }

    /// Chunks whose names are held at a time, of several databases together: 32 bytes each.
    private static let groupLimit = 4_000_000

    /// Verifies some of the first of `names`; answers how many.
    private func verifyGroup(
        _ names: ArraySlice<String>, _ options: VerificationOptions, _ each: (Verification) -> Void
    ) -> Int {
        struct Member {
            var verification: Verification
            var needed: [NeededChunk]
        }
        var members: [Member] = []
        var total = 0
        for name in names where total < Self.groupLimit {
            var verification = Verification(name: name, store: store.name)
            var needed: [NeededChunk] = []
            if case .success(let body) = manifest(name), case .success(let manifest) = resolve(body, name: name) {
                verification.length = manifest.length
                verification.ctime = manifest.ctime
                needed = NeededChunk.all(of: manifest)
                verification.objects = needed.count
                checkAge(manifest, &verification, options)
                checkHeader(manifest, needed, &verification, options)
            } else {
                verification = verify(name: name, options: options)
            }
            total += needed.count
            members.append(Member(verification: verification, needed: needed))
        }
        let union = NeededChunk.union(members.map(\.needed))
        let suspicious: Set<Fingerprint>?
        if options.deep {
            suspicious = Set(fetch(union, options.progress).compactMap { Self.fingerprint(of: $0) })
        } else {
            do throws(StoreError) {
                suspicious = Set(try ChunkListing.missing(union, in: store, options.progress).map(\.fingerprint))
            } catch {
                suspicious = nil
            }
        }
        for member in members {
            let isGood =
                member.verification.outcome == .good
                && (suspicious.map { bad in !member.needed.contains { bad.contains($0.fingerprint) } } ?? false)
            // What looks wrong is looked at again, on its own: it may have been replaced meanwhile.
            each(isGood || member.verification.length == nil ? member.verification : verify(name: member.verification.name, options: options))
        }
        return members.count
    }

    private static func fingerprint(of finding: Verification.Finding) -> Fingerprint? {
        finding.object.hasPrefix("chunk ") ? Fingerprint(chunkName: String(finding.object.dropFirst(6))) : nil
    }
}
