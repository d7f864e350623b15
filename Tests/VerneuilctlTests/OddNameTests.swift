import Foundation
import ProductSupport
import Testing

/// Names that file systems take and programs stumble over, from the commit to the restored file.
@Suite struct OddNameTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    /// The longest component for which SQLite's "-journal" still fits into 255 bytes.
    static let names: [String] = [
        "with space.db", " leading", "trailing ", "ünï—日本語🐘.db", "it's.db", "say \"hi\".db", "100%.db", "a%20b.db", "a%2Fb.db", "new\nline.db",
        "tab\there.db", "\u{1}\u{7F}.db", "-rf.db", "--out", "back\\slash.db", "q?a&b=c#d.db", "semi;colon.db", "$HOME`id`.db", "*.db", "~", "#hash", ":memory:x",
        "file:x.db", "verneuil:x", "a+b=c.db", "dot.", String(repeating: "x", count: 247), String(repeating: "é", count: 123), String(repeating: "🐘", count: 61),
    ]

    /// A path of 4,000 bytes.
    private func longPath() -> String {
        var path = here.path
        while path.utf8.count < 4000 - 201 { path += "/" + String(repeating: "d", count: 200 - 1) }
        return path + "/" + String(repeating: "e", count: 4000 - path.utf8.count - 7) + "/of.db"
    }

    /// Writes every database through the extension and flushes it, then reads every replica in another process.
    private func python(_ paths: [String], _ what: String) throws -> Program {
        let script = """
            import os, sqlite3, sys
            from urllib.parse import quote
            loader = sqlite3.connect(":memory:")
            loader.enable_load_extension(True)
            loader.load_extension(sys.argv[1])
            for i, name in enumerate(open("names", "rb").read().split(b"\\0")):
                if sys.argv[2] == "write":
                    db = sqlite3.connect("file:%s?vfs=verneuil" % quote(name), uri=True)
                    db.execute("CREATE TABLE t AS SELECT %d AS x" % i)
                    print(db.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
                else:
                    print(sqlite3.connect("file:verneuil://%s?vfs=verneuil_snapshot" % quote(name), uri=True).execute("SELECT x FROM t").fetchone()[0])
            """
        try here.write(Array(paths.joined(separator: "\0").utf8), to: "names")
        return try Program.run(
            ["timeout", "120", "/usr/bin/python3", "-c", script, Products.extension(), what],
            environment: ["VERNEUIL_CONFIG": here.configuration(spool: true)], directory: here.path)
    }

    @Test func databasesOfAnyNameAreReplicatedReadAndRestored() throws {
        var paths = Self.names.map { "\(here.path)/\($0)" }
        let long = longPath()
        #expect(long.utf8.count == 4000)
        try FileManager.default.createDirectory(atPath: (long as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        paths.append(long)

        let written = try python(paths, "write")
        #expect(written.text == Array(repeating: "1", count: paths.count).joined(separator: "\n") && written.errors.isEmpty, "\(written)")
        #expect(here.files("store/manifests").count == paths.count)
        let read = try python(paths, "read")
        #expect(read.text == paths.indices.map(String.init).joined(separator: "\n") && read.errors.isEmpty, "\(read)")

        let config = here.configuration(spool: true)
        let status = try here.verneuilctl("status", "--json", config: config)
        let report = try #require(JSONSerialization.jsonObject(with: Data(status.output)) as? [String: Any])
        let known = (report["databases"] as? [[String: Any]])?.compactMap { $0["path"] as? String }
        #expect(status.status == 0 && Set(known ?? []) == Set(paths), "\(status)")
        let flushed = try here.verneuilctl("flush", "spool", config: config)
        #expect(flushed.status == 0, "\(flushed)")
        let all = try here.verneuilctl("verify", "--all", "--deep", "--json", config: config)
        #expect(all.status == 0, "\(all)")

        for (i, path) in paths.enumerated() {
            // As one would type them, in the directory.
            let name = i < Self.names.count ? Self.names[i].hasPrefix("-") ? "./\(Self.names[i])" : Self.names[i] : path
            let restored = try here.verneuilctl("restore", "--source-path", name, "--out", "restored.db", config: config)
            #expect(restored.status == 0 && restored.errors.isEmpty, "\(name): \(restored)")
            #expect(FileManager.default.contentsEqual(atPath: here.file("restored.db"), andPath: path), "\(name)")
            try? FileManager.default.removeItem(atPath: here.file("restored.db"))
            // Over itself: the restored file's partial one has a longer name.
            let again = try here.verneuilctl("restore", "--source-path", name, "--out", name, config: config)
            #expect(again.status == 0, "\(name): \(again)")
            let shell = try here.verneuilctl("shell", "--source-path", name, "--vfs", Products.extension(), "--", "SELECT x FROM t", config: config)
            #expect(shell.status == 0 && shell.text == "\(i)", "\(name): \(shell)")
            let manifest = try here.verneuilctl("manifest-name", name)
            #expect(here.exists("store/manifests/\(manifest.text)"), "\(name): \(manifest)")
        }
        let synced = try here.verneuilctl("sync", "--", "--out")
        #expect(synced.status == 0, "\(synced)")
    }

    /// Not in UTF-8: written as always, and never stored under a name that isn't the file's.
    @Test func aNameThatIsNoTextIsNotReplicatedAndThatIsSaid() throws {
        let program = try Program.run(
            [
                "timeout", "60", "/usr/bin/python3", "-c",
                """
                import os, sqlite3, sys
                from urllib.parse import quote
                loader = sqlite3.connect(":memory:")
                loader.enable_load_extension(True)
                loader.load_extension(sys.argv[1])
                db = sqlite3.connect("file:%s?vfs=verneuil" % quote(os.fsencode(os.getcwd()) + b"/\\xe9.db"), uri=True)
                db.execute("CREATE TABLE t AS SELECT 1 AS x")
                print(db.execute("SELECT x FROM t").fetchone()[0], db.execute("PRAGMA verneuil_flush_replication_data").fetchone()[0])
                """, Products.extension(),
            ], environment: ["VERNEUIL_CONFIG": here.configuration(spool: true)], directory: here.path)
        #expect(program.status == 0 && program.text == "1 0" && program.errors.contains("not everything is stored"), "\(program)")
        #expect(here.files("store/manifests").isEmpty)
    }
}
