import ProductSupport
import Testing

/// What holds for all commands.
@Suite struct CommandLineTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    @Test(
        "a wrong command line is status 2, with a hint on standard error",
        arguments: [
            ([], "USAGE"), (["frobnicate"], "frobnicate"), (["restore"], "--source-path"),
            (["restore", "--source-path", "/a", "--manifest", "/b"], "exclude each other"),
            (["restore", "--manifest", "/b", "--hostname", "h"], "--hostname goes with --source-path"),
            (["restore", "--source-path", "/a", "--frob"], "--frob"), (["manifest-name"], "source"),
            (["flush"], "spooling-dir"), (["sync"], "source"), (["--log", "loud", "manifest-name", "/a"], "loud"),
            (["manifest", "verneuil:///a", "--hostname", "h"], "--hostname"),
        ])
    func usage(arguments: [String], hint: String) throws {
        let program = try Program.run([Products.verneuilctl()] + arguments)
        #expect(program.status == 2, "\(program)")
        #expect(program.output.isEmpty, "\(program)")
        #expect(program.errors.contains(hint), "\(program)")
    }

    @Test("help and the version are results", arguments: ["restore", "manifest", "manifest-name", "flush", "sync", "shell"])
    func help(command: String) throws {
        let program = try here.verneuilctl(command, "--help")
        #expect(program.status == 0 && program.errors.isEmpty, "\(program)")
        #expect(program.text.contains("verneuilctl"), "an example")
        let version = try here.verneuilctl("--version")
        #expect(version.status == 0 && version.text.wholeMatch(of: /\d+\.\d+\.\d+/) != nil, "\(version)")
    }

    @Test(
        "a configuration that can't be used is status 1, and says why",
        arguments: [
            ("{", "VERNEUIL_CONFIG:1:2: not JSON"),
            ("{\"replication_targets\": [{\"s3\": {\"region\": 7}}]}", "replication_targets[0].s3.region: found the number 7"),
            ("@/nonexistent/verneuil.json", "no configuration file \"/nonexistent/verneuil.json\""),
            (
                "{\"replication_targets\": [{\"s3\": {\"region\": \"no where\", \"chunk_bucket\": \"c\", \"manifest_bucket\": \"m\"}}]}",
                "replication_targets[0].s3: \"no where\" is neither an AWS region"
            ),
            ("{}", "no store is configured"), ("", "no store is configured"),
        ])
    func configuration(json: String, message: String) throws {
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        for program in [
            try here.verneuilctl("sync", "app.db", config: json), try here.verneuilctl("restore", "--source-path", "app.db", config: json),
        ] {
            #expect(program.status == 1, "\(program)")
            #expect(program.output.isEmpty, "\(program)")
            #expect(program.errors.contains(message), "\(program)")
            #expect(program.errors.split(separator: "\n").count <= 2, "\(program)")
        }
        #expect(!here.exists("store"))
    }

    /// Also where a command would have no use for it.
    @Test(arguments: [
        ["restore", "--source-path", "app.db", "--out", "r.db"], ["manifest", "app.db"], ["manifest-name", "app.db"], ["flush", "spool"],
        ["sync", "app.db"], ["shell", "--source-path", "app.db", "--", "SELECT 1"], ["verify", "--all"], ["doctor"], ["status", "spool"],
    ])
    func noCommandRunsWithAConfigurationThatCantBeUsed(words: [String]) throws {
        try here.write([], to: "spool/file")
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        let program = try Program.run(
            [Products.verneuilctl()] + words, environment: ["VERNEUIL_CONFIG": "@/nonexistent/verneuil.json"], directory: here.path)
        #expect(program.status == 1 && program.output.isEmpty, "\(program)")
        #expect(program.errors.contains("no configuration file \"/nonexistent/verneuil.json\""), "\(program)")
    }

    @Test func configurationComesFromAnOptionBeforeOrAfterTheCommand() throws {
        try here.write(Array(here.configuration().utf8), to: "v.json")
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        let before = try here.verneuilctl("--config", "v.json", "sync", "app.db", config: "{")
        #expect(before.status == 0, "\(before)")
        let after = try here.verneuilctl("sync", "app.db", "--config", here.configuration(), config: "{")
        #expect(after.status == 0, "\(after)")
        let at = try here.verneuilctl("sync", "--config", "@v.json", "app.db", config: "{")
        #expect(at.status == 0, "\(at)")
    }

    @Test func unknownKeysAreWarnedOfAndTheWorkIsDone() throws {
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        let config = here.configuration().replacing("{\"replication_targets", with: "{\"make_defualt\": 1, \"replication_targets")
        let program = try here.verneuilctl("sync", "app.db", config: config)
        #expect(program.status == 0, "\(program)")
        #expect(program.errors.contains("did you mean \"make_default\""), "\(program)")
        let quiet = try here.verneuilctl("--log", "error", "sync", "app.db", config: config)
        #expect(quiet.status == 0 && quiet.errors.isEmpty, "\(quiet)")
    }

    @Test func colourIsForTerminalsAlone() throws {
        let program = try here.verneuilctl("flush", "nowhere", environment: ["TERM": "xterm"])
        #expect(program.status == 1)
        #expect(!program.errors.contains("\u{1B}"), "\(program)")
        // script(1) gives it a terminal.
        for (variables, isColoured) in [(["TERM": "xterm"], true), (["TERM": "xterm", "NO_COLOR": "1"], false)] {
            let program = try Program.run(
                ["script", "-qec", "\(Products.verneuilctl()) --config '\(here.configuration())' flush nowhere", "/dev/null"],
                environment: variables, directory: here.path)
            #expect(program.text.contains("nowhere is no directory"), "\(program)")
            #expect(program.text.contains("\u{1B}[31m") == isColoured, "\(program)")
        }
    }
}
