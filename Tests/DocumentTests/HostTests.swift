import ProductSupport
import Testing

/// docs/HOSTS.md: each host's lines are run by that host, as a file.
@Suite struct HostTests {
    static let programs = [
        "python": ["/usr/bin/python3"], "perl": ["perl"], "php": ["php"], "ruby": ["ruby"], "tcl": ["tclsh"], "sh": ["sh"],
    ]

    @Test func everyHostIsTried() throws {
        let sections = try Document("docs/HOSTS.md").blocks.filter { Self.programs[$0.info] != nil }.map(\.section)
        #expect(sections == ["The sqlite3 shell", "Python: sqlite3", "Python: apsw", "Perl: DBD::SQLite", "PHP", "Tcl"])
    }

    @Test(arguments: try Document("docs/HOSTS.md").blocks.filter { programs[$0.info] != nil }.map(\.section))
    func host(_ section: String) throws {
        let block = try #require(try Document("docs/HOSTS.md").blocks.first { $0.section == section && Self.programs[$0.info] != nil })
        let here = try Workspace()
        try here.write(Array((block.lines.joined(separator: "\n") + "\n").utf8), to: "lines")
        let program = try Program.run(
            ["timeout", "60"] + #require(Self.programs[block.info]) + ["lines"],
            environment: ["VERNEUIL_CONFIG": here.configuration(spool: true), "EXTENSION": Products.extension()],
            directory: here.path)
        // The flush's answer, then what the replica has.
        #expect(program.status == 0 && program.text == "1\nhello", "\(section): \(program)")
        #expect(here.files("store/manifests").count == 1)
    }
}
