import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Puts a database together from its chunks: as a file, or in order for a pipe.
///
/// Every chunk is verified before it is written; chunks are fetched in parallel,
/// each distinct one once, and take no more memory than those in flight.
public struct Restore: Sendable {
    public struct Options {
        /// Replace a database that is in use, or was not closed properly.
        public var force = false
        /// An older copy of the database: chunks that are there are not fetched.
        public var base: String?
        /// Read the finished file again, before it takes its name.
        public var verify = true
        /// Called on the thread that restores, several times a second.
        public var progress: (Progress) -> Void = { _ in }
        public init() {}
    }

    /// In bytes of the database.
    public struct Progress: Sendable, Hashable {
        public var done: UInt64
        public var total: UInt64
    }

    /// Where the bytes of a restored database came from.
    public struct Report: Sendable, Hashable {
        public var length: UInt64 = 0
        /// From caches and stores, each distinct chunk counted as often as it stands in the database.
        public var fetched: UInt64 = 0
        /// From the manifest itself.
        public var bundled: UInt64 = 0
        public var fromBase: UInt64 = 0
        /// From what an interrupted restore had left.
        public var resumed: UInt64 = 0
        /// Chunks of zeros: not written at all.
        public var zero: UInt64 = 0
    }

    let manifest: Manifest
    let source: ChunkSource

    /// - Parameter manifest: verified, as `ManifestSource.resolve` answers it.
    public init(_ manifest: Manifest, from source: ChunkSource) {
        self.manifest = manifest
        self.source = source
    }

    func length(_ i: Int) -> Int { Chunk.length(ofChunk: i, databaseLength: manifest.length) }

    /// Writes the database to a file. What stood there before stays until the new
    /// one is whole (`RestoreTarget`). An interrupted or failed restore leaves
    /// `PATH.partial`, which the next one goes on from.
    public func write(to path: String, options: Options = Options()) throws(ReplicaError) -> Report {
        let target = try RestoreTarget.open(path, force: options.force)
        var work = RestoreWork(manifest)
        do throws(SystemError) {
            if target.found > 0 { try work.resume(from: target.partial, size: target.found) }
            try target.partial.truncate(to: Int64(clamping: manifest.length))
            try work.writeBundled(to: target.partial)
            if let base = options.base { try work.copy(from: base, to: target.partial, options.progress) }
        } catch {
            throw .system(error)
        }
        try fetch(&work, to: target.partial, options.progress)
        if options.verify { try verify(target.partial) }
        try target.publish()
        return work.report
    }

    // MARK: Fetching

    /// What the thread that feeds the source shares with those that write.
    private final class Flow: @unchecked Sendable {
        let lock = Lock()
        var outstanding = 0
        var written: UInt64 = 0
        var failure: ReplicaError?
    }

    private func fetch(
        _ work: inout RestoreWork, to file: borrowing Descriptor, _ progress: (Progress) -> Void
    ) throws(ReplicaError) {
        let flow = Flow()
        let fd = file.fd
        let path = file.path
        let before = work.done
        let total = manifest.length
        let window = 2 * source.parallelism
        var shown = MonotonicTime(nanoseconds: 0)
        // The completion handlers use the descriptor: all have run when this returns.
        func wait(below limit: Int) {
            flow.lock.lock()
            while flow.outstanding >= limit {
                flow.lock.wait(until: MonotonicTime.now.advanced(seconds: 0.1))
                let now = MonotonicTime.now
                if now.seconds(since: shown) >= 0.1 {
                    let written = flow.written
                    flow.lock.unlock()
                    progress(Progress(done: before + written, total: total))
                    shown = now
                    flow.lock.lock()
                }
            }
            flow.lock.unlock()
        }
        for group in work.missing {
            wait(below: window)
            if flow.lock.withLock({ flow.failure != nil }) { break }
            let places = group.map { Int64($0) * Int64(Chunk.size) }
            flow.lock.withLock { flow.outstanding += 1 }
            let first = group[0]
            source.start(
                ChunkSource.Request(manifest.chunks[first], length: length(first), urgent: false) { fetched in
                    let result = fetched.flatMap { bytes in Self.write(bytes, to: fd, at: places, path) }
                    flow.lock.lock()
                    flow.outstanding -= 1
                    switch result {
                    case .success(let count): flow.written += UInt64(count)
                    case .failure(let error): flow.failure = flow.failure ?? error
                    }
                    flow.lock.signal()
                    flow.lock.unlock()
                })
        }
        wait(below: 1)
        work.report.fetched += flow.written
        if let failure = flow.failure { throw failure }
        progress(Progress(done: total, total: total))
    }

    private static func write(
        _ bytes: [UInt8], to fd: Int32, at places: [Int64], _ path: String
    ) -> Result<Int, ReplicaError> {
        for place in places {
            var done = 0
            while done < bytes.count {
                let put = bytes.withUnsafeBytes { vrn_pwrite(fd, $0.baseAddress.map { $0 + done }, bytes.count - done, place + Int64(done)) }
                guard put > 0 else {
                    return .failure(.system(SystemError("pwrite", path, put == 0 ? ENOSPC : Int32(-put))))
                }
                done += put
            }
        }
        return .success(bytes.count * places.count)
    }

    // MARK: Verifying

    /// Reads the file again, chunk by chunk: what was written where, not only what was fetched.
    private func verify(_ file: borrowing Descriptor) throws(ReplicaError) {
        let size: Int64
        do throws(SystemError) { size = try file.status().size } catch { throw .system(error) }
        guard size == Int64(clamping: manifest.length) else {
            throw .format(FormatError(file.path, "has \(size) bytes, not \(manifest.length)"))
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Chunk.size, alignment: 16)
        defer { buffer.deallocate() }
        for (i, expected) in manifest.chunks.enumerated() {
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<length(i)])
            let count: Int
            do throws(SystemError) {
                count = try file.read(into: part, at: Int64(i) * Int64(Chunk.size))
            } catch {
                throw .system(error)
            }
            let found = Chunk.fingerprint(UnsafeRawBufferPointer(rebasing: part[..<count]))
            guard found == expected else {
                throw .format(
                    FormatError(
                        "\(file.path), bytes from \(i * Chunk.size) on",
                        "read back with the fingerprint \(found.chunkName), not \(expected.chunkName)"))
            }
        }
    }
}
