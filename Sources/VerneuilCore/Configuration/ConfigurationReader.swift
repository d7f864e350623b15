/// Reads the members of one JSON object by key, and remembers which keys were
/// asked for: those are the known ones, so that `finish` can warn of all others.
struct ConfigurationReader {
    /// What all readers of one text share.
    final class Context {
        let source: String
        let text: [UInt8]
        var warnings: [String] = []
        /// Paths of all keys that were looked for, with `[]` for each index.
        var asked: Set<String> = []

        init(source: String, text: [UInt8]) {
            self.source = source
            self.text = text
        }

        func error(_ key: String, _ offset: Int, _ reason: String) -> ConfigurationError {
            ConfigurationError(source: source, position: TextPosition(of: offset, in: text), key: key, reason: reason)
        }
    }

    let context: Context
    /// The object's own path; empty at the root.
    let path: String
    let offset: Int
    private let members: [JSON.Member]
    private var known: Set<String> = []

    /// Fails where `json` is no object. `expected` says what should be there.
    init(_ json: JSON, path: String, expected: String, context: Context) throws(ConfigurationError) {
        guard case .object(let members) = json.value else {
            throw context.error(path, json.offset, "found \(json.summary), expected \(expected)")
        }
        self.context = context
        self.path = path
        self.offset = json.offset
        self.members = members
    }

    func path(of key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// nil where the key isn't there, or is null.
    mutating func value(_ key: String) -> JSON? {
        known.insert(key)
        context.asked.insert(path(of: key).replacing(#/\[[0-9]+\]/#, with: "[]"))
        guard let member = members.first(where: { $0.key == key }), member.value.value != .null else { return nil }
        return member.value
    }

    /// The value as `convert` understands it, which answers nil for what it
    /// doesn't accept; `expected` then says in the error what would do.
    mutating func optional<T>(
        _ key: String, _ expected: String, _ convert: (JSON.Value) -> T?
    ) throws(ConfigurationError) -> T? {
        guard let json = value(key) else { return nil }
        guard let converted = convert(json.value) else {
            throw context.error(path(of: key), json.offset, "found \(json.summary), expected \(expected)")
        }
        return converted
    }

    mutating func required<T>(
        _ key: String, _ expected: String, _ convert: (JSON.Value) -> T?
    ) throws(ConfigurationError) -> T {
        if let value = try optional(key, expected, convert) { return value }
        throw context.error(path(of: key), offset, "missing, expected \(expected)")
    }

    mutating func bool(_ key: String, default standard: Bool) throws(ConfigurationError) -> Bool {
        try optional(key, "true or false") {
            if case .bool(let b) = $0 { b } else { nil }
        } ?? standard
    }

    mutating func integer(
        _ key: String, in range: ClosedRange<Int>, default standard: Int
    ) throws(ConfigurationError) -> Int {
        try optional(key, "a whole number from \(range.lowerBound) to \(range.upperBound)") {
            $0.integer(in: range)
        } ?? standard
    }

    mutating func number(
        _ key: String, in range: ClosedRange<Double>, unit: String, default standard: Double
    ) throws(ConfigurationError) -> Double {
        try optional(key, "a number of \(unit) from \(range.lowerBound) to \(range.upperBound)") {
            if case .number(let text) = $0, let n = Double(text), range.contains(n) { n } else { nil }
        } ?? standard
    }

    /// Warns of the keys that nobody asked for.
    func finish() {
        for member in members where !known.contains(member.key) {
            let position = TextPosition(of: member.keyOffset, in: context.text)
            var warning = "\(context.source):\(position): \(path(of: member.key)): unknown key, ignored"
            if let near = nearest(to: member.key, among: known) { warning += "; did you mean \(JSON.quoted(near))?" }
            context.warnings.append(warning)
        }
    }
}

extension JSON.Value {
    func integer(in range: ClosedRange<Int>) -> Int? {
        if case .number(let text) = self, let n = Int(text), range.contains(n) { n } else { nil }
    }

    /// A string that says something and can be a C string.
    var text: String? {
        if case .string(let s) = self, Limits.isText(s) { s } else { nil }
    }
}

/// The candidate with the smallest edit distance, where that is small for the
/// word's length; ties go to the first in alphabetical order.
package func nearest(to word: String, among candidates: some Sequence<String>) -> String? {
    let bound = max(2, word.count / 3)
    return candidates.sorted()
        .map { (candidate: $0, distance: editDistance(Array(word.unicodeScalars.prefix(64)), Array($0.unicodeScalars))) }
        .filter { $0.distance <= bound }
        .min { $0.distance < $1.distance }?
        .candidate
}

/// Levenshtein's: insertions, deletions and replacements that turn `a` into `b`.
private func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int {
    var row = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var diagonal = row[0]
        row[0] = i + 1
        for (j, y) in b.enumerated() {
            let replaced = diagonal + (x == y ? 0 : 1)
            diagonal = row[j + 1]
            row[j + 1] = min(replaced, diagonal + 1, row[j] + 1)
        }
    }
    return row[b.count]
}
