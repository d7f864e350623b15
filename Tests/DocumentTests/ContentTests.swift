import Foundation
import ProductSupport
import Testing

/// What the documents must say, as far as words can tell.
@Suite struct ContentTests {
    @Test(arguments: [
        ("README.md", [
            "## Two commands", "scripts/demo", "scripts/test", "## A tour of two minutes", "## What is promised", "## What it costs",
            "docs/CONFIGURATION.md", "docs/OPERATIONS.md", "docs/RECOVERY.md", "docs/COMPARISON.md", "docs/CAVEATS.md", "docs/MIGRATING.md",
        ]),
        ("CHANGELOG.md", ["## 0.1.0"]),
        ("CONTRIBUTING.md", ["scripts/build", "scripts/test", "Benchmarks", "## The layering rule", "A file control", "A store's quirk"]),
        ("SECURITY.md", ["## What is trusted", "## Fingerprints are not keyed", "share a chunk bucket only between"]),
        ("LICENSE", ["MIT License", "Permission is hereby granted, free of charge", "WITHOUT WARRANTY OF ANY KIND"]),
        ("docs/OPERATIONS.md", ["## Buckets", "lifecycle rule", "## Capacity and cost", "## What to watch", "## What the log says"]),
        ("docs/RECOVERY.md", ["## The host is lost", "## The bucket is lost", "## The database is corrupt"]),
        ("docs/COMPARISON.md", ["As of ", "Litestream", "LiteFS", "## Sources"]),
        ("docs/MIGRATING.md", ["## Step by step", "## What is different", "## From WAL mode"]),
        ("docs/DESIGN.md", ["## The way of a page", "## Layers", "## Invariants"]),
        ("docs/HOSTS.md", ["The sqlite3 shell", "Python", "Perl", "PHP"]),
        ("Examples/GRDBReplication/README.md", ["DatabasePool"]),
        ("Sources/Verneuil/Verneuil.docc/GettingStarted.md", ["# Getting started"]),
        ("Sources/Verneuil/Verneuil.docc/Durability.md", ["promised"]),
        ("Sources/Verneuil/Verneuil.docc/Replicas.md", ["# "]),
        ("Sources/Verneuil/Verneuil.docc/Operations.md", ["# "]),
    ])
    func whatADocumentMustSayIsThere(document: String, phrases: [String]) throws {
        let text = try Document(document).text
        for phrase in phrases { #expect(text.contains(phrase), "\(document): \(phrase)") }
    }

    @Test func everyCaveatHasARemedyAndEveryMessageAMeaning() throws {
        let caveats = try Document("docs/CAVEATS.md").text.components(separatedBy: "\n").filter { $0.hasPrefix("| **") }
        #expect(caveats.count >= 15)
        let messages = try #require(try Document("docs/OPERATIONS.md").text.components(separatedBy: "\n## ").first { $0.hasPrefix("What the log says") })
            .components(separatedBy: "\n").filter { $0.hasPrefix("| `") }
        #expect(messages.count >= 30)
        for row in caveats + messages {
            let cells = row.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            #expect(cells.count == 2 && cells.allSatisfy { $0.count >= 8 }, "\(row)")
        }
    }

    /// Every function of the header has its contract above it, and is exported; nothing else is.
    @Test func theHeaderCarriesEachFunctionsContract() throws {
        let header = try String(contentsOfFile: "\(Products.package)/Sources/CVerneuilInterface/include/verneuil.h", encoding: .utf8)
        let functions = header.matches(of: /(?m)^(?:int|void|char \*)[ ]?(verneuil_[a-z_]+|sqlite3_[a-z_]+)\(/).map { ($0.range.lowerBound, String($0.output.1)) }
        let exported = try String(contentsOfFile: "\(Products.package)/Sources/VerneuilExtension/exports.map", encoding: .utf8)
            .matches(of: /(?m)^ +([a-z0-9_]+);$/).map { String($0.output.1) }
        #expect(functions.map(\.1).sorted() == exported.sorted() && functions.count == 7)
        for (place, name) in functions {
            let above = header[..<place]
            #expect(above.hasSuffix("*/\n"), "\(name): no comment directly above it")
            let comment = above.components(separatedBy: "/*").last ?? ""
            // What it takes, gives and owns; short ones say that NULL is fine.
            #expect(comment.count > 30 && (comment.contains("NULL") || comment.contains("SQLITE_")), "\(name): \(comment)")
        }
    }
}
