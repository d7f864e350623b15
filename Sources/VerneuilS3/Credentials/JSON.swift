/// As much of JSON as credential documents need: an object of strings, numbers
/// and whatever else, from which strings are taken.
enum JSON {
    case string(String)
    case object([String: JSON])
    case array([JSON])
    case number(String)
    case bool(Bool)
    case null

    /// nil where `bytes` are not one JSON value.
    init?(_ bytes: [UInt8]) {
        var parser = Parser(rest: bytes[...])
        guard let value = parser.value(depth: 0) else { return nil }
        parser.skipSpace()
        guard parser.rest.isEmpty else { return nil }
        self = value
    }

    subscript(key: String) -> JSON? {
        if case .object(let members) = self { return members[key] }
        return nil
    }

    var text: String? {
        if case .string(let text) = self { return text }
        return nil
    }

    private struct Parser {
        var rest: ArraySlice<UInt8>

        mutating func skipSpace() {
            rest = rest.drop { $0 == 0x20 || $0 == 0x09 || $0 == 0x0A || $0 == 0x0D }
        }

        private mutating func take(_ byte: UInt8) -> Bool {
            skipSpace()
            guard rest.first == byte else { return false }
            rest = rest.dropFirst()
            return true
        }

        mutating func value(depth: Int) -> JSON? {
            guard depth < 32 else { return nil }
            skipSpace()
            switch rest.first {
            case UInt8(ascii: "\"")?:
                return string().map(JSON.string)
            case UInt8(ascii: "{")?:
                rest = rest.dropFirst()
                var members: [String: JSON] = [:]
                if take(UInt8(ascii: "}")) { return .object(members) }
                repeat {
                    skipSpace()
                    guard let key = string(), take(UInt8(ascii: ":")), let value = value(depth: depth + 1) else {
                        return nil
                    }
                    members[key] = value
                } while take(UInt8(ascii: ","))
                return take(UInt8(ascii: "}")) ? .object(members) : nil
            case UInt8(ascii: "[")?:
                rest = rest.dropFirst()
                var elements: [JSON] = []
                if take(UInt8(ascii: "]")) { return .array(elements) }
                repeat {
                    guard let value = value(depth: depth + 1) else { return nil }
                    elements.append(value)
                } while take(UInt8(ascii: ","))
                return take(UInt8(ascii: "]")) ? .array(elements) : nil
            default:
                let word = rest.prefix { $0 > 0x20 && $0 != UInt8(ascii: ",") && $0 != UInt8(ascii: "}") && $0 != UInt8(ascii: "]") }
                rest = rest.dropFirst(word.count)
                switch String(decoding: word, as: UTF8.self) {
                case "true": return .bool(true)
                case "false": return .bool(false)
                case "null": return .null
                case let number: return Double(number) == nil ? nil : .number(number)
                }
            }
        }

        private mutating func string() -> String? {
            guard rest.first == UInt8(ascii: "\"") else { return nil }
            rest = rest.dropFirst()
            var bytes: [UInt8] = []
            while let byte = rest.popFirst() {
                switch byte {
                case UInt8(ascii: "\""):
                    return String(validating: bytes, as: UTF8.self)
                case UInt8(ascii: "\\"):
                    guard let escape = rest.popFirst() else { return nil }
                    switch escape {
                    case UInt8(ascii: "n"): bytes.append(0x0A)
                    case UInt8(ascii: "r"): bytes.append(0x0D)
                    case UInt8(ascii: "t"): bytes.append(0x09)
                    case UInt8(ascii: "b"): bytes.append(0x08)
                    case UInt8(ascii: "f"): bytes.append(0x0C)
                    case UInt8(ascii: "u"):
                        guard let scalar = unicode() else { return nil }
                        bytes += Array(String(Character(scalar)).utf8)
                    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(escape)
                    default: return nil
                    }
                case 0..<0x20:
                    return nil
                default:
                    bytes.append(byte)
                }
            }
            return nil
        }

        private mutating func codeUnit() -> UInt32? {
            let digits = rest.prefix(4)
            guard digits.count == 4, let unit = UInt32(String(decoding: digits, as: UTF8.self), radix: 16) else {
                return nil
            }
            rest = rest.dropFirst(4)
            return unit
        }

        private mutating func unicode() -> Unicode.Scalar? {
            guard let high = codeUnit() else { return nil }
            guard (0xD800..<0xDC00).contains(high) else { return Unicode.Scalar(high) }
            guard rest.starts(with: Array("\\u".utf8)) else { return nil }
            rest = rest.dropFirst(2)
            guard let low = codeUnit(), (0xDC00..<0xE000).contains(low) else { return nil }
            return Unicode.Scalar(0x10000 + (high - 0xD800) << 10 + (low - 0xDC00))
        }
    }
}
