import VerneuilCore

/// What the commands say of themselves, as the argument parser dumps it.
struct Manual {
    /// A command, or the tool itself.
    struct Page {
        /// As the page's file is called: "verneuilctl-restore".
        var name: String
        /// As it is typed: "verneuilctl restore".
        var command: String
        var abstract: String
        var discussion: [Block]
        var arguments: [Argument]
    }
    struct Argument {
        /// "--out <file>", "-o <file>": as they are typed; for a positional one its place holder.
        var forms: [String]
        var isPositional: Bool
        var isOptional: Bool
        var isRepeating: Bool
        var abstract: String
        var values: [String]
        /// Empty where there is none.
        var fallback: String
        /// Whether the tool itself has it too.
        var isGlobal = false
    }
    /// A paragraph, or lines to be typed.
    enum Block {
        case text(String)
        case examples([String])
    }

    /// The tool itself, then its commands in their order.
    var pages: [Page]

    init(dump: String) throws {
        guard let json = try? JSON(parsing: Array(dump.utf8)), let root = json["command"] else {
            throw Failure("the argument parser's description of the commands is not as expected")
        }
        let tool = Page(root, under: nil)
        let global = Set(tool.arguments.flatMap(\.forms))
        var commands = root.elements("subcommands").filter { $0.isShown }.map { Page($0, under: tool.name) }
        for c in commands.indices where commands[c].command != "verneuilctl help" {
            for a in commands[c].arguments.indices {
                commands[c].arguments[a].isGlobal = commands[c].arguments[a].forms.allSatisfy(global.contains)
            }
        }
        pages = [tool] + commands.filter { !$0.name.hasSuffix("-help") }
    }
}

extension Manual.Page {
    fileprivate init(_ json: JSON, under tool: String?) {
        let own = json.text("commandName")
        name = tool.map { "\($0)-\(own)" } ?? own
        command = tool.map { "\($0) \(own)" } ?? own
        abstract = json.text("abstract")
        arguments = []
        for argument in json.elements("arguments").filter({ $0.isShown }).map(Manual.Argument.init) {
            // A flag and its negation are one.
            if let last = arguments.last?.forms.first, argument.forms == ["--no-\(last.dropFirst(2))"] {
                arguments[arguments.count - 1].forms += argument.forms
            } else {
                arguments.append(argument)
            }
        }
        discussion = []
        for line in json.text("discussion").split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("  ") {
                let example = String(line.drop { $0 == " " })
                if case .examples(let lines)? = discussion.last {
                    discussion[discussion.count - 1] = .examples(lines + [example])
                } else {
                    discussion.append(.examples([example]))
                }
            } else if !line.isEmpty {
                discussion.append(.text(String(line)))
            }
        }
    }

    var synopsis: String {
        let words = arguments.filter { !$0.isGlobal }.map { argument in
            let long = argument.forms.filter { $0.hasPrefix("--") }
            let word = argument.isPositional ? "<\(argument.forms[0])>" : (long.isEmpty ? argument.forms : long).joined(separator: " | ")
            return (argument.isOptional ? "[\(word)]" : word) + (argument.isRepeating ? " ..." : "")
        }
        return ([command] + words).joined(separator: " ")
    }
}

extension Manual.Argument {
    fileprivate init(_ json: JSON) {
        let kind = json.text("kind")
        let value = json.text("valueName")
        isPositional = kind == "positional"
        isOptional = json["isOptional"]?.value == .bool(true)
        isRepeating = json["isRepeating"]?.value == .bool(true)
        abstract = json.text("abstract")
        values = json.elements("allValues").compactMap { if case .string(let text) = $0.value { text } else { nil } }
        fallback = json.text("defaultValue")
        // Of flags, only one that can be negated has a default worth a word.
        if kind == "flag", !fallback.hasPrefix("--") { fallback = "" }
        if isPositional {
            forms = [value]
        } else {
            forms = json.elements("names").map { name in
                (name.text("kind") == "short" ? "-" : "--") + name.text("name") + (kind == "option" ? " <\(value)>" : "")
            }
        }
    }

    /// What it does, with its values and its default.
    var text: String {
        var text = abstract
        if !values.isEmpty { text += " (\(values.joined(separator: ", ")))" }
        if !fallback.isEmpty { text += " (default: \(fallback))" }
        return text
    }
}

extension JSON {
    fileprivate subscript(key: String) -> JSON? {
        guard case .object(let members) = value else { return nil }
        return members.first { $0.key == key }?.value
    }
    fileprivate func text(_ key: String) -> String {
        if case .string(let text)? = self[key]?.value { text } else { "" }
    }
    fileprivate func elements(_ key: String) -> [JSON] {
        if case .array(let elements)? = self[key]?.value { elements } else { [] }
    }
    fileprivate var isShown: Bool { self["shouldDisplay"]?.value != .bool(false) }
}
