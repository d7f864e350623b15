import Foundation
import ProductSupport
import Testing

/// Help, man pages, completions and the reference: all from one source, and its examples work.
@Suite struct ManualTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private static let repository = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private func manual() throws -> String {
        let program = try here.verneuilctl("generate-manual", "--markdown")
        try #require(program.status == 0, "\(program)")
        return String(decoding: program.output, as: UTF8.self)
    }

    @Test func theReferenceIsWhatTheToolSays() throws {
        let file = Self.repository.appendingPathComponent("docs/VERNEUILCTL.md")
        let found = try String(contentsOf: file, encoding: .utf8)
        #expect(
            try found == manual(),
            "docs/VERNEUILCTL.md is out of date: .build/release/verneuilctl generate-manual --markdown >docs/VERNEUILCTL.md")
    }

    /// Every line that help shows to be typed, as it is but for the places, and in the order of the manual: they build on each other.
    @Test func theExamplesWork() throws {
        let root = here.file("root")
        for directory in ["srv/app", "etc", "var/spool/verneuil"] {
            try FileManager.default.createDirectory(atPath: "\(root)/\(directory)", withIntermediateDirectories: true)
        }
        #expect(chmod("\(root)/var/spool/verneuil", 0o700) == 0)
        try here.write(Array(here.configuration().utf8), to: "root/etc/verneuil.json")
        #expect(try here.sqlite("root/srv/app/app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (1)").status == 0)
        let host = try Program.run(["head", "-n1", "/etc/hostname"]).text

        var examples: [String] = []
        var isExample = false
        for line in try manual().split(separator: "\n") {
            if line == "```sh" { isExample = true } else if line.hasPrefix("```") { isExample = false } else if isExample { examples.append(String(line)) }
        }
        #expect(examples.count >= 10, "\(examples)")
        // What is stored must be there first.
        examples.sort { a, b in a.contains(" sync ") && !b.contains(" sync ") }
        #expect(examples[0].contains(" sync "))
        for example in examples {
            var line = example.replacing("db1.example.com", with: host)
            for place in ["/srv/app", "/etc/verneuil.json", "/var/spool/verneuil"] { line = line.replacing(place, with: "\(root)\(place)") }
            let isService = line.contains("--watch")
            if isService { line = "timeout --preserve-status -s TERM 2 \(line)" }
            let program = try Program.run(
                ["bash", "-euc", line],
                environment: [
                    "VERNEUIL_CONFIG": "@\(root)/etc/verneuil.json",
                    "PATH": "\(URL(fileURLWithPath: try Products.verneuilctl()).deletingLastPathComponent().path):/usr/bin:/bin",
                ], directory: "\(root)/srv/app")
            #expect(program.status == 0, "\(line): \(program)")
            // A restore doesn't replace what another has just made without being told.
            try? FileManager.default.removeItem(atPath: "\(root)/srv/app/restored.db")
        }
    }

    @Test func everyCommandHasAnExample() throws {
        let sections = try manual().components(separatedBy: "\n## ").filter { $0.hasPrefix("verneuilctl") }
        #expect(sections.count >= 8)
        for section in sections { #expect(section.contains("```sh\n"), "\(section.prefix(40))") }
    }

    @Test func manPagesAreWellFormed() throws {
        #expect(try here.verneuilctl("generate-manual", "--out", "man1").status == 0)
        let pages = here.files("man1")
        #expect(pages.contains("verneuilctl.1") && pages.contains("verneuilctl-verify.1") && pages.count >= 8)
        for page in pages {
            let text = String(decoding: try here.bytes("man1/\(page)"), as: UTF8.self)
            #expect(text.hasPrefix(".TH \"\(page.dropLast(2).uppercased())\" \"1\""))
            for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
                #expect(text.contains(".SH \"\(section)\"\n"), "\(page): \(section)")
            }
            // Nothing that a formatter would take for a request of its own, or lose.
            for line in text.split(separator: "\n") where line.hasPrefix(".") {
                #expect(line.prefixMatch(of: /\.(TH|SH|PP|TP|EX|EE)( |$)/) != nil, "\(page): \(line)")
            }
        }
    }

    @Test(arguments: [("bash", ["bash", "-n"]), ("zsh", []), ("fish", [])])
    func completionsAreScripts(shell: String, check: [String]) throws {
        let program = try here.verneuilctl("--generate-completion-script", shell)
        #expect(program.status == 0 && program.text.contains("integrity-check"), "\(shell)")
        guard !check.isEmpty else { return }
        try here.write(program.output, to: "completion")
        #expect(try Program.run(check + [here.file("completion")]).status == 0)
    }

    /// Each member that the reference names comes, and no other.
    @Test func whatJSONHasIsDocumented() throws {
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)", "INSERT INTO t SELECT randomblob(60000) FROM generate_series(1, 4)").status == 0)
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        let bad = "{\"replication_targets\": [{\"directory\": {\"path\": \"\(here.file("store"))\"}}, {\"directory\": {\"path\": \"\(here.file("gone"))\"}}]}"
        let runs: [(command: String, lines: [[String]])] = [
            ("restore", [["restore", "--source-path", "app.db", "--out", "r.db", "--json"]]),
            ("manifest", [["manifest", "app.db", "--json"]]),
            ("manifest-name", [["manifest-name", "app.db", "--json"]]),
            ("verify", [["verify", "--source-path", "app.db", "--json"], ["verify", "--all", "--json"]]),
            ("doctor", [["doctor", "--json"]]),
        ]
        let reference = try manual()
        for run in runs {
            let row = try #require(reference.split(separator: "\n").first { $0.hasPrefix("| `\(run.command) --") }, "\(run.command)")
            // What stands in parentheses are values.
            let shape = row.split(separator: "|")[1].replacing(#/\([^)]*\)/#, with: "")
            let documented = Set(shape.matches(of: #/`([a-z_]+)`/#).map { String($0.output.1) })
            var found = Set<String>()
            for words in run.lines {
                let program = try Program.run(
                    [Products.verneuilctl()] + words, environment: ["VERNEUIL_CONFIG": bad], directory: here.path)
                collect(try JSONSerialization.jsonObject(with: Data(program.output)), &found)
            }
            #expect(found == documented, "\(run.command): \(found.symmetricDifference(documented).sorted())")
        }
    }

    /// The same of `status`, whose row names what is within its members in parentheses; no upload is under way.
    @Test func whatStatusHasIsDocumented() throws {
        try here.write([1], to: "file")
        let config = here.configuration(spool: true, store: "file/below")
        let written = try here.extended("file:app.db?vfs=verneuil", "CREATE TABLE t(x)", "PRAGMA verneuil_flush_replication_data", config: config)
        #expect(written.status == 0 && written.text == "0", "\(written)")
        let row = try #require(try manual().split(separator: "\n").first { $0.hasPrefix("| `status --") })
        let documented = Set(row.split(separator: "|")[1].matches(of: #/`([a-z_]+)`/#).map { String($0.output.1) })
        var found = Set<String>()
        collect(try JSONSerialization.jsonObject(with: Data(try here.verneuilctl("status", "--json", config: config).output)), &found)
        #expect(found.union(["done", "total"]) == documented, "\(found.symmetricDifference(documented).sorted())")
    }

    /// Names are fixed: by those of the original, and by the users of this one.
    @Test(arguments: [
        ("verneuilctl", ["--config", "--log", "--help", "--version"]),
        ("verneuilctl restore", ["--manifest", "--hostname", "--source-path", "--out"]),
        ("verneuilctl manifest", ["source", "--hostname", "--out", "--json"]),
        ("verneuilctl manifest-name", ["source", "--hostname"]),
        ("verneuilctl flush", ["spooling-dir", "--watch"]),
        ("verneuilctl sync", ["source", "--optimize"]),
        ("verneuilctl shell", ["--manifest", "--hostname", "--source-path", "--executable", "--vfs", "arguments"]),
        ("verneuilctl verify", ["--source-path", "--all", "--deep", "--against", "--integrity-check", "--json"]),
        ("verneuilctl doctor", ["database", "--json"]),
        ("verneuilctl status", ["spooling-dir", "--json"]),
    ])
    func optionsKeepTheirNames(command: String, options: [String]) throws {
        let section = try #require(manual().components(separatedBy: "\n## ").first { $0.hasPrefix("\(command)\n") })
        for option in options { #expect(section.contains(try Regex("(?m)^\\|.*`\(option)[ `].*\\|")), "\(command): \(option)") }
    }

    private func collect(_ value: Any, _ keys: inout Set<String>) {
        if let object = value as? [String: Any] {
            keys.formUnion(object.keys)
            for member in object.values { collect(member, &keys) }
        } else if let list = value as? [Any] {
            for element in list { collect(element, &keys) }
        }
    }
}
