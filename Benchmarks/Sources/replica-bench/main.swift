// replica-bench [--directory D] [--restore MIB] [--scan MIB] [--cold MIB] [--rounds N]
//
// Restores and replica reads, each next to what they are compared with in the
// same run, in turn; what counts are the ratios.
// - restore: against a plain C loop that fetches, unpacks and writes the same
//   objects with the same parallelism, and against that loop with 10 threads at 30 ms per object.
// - scan: a warm replica against the same file through SQLite's unix VFS.
// - open: a second connection to a replica.
// - cold: at 30 ms per object, a scan of a fresh replica against the same objects fetched 64 at a time, and
//   opening and looking up a row, in round trips (of 300 ms, so that computing doesn't matter).

import CBenchmarkSQLite
import CPlainLoop
import CVerneuil
import Glibc
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilVFS

struct Failure: Error, CustomStringConvertible { var description: String }

func seconds(_ clock: clockid_t = CLOCK_MONOTONIC) -> Double {
    var t = timespec()
    clock_gettime(clock, &t)
    return Double(t.tv_sec) + Double(t.tv_nsec) / 1e9
}
func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
func number(_ value: Double, _ digits: Int = 2) -> String {
    let scale = pow(10.0, Double(digits))
    let text = String(Int((value * scale).rounded()))
    if digits == 0 { return text }
    let padded = String(repeating: "0", count: max(0, digits + 1 - text.count)) + text
    return "\(padded.dropLast(digits)).\(padded.suffix(digits))"
}

/// A file of chunks that zstd halves, as its objects are stored.
struct Stored {
    var manifest: Manifest
    var objects: [String: [UInt8]] = [:]
    var bodies: [(body: [UInt8], offset: Int64)] = []

    init(mebibytes: Int) {
        // xorshift64*: the kernel's numbers would take minutes.
        var random: UInt64 = 0x9E37_79B9_7F4A_7C15
        var chunks: [Fingerprint] = []
        for i in 0..<mebibytes * 16 {
            let chunk = [UInt8](unsafeUninitializedCapacity: Chunk.size) { buffer, count in
                let raw = UnsafeMutableRawBufferPointer(buffer)
                for at in stride(from: 0, to: Chunk.size, by: 8) {
                    random ^= random >> 12
                    random ^= random << 25
                    random ^= random >> 27
                    raw.storeBytes(
                        of: (random &* 0x2545_F491_4F6C_DD1D) & 0x0F0F_0F0F_0F0F_0F0F, toByteOffset: at, as: UInt64.self)
                }
                count = Chunk.size
            }
            let fingerprint = FingerprintKey.chunk.fingerprint(chunk)
            let body = chunk.withUnsafeBytes { Body.compress($0) }
            chunks.append(fingerprint)
            objects[fingerprint.chunkName] = body
            bodies.append((body, Int64(i) * Int64(Chunk.size)))
        }
        manifest = Manifest(
            headerFingerprint: Fingerprint(primary: 0, secondary: 0), versionID: [],
            length: UInt64(mebibytes) << 20, generatedBy: [], chunks: chunks)
    }

    func plainLoop(to path: String, threads: Int, delay: UInt32) throws -> Double {
        let fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
        defer { close(fd) }
        // The bytes must stay where they are while C reads them.
        let flat = UnsafeMutableRawPointer.allocate(byteCount: bodies.reduce(0) { $0 + $1.body.count }, alignment: 16)
        defer { flat.deallocate() }
        var list: [plain_object] = []
        var at = 0
        for (body, offset) in bodies {
            body.withUnsafeBytes { flat.advanced(by: at).copyMemory(from: $0.baseAddress!, byteCount: body.count) }
            list.append(plain_object(body: UnsafeRawPointer(flat + at), count: body.count, offset: offset))
            at += body.count
        }
        let start = seconds()
        guard plain_loop(list, list.count, fd, Int32(threads), delay) == 0 else {
            throw Failure(description: "the plain loop failed")
        }
        return seconds() - start
    }

    func restore(to path: String, parallelism: Int, delay: UInt64, verify: Bool) throws -> Double {
        let store = LatencyStore(objects, delay: delay)
        var options = Restore.Options()
        options.verify = verify
        let start = seconds()
        _ = try Restore(manifest, from: ChunkSource(caches: [], stores: [store], parallelism: parallelism))
            .write(to: path, options: options)
        return seconds() - start
    }
}

