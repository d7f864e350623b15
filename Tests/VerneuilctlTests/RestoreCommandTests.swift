import Foundation
import ProductSupport
import Testing

/// `verneuilctl restore` as a program: what it leaves on disk, in which order, what it shows, and how it takes interruptions.
@Suite struct RestoreCommandTests {
    let here: Workspace
    init() throws {
        here = try Workspace()
        let made = try here.sqlite(
            "app.db", "PRAGMA journal_mode=DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT); CREATE INDEX i ON t(s);",
            "INSERT INTO t SELECT value, hex(randomblob(500)) FROM generate_series(1, 700)")
        try #require(made.status == 0, "\(made)")
        let synced = try here.verneuilctl("sync", "app.db")
        try #require(synced.status == 0, "\(synced)")
    }

    /// A database, as far as its first bytes go.
    private static let old = Array("SQLite format 3\0".utf8) + [7]

    private var arguments: [String] { ["restore", "--source-path", "app.db", "--out", "out.db"] }

    /// The new file is on disk before it has its name, and the name before the program says that it is done.
    @Test func theFileIsSyncedThenRenamedThenItsDirectoryIsSynced() throws {
        let shim = here.file("faultio.so")
        let compiled = try Program.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, "\(Products.package)/Tests/Support/faultio/faultio.c", "-ldl"])
        try #require(compiled.status == 0, "\(compiled)")
        let log = here.file("calls")
        let restored = try Program.run(
            [Products.verneuilctl()] + arguments,
            environment: [
                "VERNEUIL_CONFIG": here.configuration(), "LD_PRELOAD": shim,
                "FAULTIO": "calls=pwrite,write,ftruncate,fsync,fdatasync,rename;log=\(log)",
            ], directory: here.path)
        #expect(restored.status == 0, "\(restored)")
        #expect(try here.bytes("out.db") == here.bytes("app.db"))
        let calls = String(decoding: try here.bytes("calls"), as: UTF8.self).split(separator: "\n").map { $0.split(separator: " ") }
            .filter { $0.count > 2 && $0[2].hasPrefix(here.path) }
        func last(_ call: String, _ path: String) -> Int? {
            calls.lastIndex { ($0[1] == call || $0[1] == "\(call)at") && $0[2] == here.file(path) }
        }
        let written = try #require(last("pwrite", "out.db.partial"), "\(calls)")
        let synced = try #require(last("fsync", "out.db.partial") ?? last("fdatasync", "out.db.partial"), "\(calls)")
        let renamed = try #require(last("rename", "out.db"), "\(calls)")
        let directory = try #require(
            calls.lastIndex { $0[1] == "fsync" && ($0[2] == here.path || $0[2] == "\(here.path)/") }, "\(calls)")
        #expect(written < synced && synced < renamed && renamed < directory, "\(calls)")
        #expect(!calls.contains { $0[1] == "pwrite" && $0[2] == here.file("out.db") })
    }

    @Test func theIntegrityCheckIsSQLitesOwnAndKeepsABadDatabaseFromItsName() throws {
        #expect(try Program.run(
            [Products.verneuilctl()] + arguments + ["--integrity-check"], environment: ["VERNEUIL_CONFIG": here.configuration()],
            directory: here.path).status == 0)
        #expect(try here.bytes("out.db") == here.bytes("app.db"))
        // A database that was broken when it was stored: every byte is verified, and it is broken still.
        var bytes = try here.bytes("app.db")
        for i in 5 * 4096..<6 * 4096 { bytes[i] = 0x55 }
        try here.write(bytes, to: "app.db")
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        try here.write(Self.old, to: "out.db")
        let refused = try Program.run(
            [Products.verneuilctl()] + arguments + ["--integrity-check"], environment: ["VERNEUIL_CONFIG": here.configuration()],
            directory: here.path)
        #expect(refused.status == 1 && refused.errors.contains("integrity check says") && refused.errors.contains("out.db.partial"), "\(refused)")
        #expect(try here.bytes("out.db") == Self.old)
        #expect(try here.bytes("out.db.partial") == bytes)
        #expect(try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db").status == 0)
        #expect(try here.bytes("out.db") == bytes)
    }

    @Test func aJournalBesideTheFileOrALockOnItIsRefusedUnlessForced() throws {
        try here.write(Self.old, to: "out.db")
        try here.write([1, 2, 3], to: "out.db-wal")
        let refused = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db")
        #expect(refused.status == 1 && refused.errors.contains("out.db-wal is not empty"), "\(refused)")
        #expect(try here.bytes("out.db") == Self.old)
        #expect(try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db", "--force").status == 0)
        #expect(try here.bytes("out.db") == here.bytes("app.db") && !here.exists("out.db-wal"))

        let command = "VERNEUIL_CONFIG='\(here.configuration())' '\(try Products.verneuilctl())' restore --source-path app.db --out out.db 2>&1"
        try here.write(Array(command.utf8), to: "command")
        let inUse = try here.sqlite("out.db", "BEGIN IMMEDIATE", ".shell sh command")
        #expect(inUse.text.contains("in use as a database"), "\(inUse)")
    }

    /// A slip in `--out`: the text, key or archive that stands there is not lost.
    @Test func aFileThatIsNoDatabaseIsReplacedOnlyWhenForced() throws {
        let text = Array("Dear diary,\n\u{1}today".utf8)
        try here.write(text, to: "out.db")
        let refused = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db")
        #expect(refused.status == 1 && refused.errors.contains("out.db is no SQLite database (18 bytes that begin with \"Dear diary,..tod\")"), "\(refused)")
        #expect(refused.errors.contains("restore to another file, or force it"), "\(refused)")
        #expect(try here.bytes("out.db") == text && !here.exists("out.db.partial"))
        let forced = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db", "--force")
        #expect(forced.status == 0 && forced.errors.isEmpty, "\(forced)")
        #expect(try here.bytes("out.db") == here.bytes("app.db"))
        // Over a database, and over an empty file, as ever.
        for old in [Self.old, []] {
            try here.write(old, to: "out.db")
            #expect(try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db").status == 0)
            #expect(try here.bytes("out.db") == here.bytes("app.db"))
        }
    }

    @Test func aFileThatIsNoManifestIsReplacedOnlyWhenForcedAndADatabaseNever() throws {
        let text = Array("Dear diary".utf8)
        try here.write(text, to: "m")
        let refused = try here.verneuilctl("manifest", "app.db", "--out", "m")
        #expect(refused.status == 1 && refused.errors.contains("m is no manifest (10 bytes that begin with \"Dear diary\")"), "\(refused)")
        #expect(refused.errors.contains("--force"), "\(refused)")
        #expect(try here.bytes("m") == text)
        let stored = try here.verneuilctl("manifest", "app.db").output, decoded = try here.verneuilctl("manifest", "app.db", "--json").output
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "m", "--force").status == 0)
        #expect(try here.bytes("m") == stored)
        // Over its own output, of either kind, and over an empty file.
        for (options, expected) in [([], stored), (["--json"], decoded), (["--json"], decoded), ([], stored)] {
            let again = try Program.run(
                [Products.verneuilctl(), "manifest", "app.db", "--out", "m"] + options, environment: ["VERNEUIL_CONFIG": here.configuration()],
                directory: here.path)
            #expect(try again.status == 0 && here.bytes("m") == expected, "\(again)")
        }
        try here.write([], to: "m")
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "m").status == 0)
        // A link is followed; what is no file at all would be lost to the whole system.
        try FileManager.default.createSymbolicLink(atPath: here.file("link"), withDestinationPath: "m")
        try here.write([], to: "m")
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "link").status == 0)
        #expect(try here.bytes("m") == stored)
        #expect(mkfifo(here.file("pipe"), 0o600) == 0)
        for options in [[], ["--force"]] {
            let special = try Program.run(
                [Products.verneuilctl(), "manifest", "app.db", "--out", "pipe"] + options,
                environment: ["VERNEUIL_CONFIG": here.configuration()], directory: here.path)
            #expect(special.status == 1 && special.errors.contains("pipe is not a regular file"), "\(special)")
        }
        var status = stat()
        #expect(lstat(here.file("pipe"), &status) == 0 && status.st_mode & S_IFMT == S_IFIFO)
        let before = try here.bytes("app.db")
        let database = try here.verneuilctl("manifest", "app.db", "--out", "app.db", "--force")
        #expect(database.status == 1 && database.errors.contains("is a SQLite database"), "\(database)")
        #expect(try here.bytes("app.db") == before)
    }

    /// What is restored is the newest that is stored anywhere, whichever store comes first; and one that can't tell is named.
    @Test func aTargetThatLagsIsNotBelievedBecauseItComesFirstOrAlone() throws {
        func config(_ stores: String...) -> String {
            "{\"replication_targets\": [\(stores.map { "{\"directory\": {\"path\": \"\(here.file($0))\"}}" }.joined(separator: ", "))]}"
        }
        let old = try here.bytes("app.db")
        #expect(try here.verneuilctl("sync", "app.db", config: config("a", "b")).status == 0)
        #expect(try here.sqlite("app.db", "PRAGMA user_version=7").status == 0)
        #expect(try here.verneuilctl("sync", "app.db", config: config("a")).status == 0)
        let new = try here.bytes("app.db")
        #expect(old != new)
        for order in [config("a", "b"), config("b", "a")] {
            let restored = try here.verneuilctl("restore", "--source-path", "app.db", config: order)
            #expect(restored.status == 0 && restored.output == new, "\(restored.errors)")
            #expect(restored.errors.contains("/b: manifest") && restored.errors.contains("is older than that of directory"), "\(restored.errors)")
        }
        try FileManager.default.moveItem(atPath: here.file("a/manifests"), toPath: here.file("a/elsewhere"))
        let alone = try here.verneuilctl("restore", "--source-path", "app.db", config: config("a", "b"))
        #expect(alone.status == 0 && alone.output == old)
        #expect(alone.errors.contains("/a: manifest") && alone.errors.contains("another source's is used, which may be older"), "\(alone.errors)")
    }

    // MARK: A slow store

    @Test func progressIsShownOnATerminalAndNowhereElse() throws {
        let store = try here.slowStore()
        defer { store.stop() }
        let plain = try Program.run([Products.verneuilctl()] + arguments, environment: store.config, directory: here.path)
        #expect(plain.status == 0 && plain.errors.isEmpty && plain.output.isEmpty, "\(plain)")

        let command = ([try Products.verneuilctl()] + arguments).map { "'\($0)'" }.joined(separator: " ")
        let terminal = try Program.run(
            ["script", "-qec", command, "/dev/null"], environment: store.config, directory: here.path)
        #expect(terminal.status == 0, "\(terminal)")
        #expect(terminal.text.contains(/restoring \[[#-]{24}\] \d+% of [\d.]+ MiB, [\d.]+ [KM]?i?B\/s, \d\d:\d\d left/), "\(terminal)")
        // Taken away in the end.
        #expect(terminal.text.hasSuffix("\r\u{1B}[K"), "\(terminal)")
        #expect(try here.bytes("out.db") == here.bytes("app.db"))
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGKILL])
    func anInterruptedRestoreLeavesThePartialFileAloneAndIsResumed(signal: Int32) throws {
        let store = try here.slowStore()
        defer { store.stop() }
        try here.write(Self.old, to: "out.db")
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        // The test may run on a thread that blocks signals, which a child inherits.
        let unblocked = """
            import os, signal, sys
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(sys.argv[1], sys.argv[1:])
            """
        process.arguments = ["python3", "-c", unblocked, try Products.verneuilctl()] + arguments
        process.environment = ProcessInfo.processInfo.environment.merging(store.config) { $1 }
        process.currentDirectoryURL = URL(fileURLWithPath: here.path)
        try process.run()
        // Until some chunks are there.
        let partial = here.file("out.db.partial")
        var status = stat()
        while process.isRunning, stat(partial, &status) != 0 || status.st_blocks < 600 { usleep(5000) }
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == signal)
        #expect(try here.bytes("out.db") == Self.old)
        #expect(Set(here.files(".").filter { $0.hasPrefix("out") }) == ["out.db", "out.db.partial"])

        let resumed = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "out.db", "--json")
        #expect(resumed.status == 0, "\(resumed)")
        let report = try #require(try JSONSerialization.jsonObject(with: Data(resumed.output)) as? [String: Any])
        #expect(report["resumed"] as? Int ?? 0 >= 3 * 65536, "\(resumed)")
        #expect(try here.bytes("out.db") == here.bytes("app.db"))
        #expect(!here.exists("out.db.partial"))
    }
}
