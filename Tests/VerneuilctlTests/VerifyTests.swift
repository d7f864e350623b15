import Foundation
import ProductSupport
import Testing

/// `verneuilctl verify`: three outcomes, three exit statuses.
@Suite struct VerifyTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private func makeDatabase(_ name: String = "app.db") throws {
        let made = try here.sqlite(
            name, "PRAGMA journal_mode=DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT);",
            "INSERT INTO t SELECT value, hex(value * 7919) || printf('%0100d', value) FROM generate_series(1, 3000)")
        try #require(made.status == 0, "\(made)")
        let synced = try here.verneuilctl("sync", name)
        try #require(synced.status == 0, "\(synced)")
    }

    @Test func whatIsGoodIsZero() throws {
        try makeDatabase()
        try FileManager.default.createDirectory(atPath: here.file("temporary"), withIntermediateDirectories: false)
        let config = "{\"tempdir\": \"\(here.file("temporary"))\", " + here.configuration().dropFirst()
        for options in [[], ["--deep"], ["--against", "app.db"], ["--integrity-check"], ["--deep", "--against", "app.db", "--integrity-check"]] {
            let program = try Program.run(
                [Products.verneuilctl(), "verify", "--source-path", "app.db"] + options,
                environment: ["VERNEUIL_CONFIG": config], directory: here.path)
            #expect(program.status == 0 && program.text.hasPrefix("good  \(here.file("app.db")) of "), "\(options): \(program)")
        }
        try makeDatabase("other.db")
        let all = try here.verneuilctl("verify", "--all")
        #expect(all.status == 0 && all.text.split(separator: "\n").count == 2, "\(all)")
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "m").status == 0)
        #expect(try here.verneuilctl("verify", "--manifest", "m", "--deep").status == 0)
        // Nothing is left of the integrity checks. (That they are made here: the interrupted one's test, below.)
        #expect(try FileManager.default.contentsOfDirectory(atPath: here.file("temporary")).isEmpty)
    }

    @Test func whatIsBadIsOneAndNamed() throws {
        try makeDatabase()
        let chunk = try #require(here.files("store/chunks").first)
        let body = try here.bytes("store/chunks/\(chunk)")
        try here.write(Array(body.dropLast()), to: "store/chunks/\(chunk)")
        #expect(try here.verneuilctl("verify", "--source-path", "app.db").status == 0, "by its list it is there")
        let deep = try here.verneuilctl("verify", "--deep", "--json", "--source-path", "app.db")
        #expect(deep.status == 1, "\(deep)")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(deep.output)) as? [String: Any])
        #expect(Set(object.keys) == ["outcome", "databases", "failures"])
        #expect(object["outcome"] as? String == "bad")
        let database = try #require((object["databases"] as? [[String: Any]])?.first)
        #expect(
            Set(database.keys) == ["name", "manifest", "store", "outcome", "length", "ctime", "chunks", "finding_count", "findings"])
        #expect((database["name"] as? String)?.hasPrefix("\(here.file("app.db")) of ") == true)
        let finding = try #require((database["findings"] as? [[String: String]])?.first)
        #expect(Set(finding.keys) == ["outcome", "object", "expected", "found"])
        #expect(finding["object"] == "chunk \(chunk)", "\(finding)")

        try FileManager.default.removeItem(atPath: here.file("store/chunks/\(chunk)"))
        let missing = try here.verneuilctl("verify", "--all")
        #expect(missing.status == 1 && missing.text.contains("bad  ") && missing.text.contains(chunk), "\(missing)")
        let never = try here.verneuilctl("verify", "--source-path", "never.db")
        #expect(never.status == 1 && never.text.contains("no such object"), "\(never)")
    }

    @Test func aDatabaseThatIsAheadOfItsStoreIsBad() throws {
        try makeDatabase()
        #expect(try here.sqlite("app.db", "DELETE FROM t WHERE id = 1500").status == 0)
        #expect(try here.verneuilctl("verify", "--source-path", "app.db", "--deep").status == 0)
        let behind = try here.verneuilctl("verify", "--source-path", "app.db", "--against", "app.db")
        #expect(behind.status == 1 && behind.text.contains("chunks differ"), "\(behind)")
    }

    @Test func contentThatSQLiteRejectsIsBad() throws {
        try makeDatabase()
        // Replicated faithfully: a page of the table is noise.
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: here.file("app.db")))
        try file.seek(toOffset: 5 * 4096)
        try file.write(contentsOf: Data(repeating: 0xA5, count: 4096))
        try file.close()
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        #expect(try here.verneuilctl("verify", "--source-path", "app.db", "--deep").status == 0)
        let checked = try here.verneuilctl("verify", "--source-path", "app.db", "--integrity-check")
        #expect(checked.status == 1 && checked.text.contains("PRAGMA integrity_check"), "\(checked)")
    }

    @Test func whatCantBeToldIsThree() throws {
        try makeDatabase()
        let config = """
            {"replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "http://127.0.0.1:1", "chunk_bucket": "c", "manifest_bucket": "m"}}]}
            """
        let program = try here.verneuilctl(
            "verify", "--source-path", "app.db", config: config, environment: ["AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"])
        #expect(program.status == 3 && program.text.hasPrefix("can't tell  "), "\(program)")
        // A disk that isn't mounted is not an empty store.
        let unmounted = try here.verneuilctl("verify", "--all", config: here.configuration(store: "elsewhere"))
        #expect(unmounted.status == 3, "\(unmounted)")
    }

    /// The weekly look must not call a store good that has lost what another one has, or everything.
    @Test func aStoreWithoutItsDatabasesIsNotGood() throws {
        try makeDatabase()
        try makeDatabase("other.db")
        let both = """
            {"replication_targets": [{"directory": {"path": "\(here.file("store"))"}}, {"directory": {"path": "\(here.file("second"))"}}]}
            """
        for name in ["app.db", "other.db"] { #expect(try here.verneuilctl("sync", name, config: both).status == 0) }
        #expect(try here.verneuilctl("verify", "--all", config: both).status == 0)
        let lost = try #require(here.files("second/manifests").first { $0.contains("other.db") })
        try FileManager.default.removeItem(atPath: here.file("second/manifests/\(lost)"))
        let some = try here.verneuilctl("verify", "--all", config: both)
        #expect(some.status == 3 && some.text.split(separator: "\n").filter { $0.hasPrefix("can't tell") }.count == 1, "\(some)")
        #expect(some.text.contains("other.db of") && some.text.contains("as it is in directory \(here.file("store"))"), "\(some)")
        for name in here.files("second/manifests") where !name.hasPrefix(".") {
            try FileManager.default.removeItem(atPath: here.file("second/manifests/\(name)"))
        }
        let all = try here.verneuilctl("verify", "--all", config: both)
        #expect(all.status == 3 && all.text.contains("can't tell  directory \(here.file("second"))"), "\(all)")
        let none = try here.verneuilctl("verify", "--all", config: here.configuration(store: "second"))
        #expect(none.status == 3 && none.text.contains("was never stored here"), "\(none)")
    }

    /// The copy that SQLite looks at is for nobody else's eyes, and goes when the check is interrupted.
    @Test(arguments: [SIGINT, SIGTERM]) func theCopyOfAnIntegrityCheckIsPrivateAndNotLeftBehind(signal: Int32) throws {
        try makeDatabase()
        try FileManager.default.createDirectory(atPath: here.file("temporary"), withIntermediateDirectories: false)
        let store = try here.slowStore(seconds: 1)
        defer { store.stop() }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        // The test may run on a thread that blocks signals, which a child inherits.
        let unblocked = """
            import os, signal, sys
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.umask(0o022)
            os.execv(sys.argv[1], sys.argv[1:])
            """
        process.arguments = ["python3", "-c", unblocked, try Products.verneuilctl(), "verify", "--source-path", "app.db", "--integrity-check"]
        let config = "{\"tempdir\": \"\(here.file("temporary"))\", " + String((store.config["VERNEUIL_CONFIG"] ?? "{").dropFirst())
        process.environment = ProcessInfo.processInfo.environment.merging(store.config) { $1 }.merging(["VERNEUIL_CONFIG": config]) { $1 }
        process.currentDirectoryURL = URL(fileURLWithPath: here.path)
        try process.run()
        var copy: String?
        while process.isRunning, copy == nil {
            copy = here.files("temporary").first.flatMap { $0.split(separator: "/").first.map(String.init) }
            usleep(5000)
        }
        var status = stat()
        let own = here.file("temporary/\(try #require(copy))")
        #expect(stat(own, &status) == 0 && status.st_mode & 0o777 == 0o700)
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == signal)
        #expect(here.files("temporary").isEmpty, "\(here.files("temporary"))")
    }
}
