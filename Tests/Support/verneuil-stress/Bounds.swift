import ArgumentParser
import CSQLite
import CVerneuil
import CommitCounters
import FormatTestSupport
import VerneuilSystem

/// P4, and that a store which is no use costs the application nothing: random writes, all the time, by a host that
/// loads the extension, with a store that can't be reached, one that hangs, and one that refuses.
struct Bounds: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Stores that are no use: the spool stays below four times the database, memory and commits stay as they are.")

    @OptionGroup var common: CommonOptions
    @Option(help: "For how long.") var seconds = 15
    @Option(help: "Of each database, in the beginning.") var mebibytes = 8

    func validate() throws {
        guard seconds >= 3, (1...1024).contains(mebibytes) else {
            throw ValidationError("--seconds is at least 3, --mebibytes 1 to 1024")
        }
    }

    func run() throws {
        try common.supervise("bounds") { arena, seed in
            var random = SeededGenerator(seed: seed)
            var places: [Place] = []
            for server in BrokenServer.allCases {
                let place = Place(root: "\(arena.root)/\(server.rawValue)", name: server.rawValue)
                try Files.makeDirectories(place.root, mode: 0o755)
                try place.fill(mebibytes)
                let configuration = """
                    {"replication_spooling_dir": "\(place.spool)", "tempdir": "\(place.root)", "replication_targets": [{"s3": {
                     "region": "us-east-1", "endpoint": "http://127.0.0.1:\(try server.start())", "chunk_bucket": "chunks",
                     "manifest_bucket": "manifests", "domain_addressing": false}}]}
                    """
                place.child = try Child.start(
                    ["bounds-writer", "--root", place.root, "--seed", "\(random.next())", "--seconds", "\(seconds)"],
                    environment: ["VERNEUIL_CONFIG=\(configuration)", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"])
                places.append(place)
            }
            // From outside: how much there is, all the time, and now and then a stranger's commit, after which everything
            // is staged afresh beside what was staged before.
            var looks = 0
            while places.contains(where: { $0.child?.isRunning ?? false }) {
                for place in places { try place.look() }
                looks += 1
                let place = places[Int.random(in: 0..<places.count, using: &random)]
                if Int.random(in: 0..<40, using: &random) == 0 { place.commitAsStranger() }
                usleep(25_000)
                Watchdog.shared.pet()
            }
            var figures = Figures()
            for place in places {
                guard let child = place.child else { continue }
                let found = try child.figures()
                try place.judge(found)
                figures.note("\(place.name)-commits", found["commits"])
                figures.note("\(place.name)-spool-percent", Int(place.worst * 100))
                figures.note("\(place.name)-rss-kib", found["rss-end"])
                figures.note("\(place.name)-rss-growth-kib", found["rss-end"] - found["rss-third"])
                figures.note("\(place.name)-commit-ns", found["cpu-last"])
                figures.note("\(place.name)-commit-ns-at-first", found["cpu-first"])
                figures.note("\(place.name)-commit-wall-ns", found["wall-last"])
                figures.note("\(place.name)-commit-wall-ns-at-first", found["wall-first"])
                figures.note("\(place.name)-unreplicated-wall-ns", found["control-last"])
                figures.note("\(place.name)-unreplicated-wall-ns-at-first", found["control-first"])
                figures.note("\(place.name)-strangers", place.strangers)
            }
            figures.note("looks", looks)
            figures.note("mebibytes", mebibytes)
            return figures
        }
    }

    /// One store, its database and its spool.
    private final class Place {
        let root: String
        let name: String
        var child: Child?
        /// The spool's largest size, in databases.
        var worst = 0.0
        var strangers = 0
        private var stranger: Connection?

        init(root: String, name: String) {
            self.root = root
            self.name = name
        }

        var database: String { "\(root)/app.db" }
        var spool: String { "\(root)/spool" }

        func fill(_ mebibytes: Int) throws {
            let db = try Connection(database, vfs: "unix")
            try db.rows("PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
            try db.rows(
                """
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(mebibytes * 1000))
                INSERT INTO t SELECT i, randomblob(980) FROM n
                """)
        }

        func look() throws {
            guard let size = try Files.status(database)?.size, size > 0 else { return }
            let used = SpoolUse.allocated(spool)
            worst = max(worst, Double(used) / Double(size))
            if used > 4 * size + SpoolUse.constant {
                throw Finding("P4: \(name): the spool takes \(used) bytes, the database has \(size)")
            }
        }

        func commitAsStranger() {
            do {
                if stranger == nil { stranger = try Connection(database, vfs: "unix") }
                stranger?.waitForLocks(milliseconds: 2000)
                try stranger?.rows("UPDATE t SET data=randomblob(980) WHERE id=1")
                strangers += 1
            } catch {
                stranger?.rollBack()
            }
        }

        /// What the writer found of itself.
        func judge(_ figures: Figures) throws {
            let growth = figures["rss-end"] - figures["rss-third"]
            if growth > 16 << 10 {
                throw Finding("\(name): resident memory grew by \(growth) KiB in the last two thirds of the run: \(figures)")
            }
            if figures["cpu-last"] > figures["cpu-first"] * 3 / 2 + 20_000 {
                throw Finding("\(name): commits became slower: \(figures)")
            }
            // Half of the commits: what other programs take of the processor makes some slow. Where they take most of it, the
            // commits that nobody replicates became slower as well.
            let machine = max(1, Double(figures["control-last"]) / Double(max(1, figures["control-first"])))
            if Double(figures["wall-last"]) > 3 * machine * Double(figures["wall-first"]) + 2_000_000 {
                throw Finding("\(name): commits became slower by the clock: \(figures)")
            }
            if figures["commits"] < 50 { throw Finding("\(name): hardly any commits: \(figures)") }
        }
    }
}

/// A host with the extension, which commits all the time and watches itself.
struct BoundsWriter: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "bounds-writer", shouldDisplay: false)
    @Option var root: String
    @Option var seed: UInt64
    @Option var seconds: Int

    func run() throws {
        // What the extension logs goes to a file.
        let log = try Descriptor("\(root)/log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o644)
        dup2(log.fd, 2)
        var random = SeededGenerator(seed: seed)
        let loader = try CountedConnection(":memory:", vfs: nil)
        try loader.load(try Beside.extensionPath())
        let db = try Connection("\(root)/app.db", vfs: "verneuil")
        db.waitForLocks(milliseconds: 10_000)
        try db.rows("PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; PRAGMA cache_size=-4000")
        let rows = try db.number("SELECT count(*) FROM t")
        // The same commits, but nobody replicates them.
        let control = try Connection("\(root)/control.db", vfs: "unix")
        try control.rows("PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=OFF; PRAGMA cache_size=-4000")
        try control.rows("ATTACH '\(root)/app.db' AS app; CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)")
        try control.rows("INSERT INTO t SELECT * FROM app.t; DETACH app")
        let start = MonotonicTime.now
        // Thread time: what the machine's other work costs is nobody's commit. And time by the clock, for what is waited for.
        var first: [UInt64] = []
        var last: [UInt64] = []
        var wallFirst: [UInt64] = []
        var wallLast: [UInt64] = []
        var controlFirst: [UInt64] = []
        var controlLast: [UInt64] = []
        var memory = 0
        var commits = 0
        while true {
            let age = MonotonicTime.now.seconds(since: start) / Double(seconds)
            if age >= 1 { break }
            if age >= 1 / 3.0 && memory == 0 { memory = Self.residentKiB() }
            let count = Int.random(in: 1...4, using: &random)
            let ids = (0..<count).map { _ in "\(Int64.random(in: 1...rows, using: &random))" }.joined(separator: ",")
            let statement = "UPDATE t SET data=randomblob(980) WHERE id IN (\(ids))"
            let (before, began) = (Self.threadNanoseconds(), MonotonicTime.now.nanoseconds)
            try db.rows(statement)
            let (time, between) = (Self.threadNanoseconds() - before, MonotonicTime.now.nanoseconds)
            try control.rows(statement)
            let (wall, controlled) = (between - began, MonotonicTime.now.nanoseconds - between)
            commits += 1
            if age < 1 / 3.0 {
                first.append(time)
                wallFirst.append(wall)
                controlFirst.append(controlled)
            } else if age >= 2 / 3.0 {
                last.append(time)
                wallLast.append(wall)
                controlLast.append(controlled)
            }
        }
        var figures = Figures()
        figures.note("commits", commits)
        figures.note("rss-third", memory)
        figures.note("rss-end", Self.residentKiB())
        figures.note("cpu-first", Self.median(first))
        figures.note("cpu-last", Self.median(last))
        figures.note("wall-first", Self.median(wallFirst))
        figures.note("wall-last", Self.median(wallLast))
        figures.note("control-first", Self.median(controlFirst))
        figures.note("control-last", Self.median(controlLast))
        Child.report(figures)
    }

    private static func median(_ values: [UInt64]) -> Int {
        values.isEmpty ? 0 : Int(values.sorted()[values.count / 2])
    }

    private static func threadNanoseconds() -> UInt64 {
        var t = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
        return UInt64(t.tv_sec) * 1_000_000_000 + UInt64(t.tv_nsec)
    }

    private static func residentKiB() -> Int {
        let text = String(decoding: (try? Files.read("/proc/self/statm")) ?? [], as: UTF8.self)
        let words = text.split(separator: " ")
        return words.count > 1 ? (Int(words[1]) ?? 0) * Int(sysconf(Int32(_SC_PAGESIZE))) / 1024 : 0
    }
}

/// Programs beside this one.
enum Beside {
    static func product(_ name: String) throws -> String {
        guard let program = Files.canonical("/proc/self/exe") else { throw Finding("/proc/self/exe can't be read") }
        let path = "\(Files.directory(of: program))/\(name)"
        guard try Files.status(path) != nil else { throw Finding("\(path) isn't built") }
        return path
    }
    static func extensionPath() throws -> String { try product("libverneuil_vfs.so") }
}
