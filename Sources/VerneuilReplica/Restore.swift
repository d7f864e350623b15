import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// Puts a database together from its chunks: as a file, or in order for a pipe.
///
/// Every chunk is verified before it is written; chunks are fetched in parallel,
/// each distinct one once, and take no more memory than those in flight.
public struct Restore: Sendable {
    public struct Options {
        /// Replace a database that is in use, or was not closed properly, or a file that is no database.
        public var force = false
        /// An older copy of the database: chunks that are there are not fetched.
        public var base: String?
        /// Read back what was written, before the file takes its name.
        public var verify = true
        /// Called with the path of the finished file before it is given its name; what it throws keeps it from that.
        public var inspect: (String) throws(ReplicaError) -> Void = { _ in }
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
        try fetch(&work, to: target.partial, options)
        try options.inspect(target.partial.path)
        try target.publish()
        return work.report
    }

    // MARK: Fetching

    /// What the thread that feeds the source shares with those that write.
    private final class Flow: @unchecked Sendable {
        let lock = Lock()
        // Under the lock:
        var outstanding = 0
        var written: UInt64 = 0
        /// Chunks that were in their place before anything was fetched, and are still to be read back.
        var unread: [Int] = []
        var failure: ReplicaError?

        func fail(_ error: ReplicaError) { lock.withLock { failure = failure ?? error } }
    }

    /// Fetches what is missing. What is written is read back at once, by the thread that wrote it, while its memory is still
    /// in the processor's cache: each place in the file is written once, so that what is found good stays good. What was there before is
    /// read back while this thread waits.
    private func fetch(
        _ work: inout RestoreWork, to file: borrowing Descriptor, _ options: Options
    ) throws(ReplicaError) {
        let flow = Flow()
        let verify = options.verify
        if verify { flow.unread = work.present }
        let fd = file.fd
        let path = file.path
        let before = work.done
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Chunk.size, alignment: 16)
        defer { buffer.deallocate() }
        var shown = MonotonicTime(nanoseconds: 0)
        func show() {
            let now = MonotonicTime.now
            guard now.seconds(since: shown) >= 0.1 else { return }
            shown = now
            options.progress(Progress(done: before + flow.lock.withLock { flow.written }, total: manifest.length))
        }
        /// Waits until fewer than `limit` requests are outstanding, with use.
        func wait(below limit: Int) {
            while true {
                flow.lock.lock()
                if flow.outstanding < limit { return flow.lock.unlock() }
                let chunk = flow.unread.popLast()
                if chunk == nil { flow.lock.wait(until: MonotonicTime.now.advanced(seconds: 0.1)) }
                flow.lock.unlock()
                if let chunk { readBack(chunk, file, buffer, flow) }
                show()
            }
        }
        for group in work.missing {
            // In flight, being unpacked, and ready to go out.
            wait(below: 3 * source.parallelism)
            if flow.lock.withLock({ flow.failure != nil }) { break }
            flow.lock.withLock { flow.outstanding += 1 }
            let first = group[0]
            source.start(
                ChunkSource.Request(manifest.chunks[first], length: length(first), priority: .ahead) { fetched in
                    let result = fetched.flatMap { bytes in
                        let written = Self.write(bytes, to: fd, at: group, path)
                        return verify ? written.flatMap { Self.compare(bytes, with: fd, at: group, path, $0) } : written
                    }
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
        // The completion handlers use the descriptor: all must have run.
        wait(below: 1)
        while flow.failure == nil, let chunk = flow.unread.popLast() { readBack(chunk, file, buffer, flow) }
        work.report.fetched += flow.written
        if let failure = flow.failure { throw failure }
        options.progress(Progress(done: manifest.length, total: manifest.length))
    }

    private static func write(
        _ bytes: [UInt8], to fd: Int32, at places: [Int], _ path: String
    ) -> Result<Int, ReplicaError> {
        bytes.withUnsafeBytes { bytes in
            for place in places {
                let offset = Int64(place) * Int64(Chunk.size)
                var done = 0
                while done < bytes.count {
                    let rest = UnsafeRawBufferPointer(rebasing: bytes[done...])
                    let put = vrn_pwrite(fd, rest.baseAddress, rest.count, offset + Int64(done))
                    guard put > 0 else {
                        return .failure(.system(SystemError("pwrite", path, put == 0 ? ENOSPC : Int32(-put))))
                    }
                    done += put
                }
            }
            return .success(bytes.count * places.count)
        }
    }

    /// Checks what was written where, not only what was fetched.
    /// - Returns: `count`, where it is the same.
    private static func compare(
        _ bytes: [UInt8], with fd: Int32, at places: [Int], _ path: String, _ count: Int
    ) -> Result<Int, ReplicaError> {
        withUnsafeTemporaryAllocation(byteCount: bytes.count, alignment: 16) { found in
            for place in places {
                let offset = Int64(place) * Int64(Chunk.size)
                var done = 0
                while done < bytes.count {
                    let rest = UnsafeMutableRawBufferPointer(rebasing: found[done...])
                    let got = vrn_pread(fd, rest.baseAddress, rest.count, offset + Int64(done))
                    if got < 0 { return .failure(.system(SystemError("pread", path, Int32(-got)))) }
                    if got == 0 { break }
                    done += got
                }
                let found = UnsafeRawBufferPointer(rebasing: found[..<done])
                let expected: Fingerprint? = bytes.withUnsafeBytes { bytes in
                    guard let a = bytes.baseAddress, let b = found.baseAddress, found.count == bytes.count, memcmp(a, b, bytes.count) == 0
                    else { return Chunk.fingerprint(bytes) }
                    return nil
                }
                if let expected { return .failure(Self.differs(place, path, found: Chunk.fingerprint(found), expected)) }
            }
            return .success(count)
        }
    }

    private static func differs(_ i: Int, _ path: String, found: Fingerprint, _ expected: Fingerprint) -> ReplicaError {
        .format(
            FormatError(
                "\(path), bytes from \(i * Chunk.size) on",
                "read back with the fingerprint \(found.chunkName), not \(expected.chunkName)"))
    }

    /// The same of a chunk that wasn't fetched.
    private func readBack(
        _ i: Int, _ file: borrowing Descriptor, _ buffer: UnsafeMutableRawBufferPointer, _ flow: Flow
    ) {
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<length(i)])
        do throws(SystemError) {
            let count = try file.read(into: part, at: Int64(i) * Int64(Chunk.size))
            let found = Chunk.fingerprint(UnsafeRawBufferPointer(rebasing: part[..<count]))
            guard found != manifest.chunks[i] else { return }
            flow.fail(Self.differs(i, file.path, found: found, manifest.chunks[i]))
        } catch {
            flow.fail(.system(error))
        }
    }
}
