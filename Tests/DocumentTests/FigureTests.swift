import Foundation
import ProductSupport
import Testing
import VerneuilCore

/// Figures in documents are measured again, computed, or the same as where they come from.
@Suite struct FigureTests {
    private static func section(_ document: String, _ title: String) throws -> String {
        let parts = try Document(document).text.components(separatedBy: "\n## ")
        return try #require(parts.first { $0.hasPrefix(title) }, "\(document) has no section \(title)")
    }

    private func rows(_ text: String) -> [String] { text.components(separatedBy: "\n").filter { $0.hasPrefix("|") } }

    @Test func theReadmesTablesOfCostAreThoseOfTheBenchmarks() throws {
        let readme = try Self.section("README.md", "What it costs"), commits = try Self.section("Benchmarks/README.md", "Commits, measured on")
        #expect(rows(readme).count >= 10 && rows(readme) == rows(commits))
        let day = try #require(commits.firstMatch(of: /measured on (\d{4}-\d\d-\d\d)/)).output.1
        let system = try #require(commits.firstMatch(of: /Debian \d+, SQLite [\d.]+/)).output
        #expect(readme.contains(day) && readme.contains(system))
        // "some 0.05 ms": the largest extra, in µs, rounded up; the last column is the target.
        let cells = try #require(rows(commits).first { $0.hasPrefix("| extra") }).split(separator: "|").dropFirst().dropLast()
        let extra = cells.compactMap { Double($0.trimmingCharacters(in: .whitespaces)) }
        #expect(extra.count == 4)
        let said = try #require(Document("docs/COMPARISON.md").text.firstMatch(of: /commit itself .*some\s+([\d.]+) ms/)).output.1
        #expect(String(format: "%.2f", (try #require(extra.max()) / 10).rounded(.up) / 100) == said)
    }

    /// With the SQLite that they are said to be of.
    @Test(
        .enabled("another SQLite, with other calls") {
            let version = try #require(try FigureTests.section("Benchmarks/README.md", "Commits, measured on").firstMatch(of: /SQLite ([\d.]+)/)).output.1
            return try Program.run(["sqlite3", "--version"]).text.hasPrefix(version)
        })
    func theCountersOfACommitAreWhatIsCountedNow() throws {
        let table = try Self.section("Benchmarks/README.md", "Commits, measured on")
        // On tmpfs, as it says there: which calls are needed depends on the file system.
        let scratch = "/dev/shm/verneuil-figures-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: scratch, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: scratch) }
        let counted = try Program.run(["timeout", "120", Products.path("commit-counter"), Products.extension(), scratch, "1"])
        #expect(counted.status == 0, "\(counted)")
        for (name, row) in [("unix", "| unix VFS"), ("verneuil", "| with replication")] {
            let line = try #require(counted.text.split(separator: "\n").first { $0.hasPrefix(name) }, "\(counted)")
            let found = Dictionary(uniqueKeysWithValues: line.matches(of: /(\w+)=(\d+)/).map { (String($0.output.1), Int($0.output.2)) })
            let cells = try #require(rows(table).first { $0.hasPrefix(row) }).split(separator: "|").dropFirst()
                .map { Int($0.replacing(",", with: "").prefix { !"(".contains($0) }.trimmingCharacters(in: .whitespaces)) }
            #expect(cells == ["calls", "syncs", "read", "written", "hashed", "allocations"].map { found[$0] ?? -1 }, "\(row): \(line)")
        }
    }

    @Test func capacityAndCostAreComputed() throws {
        let text = try Self.section("docs/OPERATIONS.md", "Capacity and cost").replacing("\n", with: " ")
        /// The number that stands before, after or within some words.
        func number(_ pattern: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> Double {
            let regex = try Regex(pattern, as: (Substring, Substring).self)
            let found = try #require(text.firstMatch(of: regex), "no \(pattern)", sourceLocation: sourceLocation).output.1
            return try #require(Double(found.replacing(",", with: "")), sourceLocation: sourceLocation)
        }
        func rounded(_ value: Double, to unit: Double) -> Double { (value / unit).rounded() * unit }
        let pacing = Configuration.Pacing()
        let gib = 1073741824.0, chunks = gib / 65536, seconds = 86400.0

        // Formulas.
        #expect(try number(#"uploads \| one each ([\d.]+) s"#) == pacing.manifestInterval)
        #expect(try number(#"U ≤ ([\d,]+)"#) == (3600 / pacing.manifestInterval).rounded(.down))
        #expect(try number(#"16 bytes a chunk during a pass \((\d+) KiB per GiB\)"#) == 16 * chunks / 1024)
        #expect(try number(#"up to (\d+) chunks in flight"#) == Double(pacing.uploadsInFlight))
        let spread = try number(#"D / 64 KiB / ([\d.]+) a day"#)
        // Within 3 hours of its age less 0 to 15 % (docs/REPLICATION.md).
        let age = pacing.patrolMaxAge / seconds
        #expect((age * 0.925 - 0.125...age * 0.925).contains(spread))

        // The example.
        let uploads = try number(#": ([\d,]+) uploads · "#), requests = try number(#"uploads · (\d+) requests"#)
        let touches = try number(#"requests \+ ([\d,]+) touches"#), day = try number(#"= ([\d,]+) requests a day"#)
        let put = try number(#"\$([\d.]+) per 1,000 PUTs"#) / 1000, month = try number(#"\$([\d.]+) per GB and month"#)
        #expect(try uploads == seconds / number(#"(\d+) seconds between bursts"#))
        #expect(try requests == number(#"(\d+) chunks an upload"#) + 1)
        #expect(touches == rounded(chunks / spread, to: 10))
        // The same where it is said again; `aGiBIsTouchedAsOftenADayAsTheDocumentsSay` counts them.
        let again = try Self.section("docs/REPLICATION.md", "Requests")
        let row = try #require(again.firstMatch(of: /about ([\d,]+) COPY a day, less what is written anyway; with 1 day: about ([\d,]+) \|/))
        #expect(Double(row.output.1.replacing(",", with: "")) == touches)
        #expect(Double(row.output.2.replacing(",", with: "")) == rounded(chunks / (1 * 0.925 - 0.125), to: 10))
        #expect(day == uploads * requests + touches)
        #expect(try number(#"\$([\d.]+) a month;"#) == rounded(day * 30 * put, to: 0.1))
        let most = try number(#"Bounds: (\d+) requests a second"#)
        #expect(most == pacing.requestsPerSecond)
        #expect(try number(#"([\d.]+) million a day"#) == rounded(most * seconds / 1e6, to: 0.1))
        #expect(try number(#"a day, \$(\d+), if nothing"#) == rounded(most * seconds * put, to: 1))
        #expect(try number(#"as much as storing (\d+) KB for a month"#) == rounded(put / month * 1e6, to: 1))
        #expect(try number(#"\$([\d.]+) per 1,000 GETs"#) < put * 1000 / 12)
    }

    /// What the formulas count is counted at servers and stores by these.
    @Test func theTestsThatOperationsNamesExist() throws {
        let tests = try ReferenceTests.tests()
        let names = try Self.section("docs/OPERATIONS.md", "Capacity and cost").matches(of: /`([a-zA-Z]{25,})`/).map { String($0.output.1) }
        #expect(names.count >= 3)
        for name in names { #expect(tests.contains(name), "\(name)") }
    }
}
