import Foundation
import ProductSupport
import Testing

/// Slips of the command line, the configuration and files: each is answered with status 1 or 2 and one or two lines that
/// say what is wrong and what to do; nothing is written, replaced or removed.
@Suite struct MistakeTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    struct Slip: Sendable, CustomStringConvertible {
        var status: Int32
        /// `HERE` stands for the workspace.
        var words: [String]
        /// All of these are on standard error.
        var says: [String]
        var config: String?
        var description: String { "\(words.joined(separator: " "))\(config.map { " with \($0)" } ?? "")" }

        init(_ status: Int32, _ words: [String], _ says: String..., config: String? = nil) {
            self.status = status
            self.words = words
            self.says = says
            self.config = config
        }
    }

    static let restore = ["restore", "--source-path", "app.db", "--out"]
    static let good = "{\"replication_targets\": [{\"directory\": {\"path\": \"HERE/store\"}}]"

    static let commandLine: [Slip] = [
        // Words that aren't there.
        .init(2, ["restroe", "--source-path", "app.db"], "no command \"restroe\"", "did you mean restore?", "--help"),
        .init(2, ["--log", "error", "snyc", "app.db"], "no command \"snyc\"", "did you mean sync?"),
        .init(2, ["sync", "--optimise", "app.db"], "--optimise", "--optimize", "verneuilctl sync --help"),
        .init(2, ["sync", "app.db", "wal.db"], "wal.db", "sync --help"),
        .init(2, ["sync"], "<source>"),
        .init(2, ["restore", "app.db"], "--source-path", "--manifest"),
        .init(2, ["restore", "--source-path"], "--source-path"),
        .init(2, ["restore", "--source-path", "app.db", "--manifest", "m"], "exclude each other"),
        .init(2, ["restore", "--manifest", "m", "--hostname", "h"], "--hostname goes with --source-path"),
        .init(2, ["restore", "--source-path", "app.db", "--json"], "go with --out"),
        .init(2, ["restore", "--source-path", "app.db", "--force"], "go with --out"),
        .init(2, ["manifest", "app.db", "--force"], "--force goes with --out"),
        .init(2, ["verify"], "--source-path"),
        .init(2, ["verify", "--all", "--source-path", "app.db"], "--all takes no single database"),
        .init(2, ["verify", "--all", "--integrity-check"], "with one database"),
        .init(2, ["manifest", "verneuil:///a", "--hostname", "h"], "--hostname"),
        .init(2, ["--log", "loud", "sync", "app.db"], "loud", "warning, error, critical"),
        .init(2, ["--config"], "--config"),
        // Numbers.
        .init(2, ["flush", "--watch", "--interval", "soon", "dir"], "soon", "--interval"),
        .init(2, ["flush", "--watch", "--interval", "0", "dir"], "0.05 to 3600"),
        .init(2, ["flush", "--watch", "--interval", "nan", "dir"], "0.05 to 3600"),
        .init(2, ["flush", "--watch", "--stop-timeout=-1", "dir"], "0 to 86400"),
        .init(2, ["flush", "--interval", "1", "dir"], "go with --watch"),
        .init(2, ["status", "dir", "--max-lag", "many"], "many", "--max-lag"),
        .init(2, ["status", "dir", "--max-lag", "nan"], "0 or more"),
        // Variables that aren't set.
        .init(2, ["sync", ""], "<source> is empty"),
        .init(2, ["flush", ""], "<spooling-dir> is empty"),
        .init(2, ["status", ""], "<spooling-dir> is empty"),
        .init(2, ["restore", "--source-path", "", "--out", "n.db"], "--source-path is empty"),
        .init(2, ["restore", "--manifest", "", "--out", "n.db"], "--manifest is empty"),
        .init(2, ["restore", "--source-path", "app.db", "--hostname", "", "--out", "n.db"], "--hostname is empty"),
        .init(2, restore + [""], "--out is empty"),
        .init(2, ["manifest", ""], "<source> is empty"),
        .init(2, ["manifest-name", ""], "<source> is empty"),
    ]

    static let files: [Slip] = [
        .init(1, ["sync", "gone.db"], "no file gone.db", "give the path of a database"),
        .init(1, ["sync", "dangling"], "no file dangling"),
        .init(1, ["sync", "dir"], "there is no file dir, but something else"),
        .init(1, ["sync", "text"], "text is no SQLite database", "nothing is stored"),
        .init(1, ["sync", "short"], "short is no SQLite database"),
        .init(1, ["sync", "wal.db"], "WAL mode", "PRAGMA journal_mode=DELETE"),
        .init(1, ["sync", "--optimize", "text"], "text is no SQLite database"),
        .init(1, ["sync", "--optimize", "wal.db"], "PRAGMA journal_mode=DELETE"),
        .init(1, ["restore", "--source-path", "gone.db", "--out", "n.db"], "gone.db", "is not in directory HERE/store", "verify --all"),
        .init(1, restore + ["n.db", "--hostname", "other"], "app.db of other", "path and host"),
        .init(1, restore + ["dir"], "dir is a directory"),
        .init(1, restore + ["no/such/n.db"], "no such directory"),
        .init(1, restore + ["text/n.db"], "no such directory"),
        .init(1, restore + ["/proc/n.db"], "/proc/n.db.partial"),
        .init(1, restore + ["journalled.db"], "journalled.db-journal", "restore to another file, or force it"),
        .init(1, restore + ["n.db", "--base", "gone"], "--base gone", "no such file"),
        .init(1, restore + ["n.db", "--base", "dir"], "--base dir", "no such file"),
        .init(1, ["restore", "--manifest", "gone", "--out", "n.db"], "gone: there is no such manifest file"),
        .init(1, ["restore", "--manifest", "text", "--out", "n.db"], "text: manifest:"),
        .init(1, ["restore", "--manifest", "empty", "--out", "n.db"], "not a manifest"),
        .init(1, ["restore", "--manifest", "app.db", "--out", "n.db"], "app.db: manifest:"),
        .init(1, ["restore", "--manifest", "dir", "--out", "n.db"], "dir: Is a directory"),
        .init(1, ["restore", "--manifest", "ftp://x/y", "--out", "n.db"], "expected a file's path, or one of file://"),
        .init(1, ["restore", "--manifest", "s3://bucket", "--out", "n.db"], "expected s3://bucket.region/key"),
        .init(1, ["restore", "--manifest", "http://127.0.0.1:1/m", "--out", "n.db"], "Connection refused"),
        .init(1, ["manifest", "gone.db", "--out", "n"], "is not in directory HERE/store"),
        .init(1, ["manifest", "app.db", "--out", "app.db"], "app.db is a SQLite database", "choose another --out"),
        .init(1, ["manifest", "app.db", "--out", "dir"], "dir: Is a directory"),
        .init(1, ["manifest", "app.db", "--out", "text"], "text is no manifest (9000 bytes that begin with", "--force"),
        .init(1, restore + ["text"], "text is no SQLite database (9000 bytes that begin with", "restore to another file, or force it"),
        .init(1, ["flush", "gone"], "gone is no directory", "replication_spooling_dir"),
        .init(1, ["flush", "app.db"], "app.db is no directory", "replication_spooling_dir"),
        .init(1, ["status"], "which spooling directory?", "replication_spooling_dir"),
        .init(1, ["shell", "--source-path", "gone.db", "--", "SELECT 1"], "is not in directory HERE/store"),
        .init(1, ["shell", "--source-path", "app.db", "--vfs", "gone.so", "--", "SELECT 1"], "--vfs gone.so", "libverneuil_vfs.so"),
        .init(1, ["shell", "--source-path", "app.db", "--executable", "/no/sqlite3", "--", "SELECT 1"], "can't run /no/sqlite3"),
    ]

    static let configurations: [Slip] = [
        .init(1, ["sync", "app.db"], "no store is configured", "VERNEUIL_CONFIG", config: ""),
        .init(1, ["sync", "app.db"], "no configuration file", config: "@"),
        .init(1, ["sync", "app.db"], "no configuration file \"gone.json\"", config: "@gone.json"),
        .init(1, ["sync", "app.db"], "Is a directory", config: "@dir"),
        .init(1, ["sync", "app.db"], "text:1:1: not JSON", config: "@text"),
        .init(1, ["sync", "app.db"], "the text is empty", config: "@empty"),
        .init(1, ["sync", "app.db"], "1:1: not JSON", config: "verneuil.json"),
        .init(1, ["sync", "app.db"], "found an array", "expected an object", config: "[]"),
        .init(1, ["sync", "app.db"], "expected an array of targets", config: "{\"replication_targets\": {}}"),
        .init(1, ["sync", "app.db"], "unknown kind of target \"directroy\"", "\"directory\"", config: "{\"replication_targets\": [{\"directroy\": {\"path\": \"/s\"}}]}"),
        .init(1, ["sync", "app.db"], "directory.path: missing", config: "{\"replication_targets\": [{\"directory\": {}}]}"),
        .init(1, ["sync", "app.db"], "directory.path: found the number 3, expected a path", config: "{\"replication_targets\": [{\"directory\": {\"path\": 3}}]}"),
        .init(1, ["sync", "app.db"], "HERE/text", "Not a directory", config: "{\"replication_targets\": [{\"directory\": {\"path\": \"HERE/text\"}}]}"),
        .init(1, ["sync", "app.db"], "/proc/nowhere", config: "{\"replication_targets\": [{\"directory\": {\"path\": \"/proc/nowhere\"}}]}"),
        .init(1, ["sync", "app.db"], "HERE/text", config: "\(good), \"replication_spooling_dir\": \"HERE/text\"}"),
        .init(1, ["sync", "app.db"], "/proc/nowhere", config: "\(good), \"replication_spooling_dir\": \"/proc/nowhere\"}"),
        .init(1, ["sync", "app.db"], "found the string \"0700\"", "448", config: "\(good), \"replication_spooling_dir_permissions\": \"0700\"}"),
        .init(1, ["sync", "app.db"], "from 1 to 1000", config: "\(good), \"replication_pacing\": {\"workers\": 0}}"),
        .init(1, ["sync", "app.db"], "tempdir HERE/gone is no directory", config: "\(good), \"tempdir\": \"HERE/gone\"}"),
        .init(1, ["sync", "app.db"], "found the string \"lazy\"", "eager", config: "\(good), \"snapshot_loading_policy\": \"lazy\"}"),
        .init(1, ["sync", "app.db"], "not JSON: a comma before }", config: "\(good),}"),
        .init(1, ["sync", "app.db"], "a comma or }", config: good),
        .init(1, ["sync", "app.db"], "a single quote", config: "{'a': 1}"),
        .init(1, ["sync", "app.db"], "a comment", config: "// x\n\(good)}"),
        .init(1, ["sync", "app.db"], "expected a URL", config: s3("s3.example.com")),
        .init(1, ["sync", "app.db"], "without a path", config: s3("http://127.0.0.1:1/path")),
        .init(1, ["sync", "app.db"], "no credentials", "AWS_ACCESS_KEY_ID", config: s3("http://127.0.0.1:1")),
        .init(1, restore + ["n.db"], "no credentials", "AWS_ACCESS_KEY_ID", config: s3("http://127.0.0.1:1")),
    ]

    private static func s3(_ endpoint: String) -> String {
        "{\"replication_targets\": [{\"s3\": {\"region\": \"us-east-1\", \"endpoint\": \"\(endpoint)\", \"chunk_bucket\": \"ccc\", \"manifest_bucket\": \"mmm\"}}]}"
    }

    @Test(arguments: ["command line", "files", "configuration"])
    func slipsAreAnsweredInTwoLinesAndChangeNothing(kind: String) throws {
        try prepare()
        let before = try state()
        #expect(before.count >= 12)
        let slips = kind == "files" ? Self.files : kind == "configuration" ? Self.configurations : Self.commandLine
        for slip in slips {
            func filled(_ text: String) -> String { text.replacing("HERE", with: here.path) }
            let program = try Program.run(
                ["timeout", "60", Products.verneuilctl()] + slip.words.map(filled),
                environment: ["VERNEUIL_CONFIG": filled(slip.config ?? "\(Self.good)}"), "HOME": here.file("home"), "VERNEUIL_LOG": "error"],
                directory: here.path)
            #expect(program.status == slip.status, "\(slip): \(program)")
            #expect(program.output.isEmpty, "\(slip): \(program)")
            let lines = program.errors.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            #expect((1...2).contains(lines.count) && program.errors.hasPrefix("verneuilctl: "), "\(slip): \(program)")
            for words in slip.says { #expect(program.errors.contains(filled(words)), "\(slip): no \"\(words)\" in \(program)") }
            // Names of types, optionals, and what a runtime says when it gives up.
            for bad in ["Optional(", "Fatal error", "couldn’t be completed", "could not be completed", "Swift.", "Error(", "Verneuil"] {
                #expect(!program.errors.contains(bad), "\(slip): \(bad) in \(program)")
            }
            let after = try state()
            #expect(after == before, "\(slip): changed \(Set(after.keys).symmetricDifference(before.keys).sorted())")
        }
    }

    /// A shell that can't open the replica has an empty database instead, and would say 0.
    @Test func aShellWithoutAReplicaRunsNothing() throws {
        try prepare()
        for chunk in here.files("store/chunks") { try FileManager.default.removeItem(atPath: here.file("store/chunks/\(chunk)")) }
        // The policy fetches chunks before the replica opens.
        let config = here.configuration().dropLast() + ", \"snapshot_loading_policy\": {\"eager\": null}}"
        let shell = try here.verneuilctl("shell", "--source-path", "app.db", "--vfs", Products.extension(), "--", "SELECT 'ran'", config: String(config))
        #expect(shell.status != 0 && shell.text.isEmpty && shell.errors.contains("can't open"), "\(shell)")
        #expect(shell.errors.contains("the replica could not be opened"), "\(shell)")
    }

    /// Which would never be stored, however long one waits.
    @Test func aDatabaseThatWentIntoWALModeFailsTheFlushAtOnce() throws {
        #expect(try here.extended("file:app.db?vfs=verneuil", "CREATE TABLE t(x)", "PRAGMA verneuil_flush_replication_data").text == "1")
        #expect(try here.sqlite("app.db", "PRAGMA journal_mode=WAL", "INSERT INTO t VALUES (1)").status == 0)
        let flush = try Program.run(
            ["timeout", "120", Products.verneuilctl(), "flush", "spool"], environment: ["VERNEUIL_CONFIG": here.configuration()], directory: here.path)
        #expect(flush.status == 1 && flush.errors.contains("WAL mode") && flush.errors.contains("PRAGMA journal_mode=DELETE"), "\(flush)")
        #expect(try here.sqlite("app.db", "PRAGMA journal_mode=DELETE").status == 0)
        let again = try here.verneuilctl("flush", "spool")
        #expect(again.status == 0, "\(again)")
        let restored = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "restored.db")
        #expect(restored.status == 0, "\(restored)")
        #expect(try here.bytes("restored.db") == here.bytes("app.db"))
    }

    private func prepare() throws {
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (randomblob(200000))").status == 0)
        #expect(try here.sqlite("wal.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)").status == 0)
        #expect(try here.sqlite("journalled.db", "CREATE TABLE t(x)").status == 0)
        try here.write(Array("a journal".utf8), to: "journalled.db-journal")
        try here.write(Array(repeating: UInt8(ascii: "x"), count: 9000), to: "text")
        try here.write(Array("SQLite format 3\0".utf8), to: "short")
        try here.write([], to: "empty")
        try here.write([], to: "dir/file")
        try here.write([], to: "home/file")
        try FileManager.default.createSymbolicLink(atPath: here.file("dangling"), withDestinationPath: "nowhere")
        #expect(try here.verneuilctl("sync", "app.db").status == 0)
    }

    /// Every file with its bytes and time of change; the store's own lock comes and goes.
    private func state() throws -> [String: String] {
        var state: [String: String] = [:]
        for name in FileManager.default.enumerator(atPath: here.path)?.compactMap({ $0 as? String }) ?? [] where !name.hasSuffix(".lock") {
            var status = stat()
            guard lstat(here.file(name), &status) == 0 else { continue }
            let isFile = status.st_mode & S_IFMT == S_IFREG
            // Directories change with files that come and go.
            state[name] = isFile ? "\(status.st_size) \(status.st_ino) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)" : "\(status.st_mode)"
        }
        return state
    }
}
