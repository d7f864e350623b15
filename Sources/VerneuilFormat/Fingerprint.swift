/// A pair of 64-bit UMASH values (FORMAT 3): what a chunk, a header or a list is
/// known by. 128 bits together; one of them alone proves nothing.
public struct Fingerprint: Hashable, Sendable {
    public var primary: UInt64
    public var secondary: UInt64

    public init(primary: UInt64, secondary: UInt64) {
        self.primary = primary
        self.secondary = secondary
    }

    /// The key of the chunk with this fingerprint (FORMAT 4): 16 hexadecimal
    /// digits, the three characters `%2F`, 16 digits. The `%2F` is literal: on the
    /// wire its `%` is percent-encoded once more.
    public var chunkName: String {
        String(unsafeUninitializedCapacity: 35) { buffer in
            Hex.write(primary, to: buffer, at: 0)
            buffer[16] = UInt8(ascii: "%")
            buffer[17] = UInt8(ascii: "2")
            buffer[18] = UInt8(ascii: "F")
            Hex.write(secondary, to: buffer, at: 19)
            return 35
        }
    }

    /// The inverse of `chunkName`; nil for any other string.
    public init?(chunkName: String) {
        let name = Array(chunkName.utf8)
        guard name.count == 35, name[16] == UInt8(ascii: "%"), name[17] == UInt8(ascii: "2"),
            name[18] == UInt8(ascii: "F"),
            let primary = Hex.parse(name[..<16]), let secondary = Hex.parse(name[19...])
        else { return nil }
        self.init(primary: primary, secondary: secondary)
    }
}

/// Lower-case hexadecimal numbers of fixed width.
enum Hex {
    private static func digit(_ value: UInt64) -> UInt8 {
        let v = UInt8(truncatingIfNeeded: value & 15)
        return v < 10 ? 0x30 + v : 0x61 - 10 + v
    }

    /// The last `width` digits of `value`.
    static func write(_ value: UInt64, width: Int = 16, to buffer: UnsafeMutableBufferPointer<UInt8>, at start: Int) {
        for i in 0..<width {
            buffer[start + i] = digit(value >> UInt64(4 * (width - 1 - i)))
        }
    }

    static func string(_ value: UInt64, width: Int = 16) -> String {
        String(unsafeUninitializedCapacity: width) { buffer in
            write(value, width: width, to: buffer, at: 0)
            return width
        }
    }

    /// Up to 16 lower-case digits and nothing else.
    static func parse(_ digits: ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for c in digits {
            let d: UInt8
            switch c {
            case 0x30...0x39: d = c - 0x30
            case 0x61...0x66: d = c - 0x61 + 10
            default: return nil
            }
            value = value << 4 | UInt64(d)
        }
        return value
    }
}
