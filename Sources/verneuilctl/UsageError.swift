import ArgumentParser
import VerneuilCore

/// What is wrong with a command line, in two lines: what, and where to read on.
enum UsageError {
    static func describe(_ error: any Error) -> String {
        if let word = unknownCommand(CommandLine.arguments.dropFirst()) {
            let near = nearest(to: word, among: commands).map { "; did you mean \($0)?" } ?? ""
            return "there is no command \(JSON.quoted(word))\(near)\n  See 'verneuilctl --help' for more information."
        }
        let lines = Verneuilctl.message(for: error).split(separator: "\n").map { $0.drop { $0 == " " } }
        // The parser lists what can be chosen one a line.
        let choices = lines.filter { $0.hasPrefix("- ") }.map { $0.dropFirst(2) }
        let text = lines.filter { !$0.hasPrefix("- ") }.joined(separator: " ") + (choices.isEmpty ? "" : " \(choices.joined(separator: ", "))")
        let hint = Verneuilctl.fullMessage(for: error).split(separator: "\n").last { $0.contains("See '") }
        return "\(text)\n\(hint ?? "  See 'verneuilctl --help' for more information.")"
    }

    private static let commands = Verneuilctl.configuration.subcommands.compactMap { $0.configuration.commandName } + ["help"]

    /// The word in the command's place, if there is no such command: the parser would complain of the command's options.
    static func unknownCommand(_ arguments: ArraySlice<String>) -> String? {
        var rest = arguments
        while let word = rest.popFirst() {
            if word == "--config" || word == "--log" { _ = rest.popFirst() } else if !word.hasPrefix("-") { return commands.contains(word) ? nil : word }
        }
        return nil
    }
}

extension ParsableArguments {
    /// An empty value is a variable that isn't set, and never meant.
    static func refuseEmpty(_ value: String?, _ name: String) throws {
        if value?.isEmpty == true { throw ValidationError("\(name) is empty: is a variable not set?") }
    }
}
