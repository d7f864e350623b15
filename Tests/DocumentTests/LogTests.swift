import Foundation
import ProductSupport
import Testing

/// docs/OPERATIONS.md, "What the log says": all that the sources log as a warning or worse, and nothing that nobody logs.
@Suite struct LogTests {
    struct Message: CustomStringConvertible {
        var file: String
        var level: String
        /// As in the source, with its interpolations.
        var literal: String
        var description: String { "\(file): \(level): \(literal)" }
        /// What stands between the interpolations.
        var pieces: [String] {
            var pieces = [""], depth = 0
            var rest = Substring(literal)
            while let character = rest.popFirst() {
                if depth == 0, character == "\\", rest.first == "(" {
                    rest.removeFirst()
                    depth = 1
                    pieces.append("")
                } else if depth == 0 {
                    pieces[pieces.count - 1].append(character)
                } else if character == "(" {
                    depth += 1
                } else if character == ")" {
                    depth -= 1
                }
            }
            return pieces
        }
    }

    /// Those that say what somebody else has found: the rows that tell what it may be.
    static let handedOn: [String: [String]] = [
        "VerneuilCore/Engine.swift: warning: \\(warning)": ["unknown key, ignored", "nothing will be uploaded"],
        "verneuilctl/Context.swift: warning: \\(warning)": ["unknown key, ignored", "nothing will be uploaded"],
        "VerneuilExtension/CInterface.swift: error: \\(function): \\(error)": ["verneuil_configure", "verneuil_replication_info_for_db", "verneuil_replication_info_for_manifest"],
        "VerneuilReplica/ChunkSource.swift: warning: \\(store): \\(reason)": ["body of"],
        "VerneuilReplica/Report.swift: warning: \\(message)": [],
        "VerneuilReplication/Replicator.swift: error: \\(reason)": ["is in WAL mode"],
        "VerneuilVFS/SnapshotVFS.swift: warning: \\(message)": ["can't open", "there is no such object", "before fork(2)"],
    ]

    static func messages() throws -> [Message] {
        let root = "\(Products.package)/Sources"
        let files = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
        let call = /(?:[lL]ogger(?:\(label: "[^"]*"\))?|Report)\.(warning|error|critical|notice|info|log)\(\s*(?:level: ([^"\n]*),\s*)?"((?:[^"\\]|\\\((?:[^()]|\([^()]*\))*\)|\\.)*)"/
        return try files.filter { $0.hasSuffix(".swift") }.sorted().flatMap { file in
            try String(contentsOfFile: "\(root)/\(file)", encoding: .utf8).matches(of: call).map {
                Message(file: file, level: String($0.output.2 ?? $0.output.1), literal: String($0.output.3))
            }
        }
    }

    /// What stands in the first column.
    static func documented() throws -> [String] {
        let text = try Document("docs/OPERATIONS.md").text
        let section = try #require(text.firstMatch(of: #/(?s)## What the log says(.*?)\n## /#)).output.1
        return section.components(separatedBy: "\n").filter { $0.hasPrefix("| `") }.flatMap {
            $0.split(separator: "|")[0].matches(of: /`([^`]+)`/).map { String($0.output.1) }
        }
    }

    @Test func everyWarningAndErrorOfTheSourcesHasItsMeaningInOperations() throws {
        let documented = try Self.documented(), messages = try Self.messages()
        #expect(documented.count >= 30 && messages.count >= 40)
        for message in messages where message.level != "info" {
            if let rows = Self.handedOn[message.description] {
                for row in rows { #expect(documented.contains { $0.contains(row) }, "\(message): no row has \(row)") }
            } else {
                #expect(documented.contains { row in message.pieces.contains { $0.contains(row) } }, "\(message)")
            }
        }
        // And calls that are written in another way are none that the pattern misses.
        let calls = try ReferenceTests.sources("Sources").reduce(0) { $0 + $1.matches(of: /(?:[lL]ogger(?:\(label: "[^"]*"\))?|Report)\.(?:warning|error|critical|notice|info|log)\(/).count }
        #expect(calls == messages.count)
    }

    @Test func operationsExplainsNoMessageThatNobodyLogs() throws {
        let pieces = try Self.messages().flatMap(\.pieces), handedOn = Self.handedOn.values.joined()
        let sources = try ReferenceTests.sources("Sources").joined(separator: "\n")
        for row in try Self.documented() {
            let isLogged = pieces.contains { $0.contains(row) } || handedOn.contains { row.contains($0) }
            #expect(isLogged && sources.contains(row), "\(row)")
        }
    }
}
