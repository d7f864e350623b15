// upload-bench [--mebibytes N] [--rounds N] [--connections N] [--directory D] [--port P [--access-key K] [--secret-key S]]
//
// Uploads a fresh database to an in-memory server in a process of its own, or to a real one at 127.0.0.1:P, as
// `verneuilctl sync` does (read from the spool, fingerprint, compress, hash,
// sign, send), next to a bare loop that sends the same bodies in parallel, all
// prepared beforehand. In turn, so that the ratios are of one run. The server
// checks both digests of each body, as S3 does.
//
// - fast: with the budget of flushes as it is by default, 1,000 requests per second; the loop keeps it, too.
// - unlimited: without a budget, both.
//
// CPU is this process's user and system time from the first PUT to the last answer.

import CBenchmarkSQLite
import CVerneuil
import Glibc
import Logging
import VerneuilReplication
import VerneuilS3
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

struct Failure: Error, CustomStringConvertible { var description: String }

struct Options {
    var mebibytes = 1024
    var rounds = 1
    var connections = 64
    var directory = "/tmp"
    /// Of a real server.
    var port: Int?
    var accessKey = "testkey"
    var secretKey = "testsecret"

    init(_ arguments: some Collection<String>) {
        var arguments = arguments[...]
        while let option = arguments.popFirst() {
            let value = arguments.popFirst() ?? ""
            switch (option, Int(value)) {
            case ("--mebibytes", let number?): mebibytes = number
            case ("--rounds", let number?): rounds = number
            case ("--connections", let number?): connections = number
            case ("--directory", _): directory = value
            case ("--port", let number?): port = number
            case ("--access-key", _): accessKey = value
            case ("--secret-key", _): secretKey = value
            default:
                print("usage: upload-bench [--mebibytes N] [--rounds N] [--connections N] [--directory D] [--port P [--access-key K] [--secret-key S]]")
                exit(2)
            }
        }
    }
}

func number(_ value: Double, _ digits: Int = 2) -> String {
    let scale = pow(10.0, Double(digits))
    let text = String(Int((value * scale).rounded()))
    if digits == 0 { return text }
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    return "\(padded.dropLast(digits)).\(padded.suffix(digits))"
}
/// A line at once, though the output may be a file.
func say(_ line: String) {
    print(line)
    fflush(nil)
}
func column(_ text: String, _ width: Int = 12) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
}

/// Seconds of CPU that this process has used.
func cpuSeconds() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return Double(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
        + Double(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6
}

/// A database whose pages zstd halves, and no two of them are the same.
func makeDatabase(_ path: String, mebibytes: Int) throws {
    var db: OpaquePointer?
    guard sqlite3_open(path, &db) == SQLITE_OK else { throw Failure(description: "can't make \(path)") }
    defer { sqlite3_close(db) }
    let rows = mebibytes * 682  // of 1,500 bytes
    let sql = """
        PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, s TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(rows))
        INSERT INTO t SELECT i, hex(randomblob(740)) FROM n;
        """
    guard sqlite3_exec(db, sql, nil, nil, nil) == SQLITE_OK else {
        throw Failure(description: "can't fill \(path): \(String(cString: sqlite3_errmsg(db)))")
    }
}

/// A run of either side.
struct Run {
    var requests = 0
    var bytes = 0
    var seconds = 0.0
    var cpu = 0.0
    var perSecond: Double { Double(requests) / seconds }

    func line(_ name: String) -> String {
        let parts = [
            column(number(seconds, 1)), column(number(perSecond, 0)), column(number(Double(bytes) / 1e6 / seconds, 0)),
            column(number(cpu / Double(requests) * 1e3, 3)),
        ]
        return name + String(repeating: " ", count: max(0, 24 - name.count)) + parts.joined()
    }
}

/// Stores the database as `verneuilctl sync` does, with a spool of its own.
func upload(
    _ database: String, to place: Place, _ budget: S3Pacing.Budget?, connections: Int, keepBodies: Bool
) throws -> (Run, [MeasuredStore.Body]) {
    let measured = MeasuredStore(try place.store(budget, connections: connections), keepBodies: keepBodies)
    let spool = Files.temporaryName(beside: database)
    defer { try? Files.removeTree(spool) }
    let replicator = Replicator(
        spool: SpoolDirectory(spool), targets: [ReplicationTarget(measured)], logger: Logger(label: "upload-bench"))
    if let reason = replicator.sync(path: database) { throw Failure(description: reason) }
    return (measured.run, measured.bodies)
}

func compare(_ options: Options) throws {
    let place = "\(options.directory)/upload-bench-\(getpid())"
    try Files.makeDirectories(place)
    defer { try? Files.removeTree(place) }
    let database = "\(place)/app.db"
    say("making a database of \(options.mebibytes) MiB in \(place)")
    try makeDatabase(database, mebibytes: options.mebibytes)
    let server = try options.port == nil ? ServerProcess(in: place) : nil
    defer { server?.stop() }
    // Buckets of its own for each run: none meets what another has left.
    var runs = 0
    func next() -> Place {
        runs += 1
        return Place(
            port: options.port ?? server?.port ?? 0, accessKey: options.accessKey, secretKey: options.secretKey,
            bucket: "upload-bench-\(getpid())-\(runs)")
    }

    say(column("", 24) + column("seconds") + column("PUT/s") + column("MB/s") + column("CPU ms/PUT"))
    var bodies: [MeasuredStore.Body] = []
    for _ in 1...max(1, options.rounds) {
        for (name, budget) in [("fast", S3Pacing().flush), ("unlimited", nil)] {
            let (ours, kept) = try upload(
                database, to: next(), budget, connections: options.connections, keepBodies: bodies.isEmpty)
            if bodies.isEmpty { bodies = kept }
            say(ours.line("\(name), ours"))
            let plain = next()
            try plain.store(nil, connections: 1).prepare()
            let before = server?.cpuSeconds() ?? 0
            let bare = try PlainLoop(
                plain, connections: options.connections, bodies: bodies, perSecond: budget?.requestsPerSecond
            ).run()
            say(bare.line("\(name), bare loop"))
            let serving = ((server?.cpuSeconds() ?? 0) - before) / Double(bare.requests) * 1e3
            let ratio = "\(name): \(number(ours.perSecond / bare.perSecond * 100, 0)) % of the bare loop"
            say(server == nil ? ratio : "\(ratio); the server takes \(number(serving, 3)) ms of CPU per PUT")
        }
    }
}

if CommandLine.arguments.dropFirst().first == "serve" {
    try MemoryServer().run()
} else {
    try compare(Options(CommandLine.arguments.dropFirst()))
}
