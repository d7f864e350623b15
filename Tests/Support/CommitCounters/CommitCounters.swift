import CAllocationCount
import CSQLite
import CVerneuil
import VerneuilSpool
import VerneuilSystem

// What a commit costs in numbers that are the same on every machine and under
// every load: system calls, syncs, bytes, allocations. Times are for a benchmark.
//
// A program counts by running itself again, as a child under strace(1). The
// child commits one row at a time, with a mark before and after each: a call of access(2) with a
// name that nobody has. Only the committing thread counts. About once in half a second a commit finds
// a background thread that has to be woken. strace makes commits so slow that on a busy machine
// those are many: of its figures the lower quartile is taken, but for syncs, of which no commit has more. What is counted without it comes from a run of its own; there, the median.

/// Per commit of one row.
public struct CommitCounters: Sendable, Equatable, CustomStringConvertible {
    public var systemCalls = 0
    /// fsync(2) and fdatasync(2).
    public var syncs = 0
    /// Bytes, by all of the commit's read and write calls.
    public var bytesRead = 0
    public var bytesWritten = 0
    /// Bytes of chunks that were fingerprinted.
    public var bytesHashed = 0
    /// Calls of malloc(3) and its kin.
    public var allocations = 0

    public var description: String {
        "\(systemCalls) system calls, \(syncs) of them syncs; \(bytesRead) bytes read, \(bytesWritten) written, \(bytesHashed) hashed; \(allocations) allocations"
    }

    public struct Failure: Error, CustomStringConvertible {
        public var description: String
        init(_ description: String) { self.description = description }
    }

    /// As `main` of the program that counts hands them on: nil where this process is not a child of `measure`.
    ///
    /// - Returns: the exit status.
    public static func runIfChild(_ arguments: [String]) -> Int32? {
        guard arguments.count == 7, arguments[1] == childWord, let mebibytes = Int(arguments[5]), let commits = Int(arguments[6])
        else { return nil }
        do {
            try child(ext: arguments[2], vfs: arguments[3], directory: arguments[4], mebibytes: mebibytes, commits: commits)
            return 0
        } catch {
            print("\(error)")
            return 1
        }
    }
    static let childWord = "count-commits"
    private static let mark = "/verneuil-commit"

    /// Counts commits to a database of `mebibytes`, sparse but for its first MiB, in a new directory within `directory`.
    ///
    /// - Parameters:
    ///   - ext: the extension's file.
    ///   - vfs: "unix" or "verneuil".
    public static func measure(
        ext: String, vfs: String, directory: String, mebibytes: Int, commits: Int = 40
    ) throws -> CommitCounters {
        let scratch = "\(directory)/verneuil-count-\(getpid())-\(vfs)-\(mebibytes)"
        defer { try? Files.removeTree(scratch) }
        guard let program = Files.canonical("/proc/self/exe") else { throw Failure("/proc/self/exe can't be read") }
        func run(_ prefix: String) throws -> String {
            try? Files.removeTree(scratch)
            try Files.makeDirectories(scratch, mode: 0o700)
            let pid = try shell(
                "exec timeout 120 \(prefix) '\(program)' \(childWord) '\(ext)' \(vfs) '\(scratch)' \(mebibytes) \(commits) >'\(scratch)/out' 2>&1")
            var status: Int32 = 0
            _ = vrn_waitpid(pid, &status)
            let said = String(decoding: try Files.read("\(scratch)/out") ?? [], as: UTF8.self)
            guard status == 0 else { throw Failure("\(vfs), \(mebibytes) MiB: \(prefix) ended with status \(status): \(said)") }
            return said
        }
        _ = try run("strace -f -o '\(scratch)/trace'")
        let trace = String(decoding: try Files.read("\(scratch)/trace") ?? [], as: UTF8.self)
        var counted = try counters(ofTrace: trace, commits: commits)
        let said = try run("env")
        for line in said.split(separator: "\n") {
            let words = line.split(separator: " ").compactMap { Int($0) }
            if line.hasPrefix("allocations ") { counted.allocations = median(words) }
            if line.hasPrefix("hashed ") { counted.bytesHashed = median(words) }
        }
        return counted
    }

    private static func shell(_ command: String) throws -> pid_t {
        var out: Int32 = -1
        let pid = try SystemError.check(vrn_spawn_shell(command, &out), "posix_spawn", "sh")
        _ = vrn_close(out)
        return pid
    }

