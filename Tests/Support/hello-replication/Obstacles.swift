import CSQLite
import Foundation
import Verneuil

/// What goes wrong, and how a program sees it (LibraryTests of VerneuilExtensionTests).
struct Obstacles {
    let directory: String
    init(_ directory: String) { self.directory = directory }

    func run(_ db: OpaquePointer?) async throws {
        try await flushesThatFail()
        try await takeOver(db)
        try await restoredParts()
    }

    private func flushesThatFail() async throws {
        func cause(_ name: String) async -> String {
            do throws(FlushError) {
                try await Replication.flush("\(directory)/\(name)", timeout: .milliseconds(300))
                return "stored"
            } catch { return "\(error.cause)" }
        }
        print("nothing:", await cause("nothing.db"))
        var other: OpaquePointer?
        sqlite3_open("\(directory)/wal.db", &other)
        sqlite3_exec(other, "PRAGMA journal_mode=WAL; CREATE TABLE t(x)", nil, nil, nil)
        print("wal:", await cause("wal.db"))
        sqlite3_close(other)
        // With locks that this process's other descriptors leave alone.
        sqlite3_open_v2("file:\(directory)/busy.db?vfs=linux", &other, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil)
        sqlite3_exec(other, "CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(500000)); BEGIN EXCLUSIVE", nil, nil, nil)
        print("busy:", await cause("busy.db"))
        // What a crash leaves: the files of a transaction in its middle, with more in it than the cache holds.
        sqlite3_exec(other, "PRAGMA cache_size=1; UPDATE t SET x = randomblob(500000)", nil, nil, nil)
        for suffix in ["", "-journal"] {
            try FileManager.default.copyItem(atPath: "\(directory)/busy.db\(suffix)", toPath: "\(directory)/hot.db\(suffix)")
        }
        sqlite3_close(other)
        print("hot:", await cause("hot.db"))
    }

    /// Another machine has written the manifest, it seems.
    private func takeOver(_ db: OpaquePointer?) async throws {
        let manifests = "\(directory)/store/manifests"
        let name = try FileManager.default.contentsOfDirectory(atPath: manifests).filter { $0.hasSuffix("app.db") }
        try Data("foreign".utf8).write(to: URL(fileURLWithPath: "\(manifests)/\(name.joined())"), options: .atomic)
        sqlite3_exec(db, "INSERT INTO t VALUES (43)", nil, nil, nil)
        do { try await Replication.flush("\(directory)/app.db") } catch { print("flush:", error.cause) }
        do { try await Replication.sync("\(directory)/app.db") } catch { print("sync:", error.cause) }
        try await Replication.sync("\(directory)/app.db", takeOver: true)
        try await Replication.flush("\(directory)/app.db")
        print("taken over")
        try Data("some text, and no database at all".utf8).write(to: URL(fileURLWithPath: "\(directory)/text"))
        do { try await Replication.sync("\(directory)/text") } catch { print("text:", error.cause) }
    }

    /// Where each byte came from, and SQLite's own opinion.
    private func restoredParts() async throws {
        let path = "\(directory)/parts.db"
        let source = DatabaseSource(path: path)
        var db: OpaquePointer?
        sqlite3_open(path, &db)
        sqlite3_exec(db, "CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(900000)), (randomblob(300000))", nil, nil, nil)
        sqlite3_close(db)
        try await Replication.sync(path)
        var options = RestoreOptions()
        options.integrityCheck = true
        let report = try await Replication.restore(source, to: "\(directory)/restored.db", options: options)
        let parts = report.fetched + report.bundled + report.fromBase + report.resumed + report.zero
        print("parts:", parts == report.length, report.bundled > 0, report.fetched > 0)

        // Broken when it was stored: every byte is verified, and it is broken still.
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try file.seek(toOffset: 5 * 4096)
        try file.write(contentsOf: Data(repeating: 0x55, count: 4096))
        try file.close()
        try await Replication.sync(path)
        do { try await Replication.restore(source, to: "\(directory)/checked.db", options: options) } catch {
            print("checked:", "\(error)".contains("integrity check says"), FileManager.default.fileExists(atPath: "\(directory)/checked.db"))
        }
        try await Replication.restore(source, to: "\(directory)/unchecked.db")
        print("unchecked:", FileManager.default.contentsEqual(atPath: path, andPath: "\(directory)/unchecked.db"))
    }
}
