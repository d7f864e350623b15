extension JSON {
    public static let null = JSON(.null)
    public static func bool(_ value: Bool) -> JSON { JSON(.bool(value)) }
    public static func number<T: BinaryInteger>(_ value: T) -> JSON { JSON(.number(String(value))) }
    public static func string(_ value: String) -> JSON { JSON(.string(value)) }
    public static func array(_ elements: [JSON]) -> JSON { JSON(.array(elements)) }
    public static func object(_ members: KeyValuePairs<String, JSON>) -> JSON {
        JSON(.object(members.map { Member(key: $0.key, keyOffset: 0, value: $0.value) }))
    }

    /// As text: indented by two spaces, keys in their order, no newline at the end.
    public var text: String {
        var out = ""
        write(to: &out, indent: 0)
        return out
    }

    /// A string with its quotes and escapes.
    public static func quoted(_ string: String) -> String {
        var out = "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20 || scalar.value == 0x7F:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        return out + "\""
    }

    private func write(to out: inout String, indent: Int) {
        switch value {
        case .null: out += "null"
        case .bool(let b): out += b ? "true" : "false"
        case .number(let text): out += text
        case .string(let s): out += JSON.quoted(s)
        case .array(let elements):
            JSON.write("[", elements, "]", to: &out, indent: indent) { element, out, indent in
                element.write(to: &out, indent: indent)
            }
        case .object(let members):
            JSON.write("{", members, "}", to: &out, indent: indent) { member, out, indent in
                out += "\(JSON.quoted(member.key)): "
                member.value.write(to: &out, indent: indent)
            }
        }
    }

    private static func write<T>(
        _ open: String, _ items: [T], _ close: String, to out: inout String, indent: Int,
        item: (T, inout String, Int) -> Void
    ) {
        out += open
        for (i, each) in items.enumerated() {
            out += i == 0 ? "\n" : ",\n"
            out += String(repeating: "  ", count: indent + 1)
            item(each, &out, indent + 1)
        }
        if !items.isEmpty { out += "\n" + String(repeating: "  ", count: indent) }
        out += close
    }
}