    private static func median(_ values: [Int]) -> Int { quantile(2, values) }
    private static func quantile(_ part: Int, _ values: [Int]) -> Int {
        values.isEmpty ? 0 : values.sorted()[values.count / part]
    }

    // MARK: - strace's output

    /// strace -f: "PID name(arguments) = result", where another thread came between as two lines,
    /// "PID name(arguments <unfinished ...>" and "PID <... name resumed>rest) = result".
    static func counters(ofTrace trace: String, commits: Int) throws -> CommitCounters {
        var all: [CommitCounters] = []
        var current: CommitCounters?
        var thread: Substring?
        for line in trace.split(separator: "\n") {
            guard let space = line.firstIndex(of: " ") else { continue }
            let pid = line[..<space]
            let rest = line[space...].drop { $0 == " " }
            if rest.hasPrefix("access(\"\(mark)") {
                if rest.contains("-begin\"") {
                    thread = pid
                    current = CommitCounters()
                } else if let counted = current {
                    all.append(counted)
                    current = nil
                }
                continue
            }
            guard pid == thread, var counted = current else { continue }
            let isRest = rest.hasPrefix("<... ")
            let name = isRest ? rest.dropFirst(5).prefix { $0 != " " } : rest.prefix { $0 != "(" }
            if rest.hasPrefix("---") || rest.hasPrefix("+++") { continue }
            if !isRest {
                counted.systemCalls += 1
                if name == "fsync" || name == "fdatasync" { counted.syncs += 1 }
            }
            if !rest.hasSuffix("<unfinished ...>"), let equals = rest.lastIndex(of: "=") {
                let result = Int(rest[equals...].dropFirst(2).prefix { $0 != " " }) ?? 0
                switch name {
                case "read", "pread64", "preadv", "preadv2": counted.bytesRead += max(0, result)
                case "write", "pwrite64", "pwritev", "pwritev2": counted.bytesWritten += max(0, result)
                default: break
                }
            }
            current = counted
        }
        guard all.count == commits else { throw Failure("strace shows \(all.count) commits instead of \(commits)") }
        var result = CommitCounters()
        result.systemCalls = quantile(4, all.map(\.systemCalls))
        result.syncs = all.map(\.syncs).max() ?? 0
        result.bytesRead = quantile(4, all.map(\.bytesRead))
        result.bytesWritten = quantile(4, all.map(\.bytesWritten))
        return result
    }

    // MARK: - The child

    private static func child(ext: String, vfs: String, directory: String, mebibytes: Int, commits: Int) throws {
        let path = "\(directory)/counted.db"
        try SparseDatabase.make(path, mebibytes: mebibytes)
        setenv(
            "VERNEUIL_CONFIG",
            """
            {"replication_spooling_dir": "\(directory)/spool", "tempdir": "\(directory)",
             "replication_targets": [{"directory": {"path": "\(directory)/store"}}]}
            """, 1)
        let loader = try CountedConnection(":memory:", vfs: nil)
        try loader.load(ext)
        let db = try CountedConnection(path, vfs: vfs)
        try db.run("PRAGMA journal_mode=TRUNCATE")
        try db.run("UPDATE log SET note='first' WHERE id=1")
        var database: SpoolDatabase?
        if vfs == "verneuil" {
            guard try db.run("PRAGMA verneuil_flush_replication_data") == "1" else { throw Failure("flush failed") }
            guard let status = try Files.status(path), let canonical = Files.canonical(path) else { throw Failure("no \(path)") }
            database = SpoolDatabase(
                SpoolDirectory("\(directory)/spool"), path: canonical, device: status.device, inode: status.inode)
        }
        let statement = try db.prepare("UPDATE log SET note=?1 WHERE id=7")
        defer { sqlite3_finalize(statement) }
        // What is allocated once, at the first use, is no commit's.
        for i in 0..<8 { try db.step(statement, Int64(i)) }
        var allocations: [Int] = []
        var hashed: [Int] = []
        for i in 0..<commits {
            let before = try database?.control()?.producer.hashedBytes ?? 0
            _ = vrn_access("\(mark)-begin", F_OK)
            let count = allocation_count()
            try db.step(statement, 1000 + Int64(i))
            allocations.append(Int(allocation_count() - count))
            _ = vrn_access("\(mark)-end", F_OK)
            let after = try database?.control()?.producer.hashedBytes ?? 0
            hashed.append(Int(after - before))
        }
        print("allocations " + allocations.map { "\($0)" }.joined(separator: " "))
        print("hashed " + hashed.map { "\($0)" }.joined(separator: " "))
    }
}
