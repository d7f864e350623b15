/// Recursive descent over bytes. One pass; strings alone are copied.
struct JSONParser {
    let text: [UInt8]
    var at = 0
    var depth = 0
    /// A bound for the recursion below; configurations are four deep.
    static let maximumDepth = 64

    init(text: [UInt8]) { self.text = text }

    mutating func document() throws(JSONError) -> JSON {
        if text.starts(with: [0xEF, 0xBB, 0xBF]) { throw failure("a byte order mark is not JSON: save the file without it") }
        skipWhitespace()
        if at == text.count { throw failure("the text is empty") }
        let root = try value()
        skipWhitespace()
        if at < text.count { throw failure("\(found()) after the end of the value") }
        return root
    }

    private mutating func value() throws(JSONError) -> JSON {
        let start = at
        switch peek {
        case UInt8(ascii: "{"): return JSON(.object(try members()), offset: start)
        case UInt8(ascii: "["): return JSON(.array(try elements()), offset: start)
        case UInt8(ascii: "\""): return JSON(.string(try string()), offset: start)
        case let byte? where byte == UInt8(ascii: "-") || isDigit(byte):
            return JSON(.number(try number()), offset: start)
        case UInt8(ascii: "t") where accept("true"): return JSON(.bool(true), offset: start)
        case UInt8(ascii: "f") where accept("false"): return JSON(.bool(false), offset: start)
        case UInt8(ascii: "n") where accept("null"): return JSON(.null, offset: start)
        default: throw failure("\(found()) where a value is expected")
        }
    }

    private mutating func members() throws(JSONError) -> [JSON.Member] {
        try enter()
        defer { depth -= 1 }
        var members: [JSON.Member] = []
        var seen: Set<String> = []
        if try closes("}") { return members }
        while true {
            let start = at
            guard peek == UInt8(ascii: "\"") else { throw failure("\(found()) where a key in double quotes is expected") }
            let key = try string()
            if !seen.insert(key).inserted { throw JSONError(offset: start, reason: "the key \(JSON.quoted(key)) is given twice") }
            skipWhitespace()
            if !accept(":") { throw failure("\(found()) where a colon is expected after the key \(JSON.quoted(key))") }
            skipWhitespace()
            members.append(JSON.Member(key: key, keyOffset: start, value: try value()))
            if try !another(before: "}") { return members }
        }
    }

    private mutating func elements() throws(JSONError) -> [JSON] {
        try enter()
        defer { depth -= 1 }
        var elements: [JSON] = []
        if try closes("]") { return elements }
        while true {
            elements.append(try value())
            if try !another(before: "]") { return elements }
        }
    }

    /// Steps over an opening bracket.
    private mutating func enter() throws(JSONError) {
        depth += 1
        if depth > Self.maximumDepth { throw failure("more than \(Self.maximumDepth) values nested in one another") }
        at += 1
    }

    private mutating func closes(_ bracket: StaticString) throws(JSONError) -> Bool {
        skipWhitespace()
        return accept(bracket)
    }

    /// true after a comma, with the next element ahead; false after the closing bracket.
    private mutating func another(before bracket: StaticString) throws(JSONError) -> Bool {
        skipWhitespace()
        if accept(bracket) { return false }
        let comma = at
        if !accept(",") { throw failure("\(found()) where a comma or \(bracket) is expected") }
        skipWhitespace()
        if peek == bracket.utf8Start.pointee { throw JSONError(offset: comma, reason: "a comma before \(bracket)") }
        return true
    }

    private mutating func number() throws(JSONError) -> String {
        let start = at
        _ = accept("-")
        if !accept("0") { try digits() } else if let byte = peek, isDigit(byte) { throw failure("a number with a leading zero") }
        if accept(".") { try digits() }
        if accept("e") || accept("E") {
            if !accept("+") { _ = accept("-") }
            try digits()
        }
        return String(decoding: text[start..<at], as: UTF8.self)
    }

    private mutating func digits() throws(JSONError) {
        guard let byte = peek, isDigit(byte) else { throw failure("\(found()) where a digit is expected") }
        while let byte = peek, isDigit(byte) { at += 1 }
    }

    private func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }

    private mutating func string() throws(JSONError) -> String {
        let start = at
        at += 1
        var bytes: [UInt8] = []
        while let byte = peek {
            switch byte {
            case UInt8(ascii: "\""):
                at += 1
                guard let string = String(validating: bytes, as: UTF8.self) else {
                    throw JSONError(offset: start, reason: "a string that is not UTF-8")
                }
                return string
            case UInt8(ascii: "\\"): try escape(into: &bytes)
            case 0..<0x20: throw failure("\(found()) inside a string: write it as an escape")
            default:
                bytes.append(byte)
                at += 1
            }
        }
        throw JSONError(offset: start, reason: "a string without its closing quote")
    }

    private mutating func escape(into bytes: inout [UInt8]) throws(JSONError) {
        let start = at
        at += 1
        let escaped = peek
        at += 1
        switch escaped {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): bytes.append(text[at - 1])
        case UInt8(ascii: "b"): bytes.append(0x08)
        case UInt8(ascii: "f"): bytes.append(0x0C)
        case UInt8(ascii: "n"): bytes.append(0x0A)
        case UInt8(ascii: "r"): bytes.append(0x0D)
        case UInt8(ascii: "t"): bytes.append(0x09)
        case UInt8(ascii: "u"):
            var code = hexadecimal()
            if let high = code, high & 0xFC00 == 0xD800, accept("\\u"), let low = hexadecimal(), low & 0xFC00 == 0xDC00 {
                code = 0x10000 + (high & 0x3FF) << 10 + low & 0x3FF
            }
            guard let code, let scalar = Unicode.Scalar(code) else { fallthrough }
            bytes += Array(String(Character(scalar)).utf8)
        default: throw JSONError(offset: start, reason: "an unknown escape in a string")
        }
    }

    /// Four digits; nil, and nothing consumed, where there aren't.
    private mutating func hexadecimal() -> UInt32? {
        guard at + 4 <= text.count else { return nil }
        let digits = text[at..<at + 4]
        guard digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }) else { return nil }
        at += 4
        return UInt32(String(decoding: digits, as: UTF8.self), radix: 16)
    }

    private mutating func skipWhitespace() {
        while let byte = peek, byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 { at += 1 }
    }

    private var peek: UInt8? { at < text.count ? text[at] : nil }

    private mutating func accept(_ expected: StaticString) -> Bool {
        let wanted = UnsafeBufferPointer(start: expected.utf8Start, count: expected.utf8CodeUnitCount)
        guard text[at...].starts(with: wanted) else { return false }
        at += wanted.count
        return true
    }

    private func failure(_ reason: String) -> JSONError { JSONError(offset: at, reason: reason) }

    /// What stands here, for messages.
    private func found() -> String {
        guard let byte = peek else { return "the end of the text" }
        if byte == UInt8(ascii: "/") || byte == UInt8(ascii: "#") { return "a comment, which JSON doesn't have," }
        if byte == UInt8(ascii: "'") { return "a single quote (JSON's are double)" }
        if byte < 0x20 || byte == 0x7F { return "the control character \(byte)" }
        let rest = String(decoding: text[at...].prefix(16), as: UTF8.self)
        return rest.first.map { "'\($0)'" } ?? "nothing"
    }
}