func benchRestore(_ directory: String, mebibytes: Int, rounds: Int) throws {
    let stored = Stored(mebibytes: mebibytes)
    let path = "\(directory)/restored"
    for delay in [0, 30_000] {
        var (plain, checked, unchecked, ten) = ([Double](), [Double](), [Double](), [Double]())
        // Seconds of all threads: what counts where others use the machine.
        var (plainCPU, checkedCPU) = ([Double](), [Double]())
        for _ in 0..<rounds {
            var before = seconds(CLOCK_PROCESS_CPUTIME_ID)
            plain.append(try stored.plainLoop(to: path, threads: 64, delay: UInt32(delay)))
            plainCPU.append(seconds(CLOCK_PROCESS_CPUTIME_ID) - before)
            unlink(path)
            before = seconds(CLOCK_PROCESS_CPUTIME_ID)
            checked.append(try stored.restore(to: path, parallelism: 64, delay: UInt64(delay), verify: true))
            checkedCPU.append(seconds(CLOCK_PROCESS_CPUTIME_ID) - before)
            unlink(path)
            unchecked.append(try stored.restore(to: path, parallelism: 64, delay: UInt64(delay), verify: false))
            unlink(path)
            if delay > 0 { ten.append(try stored.plainLoop(to: path, threads: 10, delay: UInt32(delay))) }
            unlink(path)
        }
        print(
            """
            restore of \(mebibytes) MiB, \(delay / 1000) ms per object, 64 at a time: \(number(median(checked))) s \
            (\(number(Double(mebibytes) / median(checked), 0)) MiB/s); speed against the plain loop's: \
            \(number(median(plain) / median(checked))), without reading back \(number(median(plain) / median(unchecked))); its CPU time \(number(median(checkedCPU))) s, the loop's \(number(median(plainCPU))) s\
            \(ten.isEmpty ? "" : "; against 10 threads': \(number(median(ten) / median(checked), 1))")
            """)
    }
}

final class Connection {
    private var db: OpaquePointer?
    init(_ name: String, _ vfs: String, _ flags: Int32 = SQLITE_OPEN_READONLY) throws {
        guard sqlite3_open_v2(name, &db, flags, vfs) == SQLITE_OK else {
            throw Failure(description: "\(name): \(String(cString: sqlite3_errmsg(db)))")
        }
    }
    deinit { sqlite3_close(db) }
    /// The first column of the first row.
    func value(_ sql: String) throws -> String {
        var statement: OpaquePointer?
        defer { sqlite3_finalize(statement) }
        guard sqlite3_prepare_v2(db, sql, -1, &statement, nil) == SQLITE_OK, sqlite3_step(statement) == SQLITE_ROW,
            let text = sqlite3_column_text(statement, 0)
        else { throw Failure(description: "\(sql): \(String(cString: sqlite3_errmsg(db)))") }
        return String(cString: text)
    }
    func run(_ sql: String) throws {
        guard sqlite3_exec(db, sql, nil, nil, nil) == SQLITE_OK else {
            throw Failure(description: "\(sql): \(String(cString: sqlite3_errmsg(db)))")
        }
    }
}

/// Gives the core SQLite's function table.
func prepareSQLite() {
    typealias EntryPoint = @convention(c) (OpaquePointer?, OpaquePointer?, OpaquePointer?) -> Int32
    let entry: EntryPoint = { _, _, table in
        vrn_sqlite3_set_api(UnsafePointer<CVerneuil.sqlite3_api_routines>(table))
        return SQLITE_OK
    }
    sqlite3_auto_extension(unsafeBitCast(entry, to: (@convention(c) () -> Void).self))
}

/// A database file as a store has it, without taking its memory.
struct Replicated {
    let name: String
    let keys: [String]
    let store: LatencyStore

