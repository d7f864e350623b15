import ArgumentParser
import CSQLite
import CVerneuil
import CommitCounters
import FormatTestSupport
import VerneuilStore
import VerneuilSystem

/// No stall: two processes begin to write to a database that was never replicated while a third one reads it. Their first
/// commits take hardly longer than with SQLite's own VFS, and the snapshot is finished while they go on.
struct Stall: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "The first commits on a database that was never replicated, and its first snapshot under commits.")

    @OptionGroup var common: CommonOptions
    @Option(help: "The database's size.") var mebibytes = 1024
    @Option(help: "So much of it has content; the rest is sparse.") var real = 64
    @Option(help: "Commits a second, by both writers together.") var rate = 100
    @Option(help: "How much longer than with the unix VFS a first commit may take, in ms.") var limit = 50
    @Option(help: "How often to try again where a first commit took longer: other programs may be to blame.") var retries = 3
    @Option(help: "For how long commits may go on until the snapshot is stored, in seconds.") var patience = 60

    func run() throws {
        try common.supervise("stall") { arena, _ in
            var figures = Figures()
            var slow: [Int] = []
            for attempt in 0...retries {
                let path = arena.database(attempt)
                try SparseDatabase.make(path, mebibytes: mebibytes, realMebibytes: real)
                // A spool and a store of its own for each attempt.
                let place = "\(arena.root)/attempt.\(attempt)"
                try Files.makeDirectories(place, mode: 0o755)
                let plain = try play(arena, path, vfs: "unix", place: nil)
                let ours = try play(arena, path, vfs: "verneuil", place: place)
                let extra = ours["first-us"] - plain["first-us"]
                if extra > limit * 1000 {
                    slow.append(extra)
                    try Files.remove(path)
                    continue
                }
                figures.note("mebibytes", mebibytes)
                figures.note("unix-first-us", plain["first-us"])
                figures.note("first-us", ours["first-us"])
                figures.note("unix-slowest-us", plain["slowest-us"])
                figures.note("slowest-us", ours["slowest-us"])
                figures.note("commits", ours["commits"])
                figures.note("rate", ours["rate"])
                figures.note("snapshot-ms", ours["snapshot-ms"])
                figures.note("retries", slow.count)
                if ours["rate"] < rate / 2 { throw Finding("commits did not go on while the snapshot was taken: \(figures)") }
                try compare(arena, path, place)
                return figures
            }
            throw Finding("a first commit took \(slow) µs longer than with the unix VFS")
        }
    }

    /// With spool and store in the directory `place`.
    private func configured(_ place: String) -> [String] {
        [
            """
            VERNEUIL_CONFIG={"replication_spooling_dir": "\(place)/spool", "tempdir": "/var/tmp",
             "replication_targets": [{"directory": {"path": "\(place)/store"}}]}
            """
        ]
    }

    /// Both writers and the reader, until there is a manifest in the store; without one: for half a second.
    private func play(_ arena: Arena, _ path: String, vfs: String, place: String?) throws -> Figures {
        let environment = configured(place ?? arena.root)
        let stop = arena.side("stop-\(vfs)")
        try Files.writeAtomically([], to: stop + ".wait", mode: 0o644)
        let common = ["--database", path, "--stop", stop]
        let reader = try Child.start(["stall-reader"] + common, environment: environment)
        var writers: [Child] = []
        for index in 0..<2 {
            writers.append(
                try Child.start(
                    ["stall-writer", "--vfs", vfs, "--row", "\(index + 1)", "--pause", "\(2_000_000 / rate)"] + common,
                    environment: environment))
        }
        // Both begin at once, when all are ready.
        while try Files.list(arena.side("")).filter({ $0.contains(".ready.") }).count < 3 {
            usleep(1000)
            for child in [reader] + writers where !child.isRunning { throw Finding("a process ended:\n\(child.text())") }
        }
        let start = MonotonicTime.now
        try Files.remove(stop + ".wait")
        var snapshot = 0.0
        while true {
            usleep(20_000)
            Watchdog.shared.pet()
            let elapsed = MonotonicTime.now.seconds(since: start)
            guard let place else {
                if elapsed > 0.5 { break }
                continue
            }
            if try Files.status("\(place)/store/manifests") != nil, try !Files.list("\(place)/store/manifests").isEmpty {
                snapshot = elapsed
                break
            }
            if elapsed > Double(patience) { throw Finding("no snapshot was stored within \(patience) s of commits") }
        }
        if place != nil { usleep(500_000) }
        let elapsed = MonotonicTime.now.seconds(since: start)
        try Files.writeAtomically([], to: stop, mode: 0o644)
        var sum = Figures()
        var first = 0
        var slowest = 0
        for writer in writers {
            let found = try writer.figures()
            if found["commits"] == 0 { throw Finding("a writer made no commit") }
            first = max(first, found["first-us"])
            slowest = max(slowest, found["slowest-us"])
            sum.note("commits", found["commits"])
        }
        _ = try reader.figures()
        for name in try Files.list(arena.side("")) where name.hasPrefix("stop-") { try Files.remove(arena.side(name)) }
        sum.note("first-us", first)
        sum.note("slowest-us", slowest)
        sum.note("rate", Int(Double(sum["commits"]) / elapsed))
        sum.note("snapshot-ms", Int(snapshot * 1000))
        return sum
    }

    /// What is stored is the database.
    private func compare(_ arena: Arena, _ path: String, _ place: String) throws {
        let tool = try Beside.product("verneuilctl")
        let environment = configured(place)
        func run(_ arguments: [String], _ program: String) throws {
            let child = try Child.start(arguments, environment: environment, program: program)
            // Large databases take their time.
            while child.isRunning {
                usleep(20_000)
                Watchdog.shared.pet()
            }
            let said = child.text()
            let status = child.wait()
            if status != 0 { throw Finding("\(arguments.joined(separator: " ")) ended with status \(status): \(said)") }
        }
        try run(["flush", "\(place)/spool"], tool)
        try run(["restore", "--source-path", path, "--out", arena.side("restored.db")], tool)
        try run([path, arena.side("restored.db")], "/usr/bin/cmp")
    }
}

