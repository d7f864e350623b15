/// A JSON value (RFC 8259) that remembers where it stood, so that what is wrong
/// with it can be said as line and column. Strict: no comments, no trailing
/// commas, no repeated keys.
public struct JSON: Sendable, Hashable {
    public enum Value: Sendable, Hashable {
        case null
        case bool(Bool)
        /// As written; its grammar has been checked.
        case number(String)
        case string(String)
        case array([JSON])
        /// In the order in which they were written.
        case object([Member])
    }

    public struct Member: Sendable, Hashable {
        public var key: String
        /// Of the key's first quote, in bytes from the start of the text.
        public var keyOffset: Int
        public var value: JSON
    }

    public var value: Value
    /// Of its first character, in bytes from the start of the text; 0 where it was never text.
    public var offset: Int

    public init(_ value: Value, offset: Int = 0) {
        self.value = value
        self.offset = offset
    }

    /// Parses one value with nothing but white space around it.
    public init(parsing text: [UInt8]) throws(JSONError) {
        var parser = JSONParser(text: text)
        self = try parser.document()
    }

    /// For messages: what it is, and small values themselves.
    public var summary: String {
        switch value {
        case .null: "null"
        case .bool(let b): b ? "true" : "false"
        case .number(let text): "the number \(text.prefix(40))"
        case .string(let s): s.utf8.count <= 60 ? "the string \(JSON.quoted(s))" : "a string of \(s.utf8.count) bytes"
        case .array(let a): a.count == 1 ? "an array of 1 element" : "an array of \(a.count) elements"
        case .object(let o): o.isEmpty ? "an empty object" : "an object with \(JSON.quoted(o[0].key))"
        }
    }
}

/// Text that is not JSON: where, and why.
public struct JSONError: Error, Sendable, Hashable {
    /// In bytes from the start of the text.
    public var offset: Int
    public var reason: String
}

/// A place in a text as editors count: lines from 1, characters (code points) from 1.
public struct TextPosition: Sendable, Hashable, CustomStringConvertible {
    /// From 1.
    public var line: Int
    /// From 1.
    public var column: Int

    /// - Parameters:
    ///   - offset: in bytes from the start.
    ///   - text: UTF-8.
    public init(of offset: Int, in text: [UInt8]) {
        line = 1
        column = 1
        for byte in text.prefix(offset) {
            if byte == UInt8(ascii: "\n") {
                line += 1
                column = 1
            } else if byte & 0xC0 != 0x80 {
                column += 1
            }
        }
    }

    /// `line:column`.
    public var description: String { "\(line):\(column)" }
}
