import ProductSupport
import Testing

/// docs/HOSTS.md: each host's lines are run by that host, as a file.
@Suite struct HostTests {
    static let programs = [
        "python": ["/usr/bin/python3"], "perl": ["perl"], "php": ["php"], "ruby": ["ruby"], "tcl": ["tclsh"], "sh": ["sh"],
    ]

    /// Debian's.
    static let packages = [
        "The sqlite3 shell": ["sqlite3"], "Python: sqlite3": ["python3"], "Python: apsw": ["python3-apsw"],
        "Python: SQLAlchemy": ["python3-sqlalchemy"], "Perl: DBD::SQLite": ["libdbd-sqlite3-perl"], "PHP": ["php-cli", "php-sqlite3"],
        "Ruby: sqlite3": ["ruby-sqlite3"], "Tcl": ["tcl", "libsqlite3-tcl"],
    ]

    @Test func everyHostIsTried() throws {
        let sections = try Document("docs/HOSTS.md").blocks.filter { Self.programs[$0.info] != nil }.map(\.section)
        #expect(sections == ["The sqlite3 shell", "Python: sqlite3", "Python: apsw", "Python: SQLAlchemy", "Perl: DBD::SQLite", "PHP", "Ruby: sqlite3", "Tcl"])
    }

    @Test(arguments: try Document("docs/HOSTS.md").blocks.filter { programs[$0.info] != nil }.map(\.section))
    func host(_ section: String) throws {
        let block = try #require(try Document("docs/HOSTS.md").blocks.first { $0.section == section && Self.programs[$0.info] != nil })
        // One that isn't installed is told from one that doesn't work.
        let packages = try #require(Self.packages[section], "\(section): which packages of Debian's does it need?")
        let text = try Document("docs/HOSTS.md").text, setup = try String(contentsOfFile: "\(Products.package)/scripts/setup", encoding: .utf8)
        for package in packages {
            let status = try Program.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package])
            try #require(status.text == "installed", "\(section) is not tested: Debian's package \(package) is not installed; scripts/setup test installs it")
            #expect(setup.contains(package) && text.contains("`\(package)`"), "\(package)")
        }
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