    init(_ path: String, as name: String, delay: UInt64) throws {
        let fd = open(path, O_RDONLY)
        guard fd >= 0 else { throw Failure(description: "\(path): \(String(cString: strerror(errno)))") }
        var chunks: [Fingerprint] = []
        var places: [String: Int] = [:]
        var length = 0
        var buffer = [UInt8](repeating: 0, count: Chunk.size)
        while case let count = read(fd, &buffer, Chunk.size), count > 0 {
            let fingerprint = FingerprintKey.chunk.fingerprint(Array(buffer[..<count]))
            places[fingerprint.chunkName] = chunks.count
            chunks.append(fingerprint)
            length += count
        }
        func chunk(_ i: Int) -> [UInt8] {
            [UInt8](unsafeUninitializedCapacity: Chunk.size) { $1 = max(0, pread(fd, $0.baseAddress, Chunk.size, off_t(i * Chunk.size))) }
        }
        let words = chunks.flatMap { [$0.primary, $0.secondary] }
        let base = BaseChunk.encode(chunks)
        let manifest = Manifest(
            headerFingerprint: FingerprintKey.header.fingerprint(Array(chunk(0).prefix(100))), versionID: [], length: UInt64(length),
            generatedBy: [], chunks: chunks,
            bundled: [BundledChunk(index: 0, offset: 0, fingerprint: chunks[0], data: chunk(0))])
        let others = [
            ManifestName.make(host: "bench", path: name): Body.compressManifest(manifest.encoded(base: words)),
            FingerprintKey.chunk.fingerprint(base).chunkName: base,
        ]
        let known = places
        store = LatencyStore(delay: delay) { key in
            if let i = known[key] {
                return [UInt8](unsafeUninitializedCapacity: Chunk.size) {
                    $1 = max(0, pread(fd, $0.baseAddress, Chunk.size, off_t(i * Chunk.size)))
                }
            }
            return others[key]
        }
        keys = chunks.map(\.chunkName)
        self.name = "verneuil://bench\(name)"
    }

    /// What a process that starts would have: nothing is loaded.
    func openFresh(in directory: String) throws -> Connection {
        guard SnapshotVFS.register(environment: ReplicaEnvironment(stores: [store], tempDirectory: directory)) == SQLITE_OK
        else { throw Failure(description: "the VFS could not be registered") }
        return try Connection(name, SnapshotVFS.name)
    }
}

