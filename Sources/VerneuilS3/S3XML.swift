/// As much of XML as S3's answers need: elements without attributes of
/// interest, found by name, with the five entities and numeric references.
enum S3XML {
    /// The text of the first element of that name, entities resolved. nil where there is none that is closed.
    static func text(of element: String, in document: Substring) -> String? {
        contents(of: element, in: document).map(unescape)
    }

    /// All elements of that name, inner markup as it is.
    static func all(_ element: String, in document: Substring) -> [Substring] {
        var found: [Substring] = []
        var rest = document
        while let inner = contents(of: element, in: rest) {
            found.append(inner)
            rest = document[inner.endIndex...]
        }
        return found
    }

    private static func contents(of element: String, in document: Substring) -> Substring? {
        // UTF-8 throughout: a Character may swallow what follows a '>'.
        let bytes = document.utf8
        var from = bytes.startIndex
        let open = Array("<\(element)".utf8)
        let close = Array("</\(element)>".utf8)
        while let start = find(open, in: bytes[from...]) {
            var end = bytes.index(start, offsetBy: open.count)
            guard end < bytes.endIndex else { return nil }
            let next = bytes[end]
            if next == UInt8(ascii: ">") || next == UInt8(ascii: " ") {
                guard let bracket = bytes[end...].firstIndex(of: UInt8(ascii: ">")) else { return nil }
                end = bytes.index(after: bracket)
                guard let stop = find(close, in: bytes[end...]) else { return nil }
                return document[end..<stop]
            }
            from = end
        }
        return nil
    }

    private static func find(_ pattern: [UInt8], in bytes: Substring.UTF8View) -> Substring.Index? {
        var from = bytes.startIndex
        while let start = bytes[from...].firstIndex(of: pattern[0]) {
            if bytes[start...].starts(with: pattern) { return start }
            from = bytes.index(after: start)
        }
        return nil
    }

    private static func unescape(_ text: Substring) -> String {
        guard text.utf8.contains(UInt8(ascii: "&")) else { return String(text) }
        var result = ""
        var rest = text
        while let ampersand = rest.firstIndex(of: "&") {
            result += rest[..<ampersand]
            let tail = rest[rest.index(after: ampersand)...]
            guard let semicolon = tail.firstIndex(of: ";"), let character = entity(tail[..<semicolon]) else {
                result.append("&")
                rest = tail
                continue
            }
            result.append(character)
            rest = tail[tail.index(after: semicolon)...]
        }
        return result + rest
    }

    private static func entity(_ name: Substring) -> Character? {
        switch name {
        case "lt": return "<"
        case "gt": return ">"
        case "amp": return "&"
        case "quot": return "\""
        case "apos": return "'"
        default:
            guard name.hasPrefix("#") else { return nil }
            let digits = name.dropFirst()
            let code = digits.hasPrefix("x") ? UInt32(digits.dropFirst(), radix: 16) : UInt32(digits)
            return code.flatMap(Unicode.Scalar.init).map(Character.init)
        }
    }
}
