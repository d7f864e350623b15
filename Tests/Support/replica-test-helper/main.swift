// What tests of replicas do in processes of their own. Prints one line per
// result; SQLite's error log as `log CODE TEXT`.

import CReplicaTestSupport
import CSQLite
import Foundation
import ReplicaTestSupport
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilVFS

let arguments = CommandLine.arguments

func configure(store: String, caches: [CacheDirectory] = []) {
    _ = replica_test_log_to_stdout()
    SQLiteTable.install()
    _ = SnapshotVFS.register(
        environment: ReplicaEnvironment(caches: caches, stores: [DirectoryStore(path: store)], hostName: "this.example.com"))
}

func query(_ name: String, _ sql: String) -> String {
    do {
        let replica = try SQLiteConnection(name, vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
        return try replica.rows(sql).map { $0.joined(separator: "|") }.joined(separator: "\n")
    } catch let error as SQLiteError {
        return "error \(error.code) \(error.message)"
    } catch {
        return "error \(error)"
    }
}

/// What a forked child does.
final class Work {
    let body: () -> Int32
    init(_ body: @escaping () -> Int32) { self.body = body }

    static func inChild(seconds: Int32 = 20, _ body: @escaping () -> Int32) -> Int32 {
        let work = Work(body)
        return withExtendedLifetime(work) {
            replica_test_fork(
                { Unmanaged<Work>.fromOpaque($0!).takeUnretainedValue().body() },
                Unmanaged.passUnretained(work).toOpaque(), seconds)
        }
    }
}

switch arguments.dropFirst().first {
case "query":
    // STORE NAME SQL
    configure(store: arguments[2])
    print(query(arguments[3], arguments[4]))

case "fork":
    // STORE NAME SQL: the parent has the replica open, with threads at work; children use their own connections,
    // one inherited from the parent, or just exit.
    configure(store: arguments[2])
    let (name, sql) = (arguments[3], arguments[4])
    let parent = try SQLiteConnection(name, vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
    let expected = try parent.value(sql)
    for round in 0..<20 {
        try parent.rows("PRAGMA verneuil_snapshot_async_reload")
        let own = Work.inChild { query(name, sql) == expected ? 0 : 1 }
        let inherited = Work.inChild {
            do {
                try parent.rows(sql)
                return 1
            } catch {
                return (error as? SQLiteError)?.code == SQLITE_IOERR | 15 << 8 ? 0 : 2
            }
        }
        let closing = Work.inChild {
            sqlite3_close(parent.handle)
            return 0
        }
        let after = try parent.value(sql) == expected
        print("round \(round): own \(own), inherited \(inherited), closing \(closing), parent \(after)")
    }

case "cache":
    // DIRECTORY SHARDS CAPACITY SEED COUNT: adds chunks to a local cache and reads them, and others', back.
    let cache = CacheDirectory(
        local: arguments[2], shards: Int(arguments[3])!, capacity: Int(arguments[4])!, appendInstanceID: false)
    var random = UInt64(arguments[5])!
    var (hits, wrong) = (0, 0)
    for _ in 0..<Int(arguments[6])! {
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        let bytes = CacheHammer.chunk(Int(random >> 33) % CacheHammer.distinct)
        let fingerprint = FingerprintKey.chunk.fingerprint(bytes)
        if let found = cache.read(fingerprint, length: bytes.count) {
            hits += 1
            if found != bytes { wrong += 1 }
        } else {
            cache.publish(fingerprint, bytes)
        }
    }
    print("hits \(hits) wrong \(wrong)")

case "restore-limited":
    // STORE NAME OUT BYTES: restores where files may have BYTES at most.
    let chunks = ChunkSource(caches: [], stores: [DirectoryStore(path: arguments[2])])
    let source = ManifestSource(chunks: chunks)
    let manifest = try source.resolve(source.fetch(ReplicaLocation(arguments[3], host: "this.example.com")).manifest)
    _ = replica_test_limit_file_size(Int(arguments[5])!)
    do {
        let report = try Restore(manifest, from: chunks).write(to: arguments[4])
        print("restored \(report.length)")
    } catch {
        print("error full=\(error.isDiskFull) \(error)")
    }

case "query-limited":
    // STORE NAME SQL BYTES: as `query`, where files may have BYTES at most.
    configure(store: arguments[2])
    _ = replica_test_limit_file_size(Int(arguments[5])!)
    print(query(arguments[3], arguments[4]))

default:
    print("usage: see main.swift")
    exit(2)
}
