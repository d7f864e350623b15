import VerneuilFormat
import VerneuilSystem

extension Restore {
    /// Hands the database out in order, piece by piece, for standard output.
    /// - Parameters:
    ///   - progress: called on this thread, after each piece.
    ///   - output: gets each piece once, verified; what it throws ends the restore.
    public func stream(
        progress: (Progress) -> Void = { _ in }, to output: (UnsafeRawBufferPointer) throws(ReplicaError) -> Void
    ) throws(ReplicaError) -> Report {
        var report = Report(length: manifest.length)
        var bundled: [Int: [UInt8]] = [:]
        for chunk in manifest.bundled
        where chunk.index < manifest.chunks.count
            && FingerprintKey.chunk.fingerprint(chunk.data) == manifest.chunks[chunk.index]
        {
            bundled[chunk.index] = chunk.data
        }
        // Chunks on their way: a ring, in the order of the file. Handlers of a
        // stream that has ended fill boxes that nobody looks at.
        let window = 3 * source.parallelism
        var coming = [Handover<Result<[UInt8], ReplicaError>>?](repeating: nil, count: window)
        let zeros = [UInt8](repeating: 0, count: Chunk.size)
        var asked = 0
        var done: UInt64 = 0
        for (i, fingerprint) in manifest.chunks.enumerated() {
            while asked < manifest.chunks.count, asked < i + window {
                if bundled[asked] == nil, !isZero(asked) {
                    let box = Handover<Result<[UInt8], ReplicaError>>()
                    coming[asked % window] = box
                    source.start(
                        ChunkSource.Request(manifest.chunks[asked], length: length(asked), priority: .ahead) { box.put($0) })
                }
                asked += 1
            }
            let piece: [UInt8]
            if let bytes = bundled[i] {
                piece = bytes
                report.bundled += UInt64(bytes.count)
            } else if isZero(i) {
                piece = zeros
                report.zero += UInt64(Chunk.size)
            } else if let box = coming[i % window].take() {
                piece = try box.take().get()
                report.fetched += UInt64(piece.count)
            } else {
                throw .refused("chunk \(fingerprint.chunkName) was never asked for")
            }
            var failure: ReplicaError?
            piece.withUnsafeBytes { bytes in
                do throws(ReplicaError) { try output(bytes) } catch { failure = error }
            }
            if let failure { throw failure }
            done += UInt64(piece.count)
            progress(Progress(done: done, total: manifest.length))
        }
        return report
    }

    private func isZero(_ i: Int) -> Bool {
        manifest.chunks[i] == Chunk.zeroFingerprint && length(i) == Chunk.size
    }
}
