import Foundation
import Testing

/// docs/SPOOL.md names a test for each rule and each guarantee: they exist, and the code cites the same numbers.
@Suite struct SpoolDocumentTests {
    static let package: URL = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { url.deleteLastPathComponent() }
        return url
    }()

    static func sources(_ directory: String) throws -> String {
        let root = package.appendingPathComponent(directory)
        let files = FileManager.default.enumerator(at: root, includingPropertiesForKeys: nil)
        var text = ""
        while let file = files?.nextObject() as? URL {
            if file.pathExtension == "swift" { text += try String(contentsOf: file, encoding: .utf8) }
        }
        return text
    }

    static let rules = (1...10).map { "R\($0)" } + (1...9).map { "S\($0)" }

    /// Rule, and the tests named in its row of the table.
    static func rows() throws -> [String: [String]] {
        let text = try String(contentsOf: package.appendingPathComponent("docs/SPOOL.md"), encoding: .utf8)
        var rows: [String: [String]] = [:]
        for line in text.split(separator: "\n") where line.hasPrefix("| ") {
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3, rules.contains(cells[0]) else { continue }
            // `name` `name`: every second piece is a name.
            rows[cells[0]] = cells[2].split(separator: "`").enumerated().compactMap { i, piece in
                piece.allSatisfy(\.isWhitespace) ? nil : String(piece)
            }
        }
        return rows
    }

    @Test func everyRuleNamesTestsThatExist() throws {
        let tests = try ReferenceTests.tests()
        let rows = try Self.rows()
        for rule in Self.rules {
            let names = try #require(rows[rule], "docs/SPOOL.md has no row for \(rule)")
            #expect(!names.isEmpty, "\(rule)")
            for name in names { #expect(tests.contains(name), "\(rule): there is no test \(name)") }
        }
    }

    @Test func theCodeCitesEveryRule() throws {
        let code = try Self.sources("Sources/VerneuilSpool") + Self.sources("Sources/VerneuilReplication")
        for rule in Self.rules {
            #expect(
                code.range(of: "\\b\(rule)\\b", options: .regularExpression) != nil, "no file of the spool mentions \(rule)")
        }
    }
}
