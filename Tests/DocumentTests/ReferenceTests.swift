import Foundation
import ProductSupport
import Testing
import VerneuilCore

/// Lists in the documents are those of the sources.
@Suite struct ReferenceTests {
    @Test func theConfigurationReferenceHasTheDecodersKeys() throws {
        // Every kind of target and policy once: keys are looked for where their object is.
        let everything = """
            {"replication_targets": [
                {"s3": {"region": "r", "chunk_bucket": "c", "manifest_bucket": "m"}}, {"directory": {"path": "/d"}},
                {"local": {"directory": "/l"}}, {"read_only": {"directory": "/o"}}],
             "snapshot_loading_policy": {"partial": {}}, "replication_pacing": {}}
            """
        let asked = try Configuration.keys(askedBy: Array(everything.utf8))
        #expect(asked.count > 25)
        let reference = try Document("docs/CONFIGURATION.md").text
        let documented = Set(reference.matches(of: #/(?m)^\| `([a-z0-9_.\[\]]+)` \|/#).map { String($0.output.1) })
        // An object's own line stands for its key.
        #expect(asked.subtracting(documented).sorted() == [], "not in docs/CONFIGURATION.md")
        #expect(documented.subtracting(asked).subtracting(Self.parameters).sorted() == [], "unknown to the decoder")
        #expect(Self.parameters.isSubset(of: documented))
    }

    /// Of a file name's query string.
    static let parameters: Set = ["verneuil_spooling_dir", "verneuil_spooling_dir_permissions", "verneuil_target"]

    @Test func thePromisesInTheReadmeNameTestsThatExist() throws {
        let promises = try #require(try Document("README.md").text.firstMatch(of: #/(?s)## What is promised(.*?)\n## /#)).output.1
        let rows = promises.matches(of: #/(?m)^\| (P[1-7]) \|.*\|(.*)\|$/#)
        #expect(rows.map { String($0.output.1) } == ["P1", "P2", "P3", "P4", "P5", "P6", "P7"])
        let tests = try Self.tests()
        for row in rows {
            let names = row.output.2.matches(of: #/`([^`]+)`/#).map { String($0.output.1) }.filter { !$0.hasPrefix("scripts/") }
            #expect(!names.isEmpty, "\(row.output.1) names no test")
            for name in names { #expect(tests.contains(name), "\(name)") }
        }
    }

    /// Each function is in its file, and is called in a file of the way: whoever follows it never has to search.
    @Test func theWayOfAPageInTheDesignIsThatOfTheSources() throws {
        let block = try #require(try Document("docs/DESIGN.md").blocks.first { $0.section == "The way of a page" })
        var steps: [(line: String, file: String, function: String)] = []
        for line in block.lines where line.contains(".swift") {
            let step = try #require(line.firstMatch(of: #/ ([A-Za-z0-9]+/[A-Za-z0-9]+\.swift) +([A-Za-z0-9_]+)$/#), "\(line)")
            steps.append((line, String(step.output.1), String(step.output.2)))
        }
        #expect(steps.count >= 28)
        let numbers = block.lines.compactMap { $0.firstMatch(of: #/^ {1,3}(\d+)  /#).flatMap { Int($0.output.1) } }
        #expect(numbers == Array(1...18))
        let sources = try Dictionary(uniqueKeysWithValues: Set(steps.map(\.file)).map {
            ($0, try String(contentsOfFile: "\(Products.package)/Sources/\($0)", encoding: .utf8))
        })
        for step in steps {
            #expect(sources[step.file]?.contains("func \(step.function)(") == true, "\(step.line)")
            // SQLite calls these.
            if step.function.hasPrefix("verneuil_"), step.function != "verneuil_linux_xWrite" { continue }
            let call = try Regex("[^A-Za-z0-9_]\(step.function)\\(")
            let isCalled = sources.values.contains { $0.replacing("func \(step.function)(", with: "").contains(call) }
            #expect(isCalled, "nobody on this way calls it: \(step.line)")
        }
    }

    /// In text, too: `Tracker.swift`.
    @Test func sourceFilesThatDocumentsNameAreThere() throws {
        var files: Set<String> = []
        for directory in ["Sources", "Tests", "Benchmarks", "Examples"] {
            let all = FileManager.default.enumerator(atPath: "\(Products.package)/\(directory)")?.compactMap { $0 as? String } ?? []
            files.formUnion(all.map { "\(directory)/\($0)" })
        }
        var count = 0
        for document in try Document.all() {
            for match in try Document(document).text.matches(of: #/[A-Za-z0-9+_/-]+\.(?:swift|c|h|py)\b/#) {
                let name = String(match.output)
                count += 1
                #expect(files.contains { $0 == name || $0.hasSuffix("/\(name)") } || ["Package.swift", "sqlite3.h"].contains(name), "\(document): \(name)")
            }
        }
        #expect(count >= 40)
    }

    @Test func linksBetweenDocumentsLeadSomewhere() throws {
        var (count, anchors) = (0, 0)
        for document in try Document.all() {
            let directory = URL(fileURLWithPath: "\(Products.package)/\(document)").deletingLastPathComponent()
            for link in try Document(document).text.matches(of: #/\]\(([^)#:\s]*)(?:#([^)]*))?\)/#) {
                let target = link.output.1.isEmpty ? "\(Products.package)/\(document)" : directory.appendingPathComponent(String(link.output.1)).path
                count += 1
                #expect(FileManager.default.fileExists(atPath: target), "\(document): \(link.output.1)")
                guard let anchor = link.output.2 else { continue }
                anchors += 1
                let text = try String(contentsOfFile: target, encoding: .utf8)
                #expect(Self.anchors(text).contains(String(anchor)), "\(document): \(link.output.1)#\(anchor)")
            }
        }
        #expect(count >= 40, "\(count) links, \(anchors) of them to sections")
    }

    @Test func everyBlockOfSwiftInTheDocumentationIsCompiled() throws {
        let compiled = try Self.sources("Tests/Support/hello-replication").joined(separator: "\n")
            .components(separatedBy: "\n").map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
        let comments = try FileManager.default.contentsOfDirectory(atPath: "\(Products.package)/Sources/Verneuil")
            .filter { $0.hasSuffix(".swift") }.map { "Sources/Verneuil/\($0)" }
        var count = 0
        for document in try Document.with("swift") + comments {
            let blocks = try document.hasSuffix(".swift") ? Self.commentBlocks(document) : Document(document).blocks.filter { $0.info == "swift" && $0.reason == nil }.map(\.lines)
            for block in blocks {
                count += 1
                let lines = block.map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
                let isThere = compiled.indices.contains { compiled[$0...].starts(with: lines) }
                #expect(isThere, "\(document): not in Tests/Support/hello-replication as it stands:\n\(block.joined(separator: "\n"))")
            }
        }
        #expect(count >= 6)
    }

    /// Of headings, as GitHub makes them.
    private static func anchors(_ markdown: String) -> [String] {
        markdown.matches(of: #/(?m)^#{1,6} +(.+)$/#).map { heading in
            String(heading.output.1.lowercased().filter { $0.isLetter || $0.isNumber || " -_".contains($0) }.map { $0 == " " ? "-" : $0 })
        }
    }

    // MARK: files

    /// Names of all test functions: those with `@Test` before them.
    static func tests() throws -> Set<String> {
        var names: Set<String> = []
        for source in try sources("Tests") {
            let pieces = source.components(separatedBy: "func ")
            for (before, piece) in zip(pieces, pieces.dropFirst()) {
                // Since the function before has ended.
                guard let mark = before.range(of: "@Test", options: .backwards), !before[mark.upperBound...].contains("\n    }\n") else { continue }
                let name = piece.hasPrefix("`") ? piece.dropFirst().prefix { $0 != "`" } : piece.prefix { $0 != "(" && $0 != "<" }
                names.insert(String(name))
            }
        }
        return names
    }

    static func sources(_ directory: String) throws -> [String] {
        let root = "\(Products.package)/\(directory)"
        let names = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
        return try names.filter { $0.hasSuffix(".swift") }.map { try String(contentsOfFile: "\(root)/\($0)", encoding: .utf8) }
    }

    /// ```swift in documentation comments.
    static func commentBlocks(_ file: String) throws -> [[String]] {
        var blocks: [[String]] = []
        var open: [String]?
        for line in try String(contentsOfFile: "\(Products.package)/\(file)", encoding: .utf8).components(separatedBy: "\n") {
            let trimmed = line.trimmingCharacters(in: .whitespaces)
            guard trimmed.hasPrefix("///") else { continue }
            let text = String(trimmed.dropFirst(3))
            if let block = open {
                if text.trimmingCharacters(in: .whitespaces) == "```" { blocks.append(block); open = nil } else { open = block + [text] }
            } else if text.trimmingCharacters(in: .whitespaces) == "```swift" {
                open = []
            }
        }
        return blocks
    }
}
