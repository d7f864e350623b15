import Foundation

/// A Markdown file of the package, as far as tests look at it.
public struct Document: Sendable {
    public struct Block: Sendable {
        /// What follows the three backticks.
        public var info: String
        /// The heading of level 2 that it stands below.
        public var section: String
        /// Of its first line of backticks.
        public var line: Int
        public var lines: [String]
        /// Why no test runs it, where a comment directly above says so: `<!-- not run: REASON -->`.
        public var reason: String?
    }
    public var text: String
    public var blocks: [Block] = []
    /// The headings of level 2, in their order.
    public var sections: [String] = []
    /// Lines of comments that give a reason, and stand above no block.
    public var idleReasons: [Int] = []

    public init(_ name: String) throws {
        self.init(text: try String(contentsOfFile: "\(Products.package)/\(name)", encoding: .utf8))
    }

    public init(text: String) {
        self.text = text
        var section = ""
        var open: Block?
        var reason: (text: String, line: Int)?
        for (i, line) in text.components(separatedBy: "\n").enumerated() {
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            if var block = open {
                if trimmed == "```" {
                    blocks.append(block)
                    open = nil
                } else {
                    block.lines.append(line)
                    open = block
                }
            } else if trimmed.hasPrefix("```") {
                open = Block(info: String(trimmed.dropFirst(3)), section: section, line: i + 1, lines: [], reason: reason?.text)
                reason = nil
            } else if line.hasPrefix("## ") {
                section = String(line.dropFirst(3))
                sections.append(section)
            }
            guard open == nil, trimmed != "```" else { continue }
            if let reason { idleReasons.append(reason.line) }
            reason = trimmed.wholeMatch(of: /<!-- not run: (.+) -->/).map { (String($0.output.1), i + 1) }
        }
        // One that was never closed is none that anybody runs.
        if let open { blocks.append(Block(info: "never closed", section: open.section, line: open.line, lines: open.lines)) }
    }

    /// All Markdown files of the package, by their paths in it.
    public static func all() throws -> [String] {
        let files = FileManager.default.enumerator(atPath: Products.package)
        var names: [String] = []
        while let name = files?.nextObject() as? String {
            if (name as NSString).lastPathComponent.hasPrefix(".") { files?.skipDescendants() } else if name.hasSuffix(".md") { names.append(name) }
        }
        return names.sorted()
    }

    /// The files that have a block of this kind which is to be run.
    public static func with(_ info: String) throws -> [String] {
        try all().filter { try Document($0).blocks.contains { $0.info == info && $0.reason == nil } }
    }
}
