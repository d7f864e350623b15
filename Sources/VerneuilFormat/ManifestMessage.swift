/// The protobuf message of FORMAT 6 as it came from the wire: nothing checked but
/// the encoding. Fields that come again are merged as protobuf merges them: the
/// last scalar wins, lists are concatenated, messages merged.
struct ManifestMessage: Sendable {
    struct Bundled: Sendable {
        var index: UInt64 = 0
        var offset: UInt64 = 0
        var fingerprint: Fingerprint?
        var data: [UInt8] = []
    }

    var header: Fingerprint?
    var versionID: [UInt8] = []
    var contents: Fingerprint?
    var length: UInt64 = 0
    var ctime: Int64 = 0
    var ctimeNanoseconds: Int32 = 0
    var base: Fingerprint?
    var generatedBy: [UInt8] = []
    /// Maybe xored with the base chunk.
    var chunks: [Fingerprint] = []
    /// The last word of `chunks` where their number is odd.
    var oddWord: UInt64?
    var bundled: [Bundled] = []

    private init() {}

    /// nil where there is no v1.
    init?(decoding bytes: [UInt8]) throws(FormatError) {
        self.init()
        var found = false
        var reader = ProtobufReader(bytes)
        while let field = try reader.next() {
            if field.number == 1 {
                try reader.expect(.bytes, field, "v1")
                try merge(reader.message())
                found = true
            } else {
                try reader.skip(field)
            }
        }
        if !found { return nil }
    }

    private mutating func merge(_ message: ProtobufReader) throws(FormatError) {
        var reader = message
        while let field = try reader.next() {
            switch field.number {
            case 1: try Self.merge(&header, &reader, field, "header_fprint")
            case 2:
                try reader.expect(.bytes, field, "version_id")
                versionID = try reader.copy()
            case 3: try Self.merge(&contents, &reader, field, "contents_fprint")
            case 5:
                try reader.expect(.varint, field, "len")
                length = try reader.varint()
            case 6:
                try reader.expect(.varint, field, "ctime")
                ctime = Int64(bitPattern: try reader.varint())
            case 7:
                try reader.expect(.fixed32, field, "ctime_ns")
                ctimeNanoseconds = Int32(bitPattern: try reader.fixed32())
            case 8: try Self.merge(&base, &reader, field, "base_chunks_fprint")
            case 9:
                try reader.expect(.bytes, field, "generated_by")
                generatedBy = try reader.copy()
            case 15 where field.type == .fixed64:
                append(try reader.fixed64())
            case 15:
                try reader.expect(.bytes, field, "chunks")
                try reader.packedFixed64("chunks") { append($0) }
            case 16:
                try reader.expect(.bytes, field, "bundled_chunks")
                try append(bundled: reader.message(), at: field)
            default:
                try reader.skip(field)
            }
        }
    }

    private static func merge(
        _ value: inout Fingerprint?, _ outer: inout ProtobufReader, _ field: ProtobufReader.Field, _ name: String
    ) throws(FormatError) {
        try outer.expect(.bytes, field, name)
        var reader = try outer.message()
        var fingerprint = value ?? Fingerprint(primary: 0, secondary: 0)
        while let field = try reader.next() {
            switch field.number {
            case 1:
                try reader.expect(.fixed64, field, "\(name).major")
                fingerprint.primary = try reader.fixed64()
            case 2:
                try reader.expect(.fixed64, field, "\(name).minor")
                fingerprint.secondary = try reader.fixed64()
            default:
                try reader.skip(field)
            }
        }
        value = fingerprint
    }

    private mutating func append(_ word: UInt64) {
        if let primary = oddWord {
            chunks.append(Fingerprint(primary: primary, secondary: word))
            oddWord = nil
        } else {
            oddWord = word
        }
    }

    private mutating func append(_ words: UnsafeRawBufferPointer) {
        chunks.reserveCapacity(chunks.count + words.count / 16)
        for offset in stride(from: 0, to: words.count, by: 8) {
            append(UInt64(littleEndian: words.loadUnaligned(fromByteOffset: offset, as: UInt64.self)))
        }
    }

    private mutating func append(bundled message: ProtobufReader, at place: ProtobufReader.Field) throws(FormatError) {
        var reader = message
        var chunk = Bundled()
        while let field = try reader.next() {
            switch field.number {
            case 1:
                try reader.expect(.varint, field, "chunk_index")
                chunk.index = try reader.varint()
            case 2:
                try reader.expect(.varint, field, "chunk_offset")
                chunk.offset = try reader.varint()
            case 3: try Self.merge(&chunk.fingerprint, &reader, field, "chunk_fprint")
            case 15:
                try reader.expect(.bytes, field, "chunk_data")
                chunk.data = try reader.copy()
            default:
                try reader.skip(field)
            }
        }
        // Only a file's last chunk is short. Seen here, since a body of nothing but
        // empty ones would take twenty times its size in memory.
        guard chunk.data.count == Chunk.size || bundled.allSatisfy({ $0.data.count == Chunk.size }) else {
            throw message.failure("more than one bundled chunk is shorter than \(Chunk.size) bytes", at: place.offset)
        }
        bundled.append(chunk)
    }
}
