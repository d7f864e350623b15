import VerneuilCore

/// A page for man(1), in the macros of man(7).
struct ManPage {
    private(set) var text = ""

    init(_ page: Manual.Page, of manual: Manual) {
        macro("TH", page.name.uppercased(), "1", "", "Verneuil \(Version.description)", "Verneuil")
        macro("SH", "NAME")
        line("\(page.name) \\- \(escaped(lowercaseFirst(page.abstract)))")
        macro("SH", "SYNOPSIS")
        line("\\fB\(escaped(page.synopsis))\\fR")
        macro("SH", "DESCRIPTION")
        line(escaped(page.abstract))
        var examples: [String] = []
        for block in page.discussion {
            switch block {
            case .text(let words):
                macro("PP")
                line(escaped(words))
            case .examples(let lines): examples += lines
            }
        }
        list("ARGUMENTS", page.arguments.filter(\.isPositional))
        list("OPTIONS", page.arguments.filter { !$0.isPositional })
        if page.name == manual.pages[0].name {
            macro("SH", "COMMANDS")
            for command in manual.pages.dropFirst() {
                macro("TP")
                line("\\fB\(escaped(command.name))\\fR(1)")
                line(escaped(command.abstract))
            }
        }
        macro("SH", "EXIT STATUS")
        line("0: done. 1: failed; standard error says why, and what to do. 2: the command line is wrong.")
        if page.name.hasSuffix("-verify") { line("3: nothing bad was seen, but it can't be told.") }
        if !examples.isEmpty {
            macro("SH", "EXAMPLES")
            macro("EX")
            for example in examples { line(escaped(example)) }
            macro("EE")
        }
        macro("SH", "SEE ALSO")
        let others = manual.pages.map(\.name).filter { $0 != page.name }
        line(others.map { "\\fB\(escaped($0))\\fR(1)" }.joined(separator: ", "))
    }

    private mutating func list(_ title: String, _ arguments: [Manual.Argument]) {
        if arguments.isEmpty { return }
        macro("SH", title)
        for argument in arguments {
            macro("TP")
            line(argument.forms.map { "\\fB\(escaped($0))\\fR" }.joined(separator: ", "))
            line(escaped(argument.text))
        }
    }

    private mutating func macro(_ name: String, _ arguments: String...) {
        text += ".\(name)" + arguments.map { " \"\($0.split(separator: "\"").joined(separator: "\\(dq"))\"" }.joined() + "\n"
    }

    private mutating func line(_ words: String) {
        // A line that begins like a request isn't one.
        text += (words.hasPrefix(".") || words.hasPrefix("'") ? "\\&" : "") + words + "\n"
    }

    private func escaped(_ words: String) -> String {
        words.reduce(into: "") { out, character in
            switch character {
            case "\\": out += "\\e"
            case "-": out += "\\-"
            case "…": out += "..."
            default: out.append(character)
            }
        }
    }

    private func lowercaseFirst(_ sentence: String) -> String {
        let words = sentence.last == "." ? sentence.dropLast() : sentence[...]
        return words.prefix(1).lowercased() + words.dropFirst()
    }
}
