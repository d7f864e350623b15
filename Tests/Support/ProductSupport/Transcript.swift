import Foundation

/// What a document shows of a terminal: its blocks of ```console.
///
/// A line that begins with `$ ` is a command, lines with `> ` continue it, and all
/// others up to the next command are what it must print, standard error
/// included. There, … stands for any text.
public struct Transcript: Sendable {
    public struct Step: Sendable {
        public var command: String
        public var expected: String
        /// In the document.
        public var line: Int
        public init(command: String, expected: String, line: Int) {
            self.command = command
            self.expected = expected
            self.line = line
        }
    }
    public var steps: [Step] = []

    /// - Parameters:
    ///   - document: below the package's directory.
    ///   - section: a heading of level 2, without its marks; nil: the whole document.
    public init(_ document: String, section: String? = nil) throws {
        let blocks = try Document(document).blocks.filter {
            $0.info == "console" && $0.reason == nil && (section == nil || $0.section == section)
        }
        for block in blocks {
            for (i, line) in block.lines.enumerated() {
                if line.hasPrefix("$ ") {
                    steps.append(Step(command: String(line.dropFirst(2)), expected: "", line: block.line + 1 + i))
                } else if steps.isEmpty {
                    throw Malformed(document: document, line: block.line)
                } else if line.hasPrefix("> ") || line == ">" {
                    steps[steps.count - 1].command += "\n" + line.dropFirst(2)
                } else {
                    steps[steps.count - 1].expected += line + "\n"
                }
            }
        }
    }

    public struct Malformed: Error {
        var document: String
        var line: Int
    }

    public static func + (a: Transcript, b: Transcript) -> Transcript {
        var sum = a
        sum.steps += b.steps
        return sum
    }

    /// Runs all commands in one shell, where libverneuil_vfs.so is in the current
    /// directory and verneuilctl on PATH. Answers with what differs, in words.
    public func differences(in workspace: Workspace, environment: [String: String] = [:]) throws -> [String] {
        let tools = workspace.file("tools")
        try FileManager.default.createDirectory(atPath: tools, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: "\(tools)/verneuilctl", withDestinationPath: Products.verneuilctl())
        try FileManager.default.createSymbolicLink(
            atPath: workspace.file("libverneuil_vfs.so"), withDestinationPath: Products.extension())
        let mark = "=====\(UUID().uuidString)====="
        let script = steps.map { "\($0.command)\nprintf '%s\\n' '\(mark)'\n" }.joined()
        var environment = environment
        environment["PATH"] = "\(tools):\(ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin")"
        try workspace.write(Array("exec 2>&1\n\(script)".utf8), to: "tools/script.sh")
        let program = try Program.run(
            ["timeout", "120", "bash", "\(tools)/script.sh"], environment: environment, directory: workspace.path)
        let outputs = program.text.components(separatedBy: mark)
        var differences: [String] = []
        for (i, step) in steps.enumerated() {
            guard i < outputs.count - 1 else {
                differences.append("line \(step.line): \(step.command): the shell ended before it: \(program)")
                break
            }
            let found = outputs[i].trimmingCharacters(in: .newlines)
            let expected = step.expected.trimmingCharacters(in: .newlines)
            if !Self.matches(found, expected) {
                differences.append("line \(step.line): \(step.command)\nprinted:\n\(found)\nnot:\n\(expected)")
            }
        }
        return differences
    }

    static func matches(_ found: String, _ expected: String) -> Bool {
        let pattern = expected.components(separatedBy: "…").map(NSRegularExpression.escapedPattern(for:))
            .joined(separator: "(.|\n)*")
        return found.range(of: "^\(pattern)$", options: .regularExpression) != nil
    }
}
