/// A manifest as it is stored: decoded, but not yet verified against its list of
/// chunks, since undoing the xor may need one more object.
///
/// Bytes are accepted only where they keep everything that FORMAT 6 asks of a
/// manifest; `init` checks what can be checked at once, `resolved` the rest.
/// Memory is bounded by a small multiple of the decompressed body.
public struct StoredManifest: Sendable {
    private let message: ManifestMessage
    private let header: Fingerprint
    private let contents: Fingerprint

    /// - Parameter body: the object's body, a zstd frame or raw.
    public init(decoding body: [UInt8]) throws(FormatError) {
        guard Body.isFrame(body) else {
            self = try StoredManifest(protobuf: body)
            return
        }
        let failure: FormatError
        do throws(FormatError) {
            self = try StoredManifest(protobuf: Body.decompress(body, limit: Body.maximumLength))
            return
        } catch {
            failure = error
        }
        // Raw data may begin like a frame by accident; where it isn't a manifest
        // either, what was wrong with the frame is the better explanation.
        do throws(FormatError) {
            self = try StoredManifest(protobuf: body)
        } catch {
            throw FormatError("manifest", failure.reason)
        }
    }

    private init(protobuf: [UInt8]) throws(FormatError) {
        guard let message = try ManifestMessage(decoding: protobuf) else {
            throw FormatError("manifest", "has no v1: not a manifest, or one of a later format")
        }
        guard let header = message.header else { throw FormatError("manifest", "has no header_fprint") }
        guard let contents = message.contents else { throw FormatError("manifest", "has no contents_fprint") }
        guard message.oddWord == nil else {
            throw FormatError("manifest", "chunks has an odd number of words, \(2 * message.chunks.count + 1)")
        }
        let count = Chunk.count(forLength: message.length)
        guard count == message.chunks.count else {
            throw FormatError(
                "manifest",
                "len is \(message.length) bytes, which is \(count) chunks, but \(message.chunks.count) are listed")
        }
        for chunk in message.bundled {
            guard chunk.index < UInt64(message.chunks.count) else {
                throw FormatError(
                    "manifest", "bundled chunk \(chunk.index) is out of range: there are \(message.chunks.count) chunks"
                )
            }
            guard chunk.offset == chunk.index * UInt64(Chunk.size) else {
                throw FormatError("manifest", "bundled chunk \(chunk.index) claims to begin at byte \(chunk.offset)")
            }
            let length = Chunk.length(ofChunk: Int(chunk.index), databaseLength: message.length)
            guard chunk.data.count == length else {
                throw FormatError(
                    "manifest", "bundled chunk \(chunk.index) has \(chunk.data.count) bytes of data, not \(length)")
            }
        }
        self.message = message
        self.header = header
        self.contents = contents
    }

    /// Of the first 100 bytes of the file.
    public var headerFingerprint: Fingerprint { header }
    public var versionID: [UInt8] { message.versionID }
    public var contentsFingerprint: Fingerprint { contents }
    /// Bytes of the database file.
    public var length: UInt64 { message.length }
    public var ctime: Int64 { message.ctime }
    public var ctimeNanoseconds: Int32 { message.ctimeNanoseconds }
    public var generatedBy: [UInt8] { message.generatedBy }

    /// The object in the chunk bucket that `resolved` needs; nil where it needs none.
    public var baseChunk: Fingerprint? { message.base }

    /// The most bytes, decompressed, that a base chunk may have. It may be far
    /// longer than the list, where the database has shrunk, so this is the format's limit.
    public var maximumBaseLength: Int { Body.maximumLength }

    /// The manifest, verified: the list matches contents_fprint, and every bundled
    /// chunk the list.
    /// - Parameter base: the bytes of the object that `baseChunk` names, decompressed;
    ///   not looked at where there is none.
    public func resolved(base: [UInt8]?) throws(FormatError) -> Manifest {
        var chunks = message.chunks
        if let name = baseChunk {
            guard let base else {
                throw FormatError("manifest", "can't be read without its base chunk \(name.chunkName)")
            }
            let words: [UInt64]
            do throws(FormatError) {
                words = try BaseChunk.decode(base)
            } catch {
                throw FormatError("base chunk \(name.chunkName)", error.reason)
            }
            guard FingerprintKey.chunk.fingerprint(base) == name else {
                throw FormatError(
                    "base chunk \(name.chunkName)",
                    "these \(base.count) bytes have the fingerprint \(FingerprintKey.chunk.fingerprint(base).chunkName)"
                )
            }
            chunks.xor(with: words)
        }
        let manifest = Manifest(
            headerFingerprint: header, versionID: versionID, length: length, ctime: ctime,
            ctimeNanoseconds: ctimeNanoseconds, generatedBy: generatedBy, chunks: chunks,
            bundled: try verifiedBundle(chunks), baseChunk: baseChunk)
        let found = manifest.contentsFingerprint
        guard found == contents else {
            throw FormatError(
                "manifest",
                "the list of \(chunks.count) chunks has the fingerprint \(found.chunkName), "
                    + "contents_fprint is \(contents.chunkName)")
        }
        return manifest
    }

    private func verifiedBundle(_ chunks: [Fingerprint]) throws(FormatError) -> [BundledChunk] {
        var bundled: [BundledChunk] = []
        for chunk in message.bundled {
            let index = Int(chunk.index)
            let listed = chunks[index]
            let found = FingerprintKey.chunk.fingerprint(chunk.data)
            guard found == listed, chunk.fingerprint ?? listed == listed else {
                throw FormatError(
                    "manifest",
                    "bundled chunk \(index) has the fingerprint \(found.chunkName), its own field says "
                        + "\(chunk.fingerprint?.chunkName ?? "nothing"), the list \(listed.chunkName)")
            }
            bundled.append(BundledChunk(index: index, offset: chunk.offset, fingerprint: listed, data: chunk.data))
        }
        return bundled
    }
}