func benchCold(_ directory: String, mebibytes: Int, rounds: Int) throws {
    prepareSQLite()
    let path = "\(directory)/cold.db"
    let rows = (mebibytes << 20) / 470
    // One index whose pages are scattered, and one that was made when the rows were there.
    let local = try Connection(path, "unix", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
    try local.run(
        """
        PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-300000;
        CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, data BLOB); CREATE INDEX early ON t(a);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(rows))
        INSERT INTO t SELECT i, i * 7919 % 100000007, i * 104729 % 100000007, randomblob(400) FROM n; CREATE INDEX late ON t(b)
        """)
    let replicated = try Replicated(path, as: "/cold.db", delay: 30_000)
    var shares: [Double] = []
    for _ in 0..<rounds {
        let start = seconds()
        replicated.store.getAll(replicated.keys, parallelism: 64)
        let plain = seconds() - start
        let opened = seconds()
        let replica = try replicated.openFresh(in: directory)
        guard try replica.value("SELECT count(length(data)) FROM t NOT INDEXED") == "\(rows)" else {
            throw Failure(description: "the replica has other rows")
        }
        shares.append(plain / (seconds() - opened))
        print("cold scan: \(number(seconds() - opened)) s, 64 parallel GETs of its \(replicated.keys.count) chunks \(number(plain)) s")
    }
    print("cold scan at 30 ms, of the speed of 64 parallel GETs: \(number(100 * median(shares), 0)) % (best \(number(100 * shares.max()!, 0)) %)")

    let far = try Replicated(path, as: "/cold.db", delay: 300_000)
    for (what, column) in [("row id", "id"), ("an index made last", "b"), ("an index made first", "a")] {
        var trips: [Double] = []
        for round in 0..<rounds {
            let id = 1 + (round * 7_654_321 + 1_234_567) % rows
            let key = try local.value("SELECT \(column) FROM t WHERE id = \(id)")
            let start = seconds()
            let replica = try far.openFresh(in: directory)
            let found = try replica.value("SELECT hex(data) FROM t WHERE \(column) = \(key)")
            trips.append((seconds() - start) / 0.3)
            guard try local.value("SELECT hex(data) FROM t WHERE \(column) = \(key)") == found else {
                throw Failure(description: "the replica has another row")
            }
            withExtendedLifetime(replica) { _ = sleep(3) }
        }
        print(
            "opening a replica and looking up a row by \(what): median \(number(median(trips), 1)) round trips, \(number(trips.min()!, 1)) to \(number(trips.max()!, 1))"
        )
    }
    unlink(path)
}

func benchScan(_ directory: String, mebibytes: Int, rounds: Int) throws {
    prepareSQLite()
    let path = "\(directory)/scan.db"
    do {
        let db = try Connection(path, "unix", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
        try db.run(
            """
            PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(mebibytes << 20 / 420))
            INSERT INTO t SELECT i, randomblob(400) FROM n
            """)
    }
    var objects: [String: [UInt8]] = [:]
    var chunks: [Fingerprint] = []
    var length: UInt64 = 0
    let fd = open(path, O_RDONLY)
    var buffer = [UInt8](repeating: 0, count: Chunk.size)
    while case let count = read(fd, &buffer, Chunk.size), count > 0 {
        let chunk = Array(buffer[..<count])
        chunks.append(FingerprintKey.chunk.fingerprint(chunk))
        objects[chunks[chunks.count - 1].chunkName] = chunk
        length += UInt64(count)
    }
    close(fd)
    let manifest = Manifest(
        headerFingerprint: Fingerprint(primary: 0, secondary: 0), versionID: [], length: length, generatedBy: [], chunks: chunks)
    let name = "verneuil://bench/scan.db"
    objects[ManifestName.make(host: "bench", path: "/scan.db")] = Body.compressManifest(manifest.encoded(base: nil))
    guard SnapshotVFS.register(environment: ReplicaEnvironment(stores: [LatencyStore(objects, delay: 0)], tempDirectory: directory)) == SQLITE_OK
    else { throw Failure(description: "the VFS could not be registered") }

    let connections = try [
        Connection(path, "unix"), Connection(name, SnapshotVFS.name), Connection(path, "unix"), Connection(name, SnapshotVFS.name),
    ]
    for connection in connections[2...] { try connection.run("PRAGMA mmap_size=\(1 << 40)") }
    var times = [[Double]](repeating: [], count: 4)
    for round in 0...rounds {
        for (i, connection) in connections.enumerated() {
            let start = seconds(CLOCK_PROCESS_CPUTIME_ID)
            try connection.run("SELECT count(*), sum(length(data)) FROM t")
            if round > 0 { times[i].append(seconds(CLOCK_PROCESS_CPUTIME_ID) - start) }
        }
    }
    let t = times.map(median)
    print(
        """
        warm scan of \(mebibytes) MiB: \(number(t[1] / t[0])) times the unix VFS's CPU time; \
        with mmap_size set for both \(number(t[3] / t[2]))
        """)
    var opening: [Double] = []
    for _ in 0..<200 {
        let start = seconds()
        let connection = try Connection(name, SnapshotVFS.name)
        opening.append(seconds() - start)
        withExtendedLifetime(connection) {}
    }
    withExtendedLifetime(connections) {}
    print("opening a second connection: \(number(median(opening) * 1e6, 0)) µs")
}

var directory = "/dev/shm"
var (restore, scan, cold, rounds) = (1024, 256, 1024, 3)
var arguments = CommandLine.arguments.dropFirst().makeIterator()
while let argument = arguments.next() {
    let value = arguments.next() ?? ""
    switch argument {
    case "--directory": directory = value
    case "--restore": restore = Int(value) ?? restore
    case "--scan": scan = Int(value) ?? scan
    case "--cold": cold = Int(value) ?? cold
    case "--rounds": rounds = max(1, Int(value) ?? rounds)
    default:
        print("usage: replica-bench [--directory D] [--restore MIB] [--scan MIB] [--cold MIB] [--rounds N]")
        exit(2)
    }
}
let scratch = "\(directory)/verneuil-replica-bench-\(getpid())"
mkdir(scratch, 0o700)
var failed = false
do {
    if restore > 0 { try benchRestore(scratch, mebibytes: restore, rounds: rounds) }
    if cold > 0 { try benchCold(scratch, mebibytes: cold, rounds: rounds) }
    if scan > 0 { try benchScan(scratch, mebibytes: scan, rounds: rounds) }
} catch {
    print("replica-bench: \(error)")
    failed = true
}
_ = system("rm -rf \(scratch)")
exit(failed ? 1 : 0)
