// commit-bench EXTENSION [--directory D] [--sizes MIB,MIB…] [--commits N]
//
// What a single-row commit costs through real SQLite: the verneuil VFS with replication on, next to SQLite's own
// unix VFS in the same run, in turn. Counters first (CommitCounters: system calls, bytes, allocations), which are the same on
// every machine; then times: wall clock, and the committing thread's own processor time, which other
// programs' work hardly touches. What counts are the differences and ratios. Databases, spool and store stand in
// D (/dev/shm), so that no disk hides what our own code costs; a second run with D on a disk shows what is left there.

import CBenchmarkSQLite
import CommitCounters
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

/// Of this thread.
func processorMicroseconds() -> Double {
    var t = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return Double(t.tv_sec) * 1e6 + Double(t.tv_nsec) / 1e3
}

func median(_ s: Samples) -> Double { s.quantile(0.5) }

func count(_ ext: String, _ directory: String, sizes: [Int]) throws {
    for size in sizes {
        for vfs in ["unix", "verneuil"] {
            let counters = try CommitCounters.measure(ext: ext, vfs: vfs, directory: directory, mebibytes: size)
            print("\(size) MiB, \(vfs): \(counters)")
        }
    }
}

func bench(_ directory: String, mebibytes: Int, commits: Int) throws {
    let plain = "\(directory)/plain-\(mebibytes).db"
    let replicated = "\(directory)/replicated-\(mebibytes).db"
    defer {
        unlink(plain)
        unlink(replicated)
    }
    // Beyond that, sparse: nothing in a commit looks at the rest.
    for path in [plain, replicated] { try SparseDatabase.make(path, mebibytes: mebibytes, realMebibytes: min(mebibytes, 100) - 1) }
    let unix = try Connection("file:\(plain)?vfs=unix")
    let ours = try Connection("file:\(replicated)?vfs=verneuil")
    for connection in [unix, ours] {
        try connection.run("PRAGMA journal_mode=TRUNCATE")
        try connection.run("PRAGMA cache_size=-8000")
    }
    let update = "UPDATE log SET note='a note of some fifty bytes, as in a log of events' || random() WHERE id=7"
    var first = [0.0, 0.0]
    for (i, connection) in [unix, ours].enumerated() {
        let start = microseconds()
        try connection.run(update)
        first[i] = microseconds() - start
    }
    guard try ours.run("PRAGMA verneuil_flush_replication_data") == "1" else { throw Failure(description: "flush failed") }

    // Copying in the background competes for the processor with what is measured; it goes on as it does in life.
    var base = Samples()
    var with = Samples()
    var baseOwn = Samples()
    var withOwn = Samples()
    for round in 0..<(commits / 50) {
        for connection in round % 2 == 0 ? [unix, ours] : [ours, unix] {
            let isOurs = connection === ours
            for _ in 0..<50 {
                let start = microseconds()
                let startOwn = processorMicroseconds()
                try connection.run(update)
                let own = processorMicroseconds() - startOwn
                let time = microseconds() - start
                if isOurs {
                    with.add(time)
                    withOwn.add(own)
                } else {
                    base.add(time)
                    baseOwn.add(own)
                }
            }
        }
    }
    print(
        """
        \(mebibytes) MiB: commit unix \(number(median(base))) µs (p99 \(number(base.quantile(0.99)))), \
        verneuil \(number(median(with))) µs (p99 \(number(with.quantile(0.99)))), extra \(number(median(with) - median(base))) µs; \
        processor time \(number(median(baseOwn))) µs (p99 \(number(baseOwn.quantile(0.99)))), \(number(median(withOwn))) µs \
        (p99 \(number(withOwn.quantile(0.99)))), extra \(number(median(withOwn) - median(baseOwn))) µs; \
        first commit \(number((first[1] - first[0]) / 1000)) ms more
        """)
}

/// Scans through a cache of 16 pages: every page is read from the file.
func scan(_ directory: String) throws {
    var connections: [Connection] = []
    for vfs in ["unix", "verneuil"] {
        let path = "\(directory)/scan-\(vfs).db"
        try SparseDatabase.make(path, mebibytes: 1)
        let connection = try Connection("file:\(path)?vfs=\(vfs)")
        try connection.run("PRAGMA cache_size=16")
        connections.append(connection)
    }
    var samples = [Samples(), Samples()]
    for round in 0..<1500 {
        for i in round % 2 == 0 ? [0, 1] : [1, 0] {
            let start = microseconds()
            try connections[i].run("SELECT sum(length(data)) FROM filler")
            samples[i].add(microseconds() - start)
        }
    }
    print("scan of 1 MiB: best \(number(samples[1].quantile(0))) µs against \(number(samples[0].quantile(0))) for the unix VFS")
}

/// Transactions of 50,000 rows, each into a table of its own.
func bulk(_ directory: String) throws {
    var connections: [Connection] = []
    for vfs in ["unix", "verneuil"] {
        let path = "\(directory)/bulk-\(vfs).db"
        unlink(path)
        let connection = try Connection("file:\(path)?vfs=\(vfs)")
        try connection.run("PRAGMA journal_mode=TRUNCATE")
        try connection.run("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        connections.append(connection)
    }
    _ = try connections[1].run("PRAGMA verneuil_flush_replication_data")
    var wall = [Samples(), Samples()]
    var own = [Samples(), Samples()]
    for round in 0..<8 {
        for i in round % 2 == 0 ? [0, 1] : [1, 0] {
            let start = microseconds()
            let startOwn = processorMicroseconds()
            try connections[i].run(
                """
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
                INSERT INTO t(name, data) SELECT 'name of row ' || i, randomblob(300) FROM n
                """)
            own[i].add(processorMicroseconds() - startOwn)
            wall[i].add(microseconds() - start)
        }
    }
    print(
        """
        bulk insert: 50,000 rows unix \(number(median(wall[0]) / 1000)) ms, verneuil \(number(median(wall[1]) / 1000)) ms, \
        ratio \(number(median(wall[1]) / median(wall[0]), 2)); processor time ratio \(number(median(own[1]) / median(own[0]), 2))
        """)
}

if let status = CommitCounters.runIfChild(CommandLine.arguments) { exit(status) }
var extensionPath: String?
var directory = "/dev/shm"
var sizes = [1, 100, 1024, 10_240]
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
var failed = false
do {
    mkdir(scratch, 0o700)
    try count(extensionPath, scratch, sizes: [sizes.min() ?? 1, sizes.max() ?? 1])
    setenv(
        "VERNEUIL_CONFIG",
        """
        {"replication_spooling_dir": "\(scratch)/spool",
         "replication_targets": [{"directory": {"path": "\(scratch)/store"}}]}
        """, 1)
    let loader = try Connection(":memory:")
    try loader.load(extensionPath)
    for size in sizes {
        try bench(scratch, mebibytes: size, commits: commits)
        fflush(nil)
    }
    try scan(scratch)
    fflush(nil)
    try bulk(scratch)
} catch {
    print("commit-bench: \(error)")
    failed = true
}
// Copiers may be at work still.
_ = system("rm -rf \(scratch) 2>/dev/null || { sleep 2; rm -rf \(scratch); }")
exit(failed ? 1 : 0)