/// Commits one row again and again.
struct StallWriter: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "stall-writer", shouldDisplay: false)
    @Option var database: String
    @Option var stop: String
    @Option var vfs: String
    @Option var row: Int
    @Option(help: "Between two commits, in µs.") var pause: Int

    func run() throws {
        let loader = try CountedConnection(":memory:", vfs: nil)
        if vfs == "verneuil" { try loader.load(try Beside.extensionPath()) }
        try Files.writeAtomically([], to: "\(stop).ready.\(getpid())", mode: 0o644)
        while vrn_access(stop + ".wait", F_OK) == 0 { usleep(500) }
        // Opening belongs to the first commit: the snapshot begins with it, within the commit where that is fast enough.
        let began = MonotonicTime.now
        let db = try Connection(database, vfs: vfs)
        db.waitForLocks(milliseconds: 10_000)
        try db.rows("PRAGMA journal_mode=TRUNCATE")
        var first = 0
        var slowest = 0
        var commits = 0
        var next = MonotonicTime.now
        while vrn_access(stop, F_OK) != 0 {
            let before = commits == 0 ? began : MonotonicTime.now
            try db.rows("UPDATE log SET note='commit \(commits)' WHERE id=\(row)")
            let time = Int(MonotonicTime.now.seconds(since: before) * 1e6)
            if commits == 0 { first = time }
            slowest = max(slowest, time)
            commits += 1
            next = next.advanced(seconds: Double(pause) / 1e6)
            let rest = next.seconds(since: MonotonicTime.now)
            if rest > 0 { usleep(UInt32(rest * 1e6)) } else { next = MonotonicTime.now }
        }
        var figures = Figures()
        figures.note("first-us", first)
        figures.note("slowest-us", slowest)
        figures.note("commits", commits)
        Child.report(figures)
    }
}

/// Reads all rows again and again.
struct StallReader: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "stall-reader", shouldDisplay: false)
    @Option var database: String
    @Option var stop: String

    func run() throws {
        let db = try Connection(database, vfs: "unix")
        db.waitForLocks(milliseconds: 10_000)
        var reads = 0
        try Files.writeAtomically([], to: "\(stop).ready.\(getpid())", mode: 0o644)
        while vrn_access(stop, F_OK) != 0 {
            try db.rows("PRAGMA cache_size=10; SELECT sum(length(data)) FROM filler")
            reads += 1
            usleep(2000)
        }
        var figures = Figures()
        figures.note("reads", reads)
        Child.report(figures)
    }
}
