// commit-bench EXTENSION [--directory D] [--sizes MIB,MIB…] [--commits N]
//
// Latency of single-row commits, and of a sequential read, through real SQLite:
// the verneuil VFS with replication on, next to SQLite's own unix VFS in the
// same run, in turn. What counts are the differences and ratios; absolute times
// are this machine's. The database, the spool and the store stand in D
// (/dev/shm), so that no disk hides what our own code costs.

import CBenchmarkSQLite
import Glibc

struct Failure: Error, CustomStringConvertible { var description: String }

final class Connection {
    private var db: OpaquePointer?

    init(_ uri: String) throws {
        guard sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil) == SQLITE_OK
        else { throw Failure(description: "\(uri): \(String(cString: sqlite3_errmsg(db)))") }
    }
    deinit { sqlite3_close(db) }

    func load(_ path: String) throws {
        // SQLite's SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION is variadic; this function is not.
        sqlite3_enable_load_extension(db, 1)
        var message: UnsafeMutablePointer<CChar>?
        guard sqlite3_load_extension(db, path, "sqlite3_verneuilvfs_init", &message) == SQLITE_OK else {
            throw Failure(description: "\(path): \(message.map { String(cString: $0) } ?? "?")")
        }
    }

    @discardableResult
    func run(_ sql: String) throws -> String {
        var statement: OpaquePointer?
        guard sqlite3_prepare_v2(db, sql, -1, &statement, nil) == SQLITE_OK else {
            throw Failure(description: "\(sql): \(String(cString: sqlite3_errmsg(db)))")
        }
        defer { sqlite3_finalize(statement) }
        var answer = ""
        while true {
            switch sqlite3_step(statement) {
            case SQLITE_ROW: answer = sqlite3_column_text(statement, 0).map { String(cString: $0) } ?? ""
            case SQLITE_DONE: return answer
            default: throw Failure(description: "\(sql): \(String(cString: sqlite3_errmsg(db)))")
            }
        }
    }
}

func microseconds() -> Double {
    var t = timespec()
    clock_gettime(CLOCK_MONOTONIC, &t)
    return Double(t.tv_sec) * 1e6 + Double(t.tv_nsec) / 1e3
}

struct Samples {
    private var all: [Double] = []
    mutating func add(_ value: Double) { all.append(value) }
    func quantile(_ q: Double) -> Double {
        let sorted = all.sorted()
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * q))]
    }
}

func number(_ value: Double, _ digits: Int = 1) -> String {
    let scale = pow(10.0, Double(digits))
    let whole = Int((value * scale).rounded())
    let text = String(abs(whole))
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    return (whole < 0 ? "-" : "") + padded.dropLast(digits) + "." + padded.suffix(digits)
}

func bench(_ directory: String, mebibytes: Int, commits: Int) throws {
    let plain = "\(directory)/plain-\(mebibytes).db"
    let replicated = "\(directory)/replicated-\(mebibytes).db"
    defer {
        unlink(plain)
        unlink(replicated)
    }
    do {
        let setup = try Connection("file:\(plain)?vfs=unix")
        try setup.run("PRAGMA journal_mode=OFF")
        try setup.run("PRAGMA synchronous=OFF")
        try setup.run("CREATE TABLE filler(id INTEGER PRIMARY KEY, data BLOB)")
        try setup.run("CREATE TABLE log(id INTEGER PRIMARY KEY, note TEXT)")
        try setup.run(
            """
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(mebibytes * 1024 * 1024 / 4096 - 3))
            INSERT INTO filler SELECT i, randomblob(3900) FROM n
            """)
    }
    guard system("cp \(plain) \(replicated)") == 0 else { throw Failure(description: "cp failed") }
    let unix = try Connection("file:\(plain)?vfs=unix")
    let ours = try Connection("file:\(replicated)?vfs=verneuil")
    for connection in [unix, ours] {
        try connection.run("PRAGMA journal_mode=TRUNCATE")
        try connection.run("PRAGMA cache_size=-8000")
    }
    let insert = "INSERT INTO log(note) VALUES('a note of some fifty bytes, as in a log of events')"
    let first = microseconds()
    try ours.run(insert)
    let firstTime = microseconds() - first
    guard try ours.run("PRAGMA verneuil_flush_replication_data") == "1" else { throw Failure(description: "flush failed") }

    // Copying in the background competes for the processor with what is measured; it goes on as it does in life.
    var base = Samples()
    var with = Samples()
    for round in 0..<(commits / 50) {
        for connection in round % 2 == 0 ? [unix, ours] : [ours, unix] {
            let isOurs = connection === ours
            for _ in 0..<50 {
                let start = microseconds()
                try connection.run(insert)
                let time = microseconds() - start
                if isOurs { with.add(time) } else { base.add(time) }
            }
        }
    }
    var readBase = Samples()
    var readWith = Samples()
    // A small cache, so that every page is read from the file.
    for connection in [unix, ours] { try connection.run("PRAGMA cache_size=16") }
    let repeats = max(5, min(400, 2000 / max(1, mebibytes)))
    for round in 0..<repeats {
        let order = [(unix, false), (ours, true)]
        for (connection, isOurs) in round % 2 == 0 ? order : order.reversed() {
            let start = microseconds()
            try connection.run("SELECT sum(length(data)) FROM filler")
            let time = microseconds() - start
            if isOurs { readWith.add(time) } else { readBase.add(time) }
        }
    }
    let (p50, p99) = (with.quantile(0.5), with.quantile(0.99))
    print(
        """
        \(mebibytes) MiB: commit unix \(number(base.quantile(0.5))) µs (p99 \(number(base.quantile(0.99)))), \
        verneuil \(number(p50)) µs (p99 \(number(p99))), extra \(number(p50 - base.quantile(0.5))) µs; \
        first commit \(number(firstTime / 1000)) ms; scan \(number(readWith.quantile(0) / readBase.quantile(0), 3)) × unix (best of each)
        """)
}

var extensionPath: String?
var directory = "/dev/shm"
var sizes = [1, 100, 1024]
var commits = 4000
var arguments = CommandLine.arguments.dropFirst().makeIterator()
while let argument = arguments.next() {
    switch argument {
    case "--directory": directory = arguments.next() ?? directory
    case "--sizes": sizes = (arguments.next() ?? "").split(separator: ",").compactMap { Int($0) }
    case "--commits": commits = arguments.next().flatMap { Int($0) } ?? commits
    default: extensionPath = argument
    }
}
guard let extensionPath, !sizes.isEmpty, commits >= 50 else {
    print("usage: commit-bench EXTENSION [--directory D] [--sizes MIB,MIB] [--commits N]")
    exit(2)
}
let scratch = "\(directory)/verneuil-bench-\(getpid())"
mkdir(scratch, 0o700)
var failed = false
do {
    setenv(
        "VERNEUIL_CONFIG",
        """
        {"replication_spooling_dir": "\(scratch)/spool",
         "replication_targets": [{"directory": {"path": "\(scratch)/store"}}]}
        """, 1)
    let loader = try Connection(":memory:")
    try loader.load(extensionPath)
    for size in sizes { try bench(scratch, mebibytes: size, commits: commits) }
} catch {
    print("commit-bench: \(error)")
    failed = true
}
_ = system("rm -rf \(scratch)")
exit(failed ? 1 : 0)
