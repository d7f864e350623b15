/// What of the protobuf wire format a manifest needs, by hand: a generated
/// decoder would bring a runtime several times the size of this layer into every
/// process that loads the extension, and copy lists of fingerprints twice.
enum WireType: UInt8 {
    case varint = 0
    case fixed64 = 1
    case bytes = 2
    case startGroup = 3
    case endGroup = 4
    case fixed32 = 5
}

/// Reads fields one after the other from a range of an array. Never reads outside
/// that range; allocates nothing but what `copy` answers.
struct ProtobufReader {
    private let bytes: [UInt8]
    private var position: Int
    private let end: Int

    init(_ bytes: [UInt8]) {
        self.init(bytes, 0..<bytes.count)
    }

    private init(_ bytes: [UInt8], _ range: Range<Int>) {
        self.bytes = bytes
        position = range.lowerBound
        end = range.upperBound
    }

    struct Field {
        var number: UInt32
        var type: WireType
        /// Where its tag stands in the message, for messages.
        var offset: Int
    }

    func failure(_ reason: String, at offset: Int? = nil) -> FormatError {
        FormatError("manifest", "\(reason), at byte \(offset ?? position)")
    }

    /// The next field's tag; nil at the end.
    mutating func next() throws(FormatError) -> Field? {
        guard position < end else { return nil }
        let offset = position
        let tag = try varint()
        guard tag <= UInt64(UInt32.max), tag >> 3 != 0, let type = WireType(rawValue: UInt8(tag & 7)) else {
            throw failure("\(tag) is not the tag of a protobuf field", at: offset)
        }
        return Field(number: UInt32(tag >> 3), type: type, offset: offset)
    }

    func expect(_ type: WireType, _ field: Field, _ name: String) throws(FormatError) {
        guard field.type == type else {
            throw failure(
                "field \(name) (\(field.number)) has wire type \(field.type.rawValue), not \(type.rawValue)",
                at: field.offset)
        }
    }

    /// Up to ten bytes; bits beyond 64 are dropped, as protobuf does.
    mutating func varint() throws(FormatError) -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        let start = position
        while position < end, shift < 70 {
            let byte = bytes[position]
            position += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift += 7
        }
        throw failure(shift < 70 ? "a varint is cut off" : "a varint has more than ten bytes", at: start)
    }

    mutating func fixed64() throws(FormatError) -> UInt64 {
        let range = try take(8)
        return bytes.withUnsafeBytes {
            UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: range.lowerBound, as: UInt64.self))
        }
    }

    mutating func fixed32() throws(FormatError) -> UInt32 {
        let range = try take(4)
        return bytes.withUnsafeBytes {
            UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: range.lowerBound, as: UInt32.self))
        }
    }

    /// A length and as many bytes, copied.
    mutating func copy() throws(FormatError) -> [UInt8] {
        Array(bytes[try lengthDelimited()])
    }

    /// A length and as many bytes, to be read as a message.
    mutating func message() throws(FormatError) -> ProtobufReader {
        ProtobufReader(bytes, try lengthDelimited())
    }

    /// A length and as many bytes of 64-bit words, given to `body` in order.
    mutating func packedFixed64(_ name: String, _ body: (UnsafeRawBufferPointer) -> Void) throws(FormatError) {
        let start = position
        let range = try lengthDelimited()
        guard range.count % 8 == 0 else {
            throw failure("packed field \(name) has \(range.count) bytes, which is not a multiple of 8", at: start)
        }
        bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[range])) }
    }

    /// Passes over the value of a field that nobody asked for.
    mutating func skip(_ field: Field) throws(FormatError) {
        var groups: [UInt32] = []
        var field = field
        while true {
            switch field.type {
            case .varint: _ = try varint()
            case .fixed64: _ = try take(8)
            case .bytes: _ = try lengthDelimited()
            case .fixed32: _ = try take(4)
            case .startGroup:
                guard groups.count < 100 else { throw failure("groups are nested too deep", at: field.offset) }
                groups.append(field.number)
            case .endGroup:
                guard groups.popLast() == field.number else {
                    throw failure("a group ends that did not begin", at: field.offset)
                }
            }
            if groups.isEmpty { return }
            guard let inner = try next() else { throw failure("a group is cut off") }
            field = inner
        }
    }

    private mutating func lengthDelimited() throws(FormatError) -> Range<Int> {
        let start = position
        let count = try varint()
        guard count <= UInt64(end - position) else {
            throw failure("a field of \(count) bytes where \(end - position) are left", at: start)
        }
        return try take(Int(count))
    }

    private mutating func take(_ count: Int) throws(FormatError) -> Range<Int> {
        guard end - position >= count else {
            throw failure("a field of \(count) bytes where \(end - position) are left")
        }
        position += count
        return position - count..<position
    }
}

/// Writes fields into an array whose size the caller has worked out. Scalars that
/// have their default value are left away, as proto3 has it.
struct ProtobufWriter {
    private(set) var bytes: [UInt8] = []

    init(capacity: Int) { bytes.reserveCapacity(capacity) }

    mutating func tag(_ number: UInt32, _ type: WireType) {
        varint(UInt64(number << 3) | UInt64(type.rawValue))
    }

    mutating func varint(_ value: UInt64) {
        var value = value
        while value >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: value) | 0x80)
            value >>= 7
        }
        bytes.append(UInt8(value))
    }

    mutating func varint(_ number: UInt32, _ value: UInt64) {
        if value == 0 { return }
        tag(number, .varint)
        varint(value)
    }

    mutating func fixed64(_ value: UInt64) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func fixed64(_ number: UInt32, _ value: UInt64) {
        if value == 0 { return }
        tag(number, .fixed64)
        fixed64(value)
    }

    mutating func fixed32(_ number: UInt32, _ value: UInt32) {
        if value == 0 { return }
        tag(number, .fixed32)
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func bytes(_ number: UInt32, _ value: [UInt8]) {
        if value.isEmpty { return }
        header(number, length: value.count)
        bytes += value
    }

    mutating func raw(_ value: UnsafeRawBufferPointer) { bytes.append(contentsOf: value) }

    /// What comes before a message, or a packed field, of `length` bytes.
    mutating func header(_ number: UInt32, length: Int) {
        tag(number, .bytes)
        varint(UInt64(length))
    }

    // Sizes of the above.

    static func size(varint value: UInt64) -> Int {
        max(1, (70 - value.leadingZeroBitCount) / 7)
    }
    static func size(_ number: UInt32, varint value: UInt64) -> Int {
        value == 0 ? 0 : size(tag: number) + size(varint: value)
    }
    static func size(_ number: UInt32, fixed64 value: UInt64) -> Int { value == 0 ? 0 : size(tag: number) + 8 }
    static func size(_ number: UInt32, fixed32 value: UInt32) -> Int { value == 0 ? 0 : size(tag: number) + 4 }
    static func size(_ number: UInt32, bytes value: [UInt8]) -> Int {
        value.isEmpty ? 0 : size(number, length: value.count)
    }
    /// A length-delimited field with `length` bytes in it.
    static func size(_ number: UInt32, length: Int) -> Int {
        size(tag: number) + size(varint: UInt64(length)) + length
    }
    private static func size(tag number: UInt32) -> Int { size(varint: UInt64(number) << 3) }
}
