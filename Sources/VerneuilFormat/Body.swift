import CZstd

/// The body of a stored object (FORMAT 1): its content, usually as a zstd frame.
public enum Body {
    /// The most that any object may decompress to, 384 MiB.
    public static let maximumLength = 3 << 27

    /// - Parameter level: zstd's; nil for the format's choice: zstd's default for up
    ///   to 64 KiB, 1 beyond.
    public static func compress(_ bytes: UnsafeRawBufferPointer, level: Int32? = nil) -> [UInt8] {
        let level = level ?? (bytes.count > Chunk.size ? 1 : ZSTD_defaultCLevel())
        let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: ZSTD_compressBound(bytes.count), alignment: 16)
        defer { scratch.deallocate() }
        let count = ZSTD_compress(scratch.baseAddress, scratch.count, bytes.baseAddress, bytes.count, level)
        // Out of memory is all that can go wrong; a raw body is as good to readers.
        if ZSTD_isError(count) != 0 { return [UInt8](bytes) }
        return [UInt8](UnsafeRawBufferPointer(rebasing: scratch[..<count]))
    }

    /// A manifest is compressed fast: it is written more often than read.
    public static func compressManifest(_ bytes: [UInt8]) -> [UInt8] {
        bytes.withUnsafeBytes { compress($0, level: 1) }
    }

    /// The content of `body`: decompressed, where it is a zstd frame and `accept`
    /// takes the result, else the raw body, where `accept` takes that: raw data may
    /// begin like a frame by accident.
    /// - Parameters:
    ///   - limit: the content's greatest length in bytes. No more memory than that is
    ///     used, and no more than zstd can make of the body.
    ///   - accept: says whether bytes are the content, usually by their fingerprint.
    public static func decode(
        _ body: [UInt8], limit: Int, accept: (UnsafeRawBufferPointer) -> Bool
    ) throws(FormatError) -> [UInt8] {
        var reason = "is not what was expected"
        if isFrame(body) {
            do throws(FormatError) {
                let content = try decompress(body, limit: limit)
                if content.withUnsafeBytes(accept) { return content }
                reason = "decompresses to \(content.count) bytes that are not what was expected"
            } catch {
                reason = error.reason
            }
        }
        if body.count <= limit, body.withUnsafeBytes(accept) { return body }
        throw FormatError("body of \(body.count) bytes", reason)
    }

    /// The bytes of a chunk.
    /// - Parameters:
    ///   - expecting: all 128 bits of it must match.
    ///   - length: in bytes, from `Chunk.length(ofChunk:databaseLength:)`.
    public static func decodeChunk(
        _ body: [UInt8], expecting: Fingerprint, length: Int
    ) throws(FormatError) -> [UInt8] {
        var found = ""
        do throws(FormatError) {
            return try decode(body, limit: length) { bytes in
                guard bytes.count == length else { return false }
                let fingerprint = Chunk.fingerprint(bytes)
                if fingerprint != expecting { found = " with this fingerprint, found \(fingerprint.chunkName)" }
                return fingerprint == expecting
            }
        } catch {
            throw FormatError(
                "chunk \(expecting.chunkName)", "\(error.what) \(error.reason); \(length) bytes expected\(found)")
        }
    }

    static func isFrame(_ body: [UInt8]) -> Bool { body.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) }

    /// All frames of `body`, one after the other.
    static func decompress(_ body: [UInt8], limit: Int) throws(FormatError) -> [UInt8] {
        // The content is zstd's window, too: memory is that of the result, and a frame
        // can't ask for more. One that says how long it is may lie, so it isn't asked.
        let limit = max(0, limit)
        var capacity = min(limit, max(Chunk.size, 8 * body.count))
        guard let context = Decompressor.take() else { throw FormatError("zstd frame", "there is no memory to decompress it") }
        defer { Decompressor.giveBack(context) }
        while true {
            var code = 0
            let content = body.withUnsafeBytes { body in
                // Without room, an array is the one empty array of the process, and its count would be written: a race, if of zeros.
                [UInt8](unsafeUninitializedCapacity: max(1, capacity)) { buffer, initialized in
                    code = ZSTD_decompressDCtx(context, buffer.baseAddress, capacity, body.baseAddress, body.count)
                    initialized = ZSTD_isError(code) != 0 ? 0 : code
                }
            }
            if ZSTD_isError(code) == 0 { return content }
            guard ZSTD_getErrorCode(code) == ZSTD_error_dstSize_tooSmall else {
                throw FormatError("zstd frame", String(cString: ZSTD_getErrorName(code)))
            }
            guard capacity < limit else {
                throw FormatError("zstd frame", "decompresses to more than \(limit) bytes")
            }
            capacity = min(limit, 4 * capacity)
        }
    }
}
