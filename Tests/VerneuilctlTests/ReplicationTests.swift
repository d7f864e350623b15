import Foundation
import ProductSupport
import Testing

/// The commands on a database that is replicated to a directory store.
@Suite struct ReplicationTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    /// A database, as far as its first bytes go: a restore may replace it.
    private static let old = Array("SQLite format 3\0".utf8) + [7]

    /// A database of a few chunks, the same each time it is made.
    private func makeDatabase(_ name: String = "app.db", rows: Int = 3000) throws {
        let made = try here.sqlite(
            name, "PRAGMA journal_mode=DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT);",
            "INSERT INTO t SELECT value, hex(value * 7919) || '-' || printf('%0100d', value) FROM generate_series(1, \(rows))")
        try #require(made.status == 0, "\(made)")
    }

    private func restore(_ source: String = "app.db", to name: String = "restored.db") throws -> [UInt8] {
        let restored = try here.verneuilctl("restore", "--source-path", source, "--out", name)
        try #require(restored.status == 0, "\(restored)")
        return try here.bytes(name)
    }

    @Test func syncStoresAndRestoreBringsBackTheSameBytes() throws {
        try makeDatabase()
        let synced = try here.verneuilctl("sync", "app.db")
        #expect(synced.status == 0, "\(synced)")
        #expect(synced.text == (try here.verneuilctl("manifest-name", "app.db").text))
        #expect(here.files("store/manifests") == [synced.text])
        #expect(try restore() == here.bytes("app.db"))

        let streamed = try here.verneuilctl("restore", "--source-path", "app.db")
        #expect(streamed.status == 0 && streamed.errors.isEmpty)
        #expect(streamed.output == (try here.bytes("app.db")))
        // Without a spooling directory nothing is left of the one for the moment.
        #expect(!here.exists("spool"))
    }

    /// Each object is on disk before it has its name, chunks' names before the manifest, and the manifest's before it is said to be stored.
    @Test func whatIsStoredIsSyncedBeforeItIsNamedAndBeforeTheManifestIs() throws {
        try makeDatabase()
        let shim = here.file("faultio.so"), log = here.file("calls")
        let compiled = try Program.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, "\(Products.package)/Tests/Support/faultio/faultio.c", "-ldl"])
        try #require(compiled.status == 0, "\(compiled)")
        let synced = try here.verneuilctl(
            "sync", "app.db",
            environment: ["LD_PRELOAD": shim, "FAULTIO": "calls=pwrite,write,fsync,fdatasync,rename,link;path=^\(here.path)/store;log=\(log)"])
        #expect(synced.status == 0, "\(synced)")
        // Calls are written down when they are over.
        let calls = String(decoding: try here.bytes("calls"), as: UTF8.self).split(separator: "\n")
            .map { $0.split(separator: " ") }.filter { $0.count > 2 }.map { (name: $0[1], path: $0[2].dropFirst(here.file("store").count)) }
        func isSync(_ name: Substring) -> Bool { name == "fsync" || name == "fdatasync" }
        func isName(_ name: Substring) -> Bool { name == "rename" || name == "link" }
        var written: [Substring: Bool] = [:]
        var named: [Substring] = []
        for call in calls where call.path.hasPrefix("/chunks/.tmp.") || call.path.hasPrefix("/manifests/.tmp.") {
            // Is it synced since it was written to?
            if isSync(call.name) { written[call.path] = true } else { written[call.path] = false }
        }
        #expect(written.count >= 6 && written.values.allSatisfy(\.self), "\(calls)")
        // Of several threads: as many are synced as have their names, at each moment.
        var ready = 0
        for call in calls where call.path.hasPrefix("/chunks/") {
            if isSync(call.name), call.path.hasPrefix("/chunks/.tmp.") { ready += 1 }
            if isName(call.name) {
                named.append(call.path)
                #expect(named.count <= ready, "\(calls)")
            }
        }
        #expect(named.count == here.files("store/chunks").filter { !$0.hasPrefix(".") }.count && named.count >= 5)
        func last(_ isIt: (Substring) -> Bool, _ path: (Substring) -> Bool) -> Int? { calls.lastIndex { isIt($0.name) && path($0.path) } }
        let chunk = try #require(last(isName) { $0.hasPrefix("/chunks/") })
        let chunks = try #require(last(isSync) { ["/chunks", "/chunks/", "/chunks/."].contains($0) }, "\(calls)")
        let body = try #require(last(isSync) { $0.hasPrefix("/manifests/.tmp.") }, "\(calls)")
        let manifest = try #require(last(isName) { $0.hasPrefix("/manifests/") }, "\(calls)")
        let manifests = try #require(last(isSync) { ["/manifests", "/manifests/"].contains($0) }, "\(calls)")
        #expect(chunk < chunks && chunks < body && body < manifest && manifest < manifests, "\(calls)")
    }

    @Test func syncAgainStoresWhatHasChanged() throws {
        try makeDatabase()
        let config = here.configuration(spool: true)
        #expect(try here.verneuilctl("sync", "app.db", config: config).status == 0)
        #expect(try here.sqlite("app.db", "UPDATE t SET s = 'new' WHERE id = 1500").status == 0)
        #expect(try here.verneuilctl("sync", "app.db", config: config).status == 0)
        #expect(try restore() == here.bytes("app.db"))
    }

    @Test func optimizeMakesPagesTheSizeOfChunks() throws {
        try makeDatabase()
        let synced = try here.verneuilctl("sync", "--optimize", "app.db")
        #expect(synced.status == 0, "\(synced)")
        #expect(try here.sqlite("app.db", "PRAGMA page_size", "PRAGMA integrity_check").text == "65536\nok")
        #expect(try restore() == here.bytes("app.db"))

        #expect(try here.sqlite("app.db", "PRAGMA journal_mode=WAL").text == "wal")
        let refused = try here.verneuilctl("sync", "--optimize", "app.db")
        #expect(refused.status == 1 && refused.errors.contains("PRAGMA journal_mode=DELETE"), "\(refused)")
    }

    @Test func syncOfWhatIsNoDatabaseFileFails() throws {
        for name in ["nothing.db", "."] {
            let program = try here.verneuilctl("sync", name)
            #expect(program.status == 1 && program.errors.contains("there is no file \(name)"), "\(program)")
        }
        #expect(here.files("store").isEmpty)
    }

    @Test func flushUploadsWhatAWriterHadToLeave() throws {
        try makeDatabase()
        // Nobody listens on port 1: the writer's commits stay in the spool, and don't fail.
        let unreachable = """
            {"replication_spooling_dir": "\(here.file("spool"))", "replication_targets": [{"s3": {"region": "us-east-1",
             "endpoint": "http://127.0.0.1:1", "chunk_bucket": "c", "manifest_bucket": "m"}}]}
            """
        let written = try here.extended(
            "file:app.db?vfs=verneuil", "UPDATE t SET s = 'late' WHERE id % 100 = 0", config: unreachable,
            environment: ["AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"])
        #expect(written.status == 0, "\(written)")
        #expect(here.files("store").isEmpty)

        let flushed = try here.verneuilctl("flush", "spool")
        #expect(flushed.status == 0 && flushed.errors.isEmpty, "\(flushed)")
        #expect(try restore() == here.bytes("app.db"))
        #expect(try here.sqlite("restored.db", "SELECT count(*) FROM t WHERE s = 'late'").text == "30")
    }

    @Test func flushFailsWhereSomethingIsLeft() throws {
        try makeDatabase()
        let written = try here.extended("file:app.db?vfs=verneuil", "DELETE FROM t WHERE id = 1")
        #expect(written.status == 0, "\(written)")
        // The store's place is taken by a file.
        try here.write([1], to: "elsewhere")
        let flushed = try here.verneuilctl("flush", "spool", config: here.configuration(store: "elsewhere"))
        #expect(flushed.status == 1, "\(flushed)")
        #expect(flushed.errors.contains("app.db") && flushed.errors.contains("elsewhere"), "\(flushed)")
        #expect(try here.bytes("elsewhere") == [1])

        let wrong = try here.verneuilctl("flush", "app.db")
        #expect(wrong.status == 1 && wrong.errors.contains("app.db is no directory"), "\(wrong)")
    }

    @Test func aManifestComesAsStoredOrDecoded() throws {
        try makeDatabase()
        let name = try here.verneuilctl("sync", "app.db").text
        let stored = try here.verneuilctl("manifest", "app.db")
        #expect(stored.status == 0, "\(stored)")
        #expect(try stored.output == here.bytes("store/manifests/\(name)"))
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "m").status == 0)
        #expect(try here.bytes("m") == stored.output)

        let decoded = try here.verneuilctl("manifest", "--json", "app.db")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(decoded.output)) as? [String: Any])
        let length = try here.bytes("app.db").count
        #expect(object["length"] as? Int == length)
        #expect((object["chunks"] as? [String])?.count == (length + 65535) / 65536)
        #expect((object["contents_fingerprint"] as? String)?.count == 32)

        let slip = try here.verneuilctl("manifest", "app.db", "--out", "app.db")
        #expect(slip.status == 1 && slip.errors.contains("is a SQLite database"), "\(slip)")
        #expect(try here.sqlite("app.db", "PRAGMA integrity_check").text == "ok")
    }

    @Test func aManifestIsNamedInManyWays() throws {
        try makeDatabase()
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "a manifest").status == 0)
        let database = try here.bytes("app.db")
        let host = try Program.run(["cat", "/etc/hostname"]).text
        for manifest in [
            "a manifest", here.file("a manifest"), "file://\(here.path)/a%20manifest", "verneuil://\(host)\(here.path)/app.db",
            "verneuil://\(here.path)/app.db",
        ] {
            let restored = try here.verneuilctl("restore", "--manifest", manifest)
            #expect(restored.status == 0 && restored.output == database, "\(manifest): \(restored.errors)")
        }
        for (manifest, reason) in [
            ("nothing", "no such manifest file"), ("file://elsewhere/a", "expected file:///"), ("ftp://a/b", "expected a file's path"),
            ("s3://bucket/key", "expected s3://bucket.region/key"), ("verneuil://host", "expected verneuil://host/path"),
            ("http://127.0.0.1:1/m", "127.0.0.1:1"), ("app.db", "manifest"),
        ] {
            let refused = try here.verneuilctl("restore", "--manifest", manifest, "--out", "refused.db")
            #expect(refused.status == 1 && refused.errors.contains(reason), "\(manifest): \(refused)")
            #expect(!here.exists("refused.db"))
        }
    }

    @Test func aDatabaseThatWasNeverReplicatedIsAnErrorWithItsName() throws {
        try makeDatabase()
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        try here.write(Self.old, to: "kept.db")
        let missing = try here.verneuilctl("restore", "--hostname", "other", "--source-path", "/srv/a.db", "--out", "kept.db")
        #expect(missing.status == 1, "\(missing)")
        #expect(missing.errors.contains("/srv/a.db of other") && missing.errors.contains("store"), "\(missing)")
        #expect(try here.bytes("kept.db") == Self.old)
    }

    @Test func aChunkThatIsMissingOrWrongFailsTheRestoreAndKeepsWhatWasThere() throws {
        try makeDatabase()
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        let chunk = try #require(here.files("store/chunks").first)
        let body = try here.bytes("store/chunks/\(chunk)")
        try here.write(Self.old, to: "kept.db")
        for damage in [[UInt8](), Array(body.dropLast()), body.map { $0 ^ 1 }] {
            try here.write(damage, to: "store/chunks/\(chunk)")
            let failed = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "kept.db")
            #expect(failed.status == 1 && failed.errors.contains(chunk), "\(failed)")
            #expect(try here.bytes("kept.db") == Self.old)
        }
        try FileManager.default.removeItem(atPath: here.file("store/chunks/\(chunk)"))
        let failed = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "kept.db")
        #expect(failed.status == 1 && failed.errors.contains(chunk), "\(failed)")
        #expect(try here.bytes("kept.db") == Self.old)
    }

    @Test func theShellOpensReplicas() throws {
        try makeDatabase()
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
        #expect(try here.verneuilctl("manifest", "app.db", "--out", "a manifest").status == 0)
        for replica in [["--source-path", "app.db"], ["--manifest", "a manifest"]] {
            let config = ["VERNEUIL_CONFIG": here.configuration()]
            let shell = try Program.run(
                [Products.verneuilctl(), "shell"] + replica + ["--", "-separator", ":", "SELECT count(*), max(id) FROM t"],
                environment: config, directory: here.path)
            #expect(shell.status == 0 && shell.text == "3000:3000", "\(shell)")
            let write = try Program.run(
                [Products.verneuilctl(), "shell"] + replica + ["--", "DELETE FROM t"], environment: config, directory: here.path)
            #expect(write.status != 0 && write.errors.contains("readonly"), "\(write)")
        }
        let none = try here.verneuilctl("shell", "--source-path", "app.db", "--executable", "no-such-shell")
        #expect(none.status == 1 && none.errors.contains("can't run no-such-shell"), "\(none)")
    }
}
