import ArgumentParser
import FormatTestSupport

/// Whatever applications do: what is staged after each commit, what is stored after each flush, and what a replica
/// reads, are the database's bytes.
struct Oracle: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Random applications; database = staged = stored = replica, byte for byte.")

    @OptionGroup var common: CommonOptions
    @Option(help: "How many commits, by all processes together.") var commits = 10_000
    @Option(help: "How many databases, 1 to 20; otherwise as the seed says.") var databases: Int?
    @Option(help: "How many processes, 1 to 4; otherwise as the seed says.") var processes: Int?
    @Flag(help: "SQLite's own unix VFS, and nothing replicated: what SQLite does by itself.") var bare = false
    @Flag(help: "PRAGMA integrity_check after each commit.") var check = false
    @Flag(help: "Write all statements to log/trace.PID.") var trace = false
    @Option(help: "How many commits between two flushes, on average.") var flushEvery = 40

    func validate() throws {
        guard commits > 0, flushEvery > 0, (1...20).contains(databases ?? 1), (1...4).contains(processes ?? 1) else {
            throw ValidationError("--databases is 1 to 20, --processes 1 to 4, the rest above 0")
        }
    }

    func run() throws {
        try common.supervise("oracle") { arena, seed in
            var random = SeededGenerator(seed: seed)
            let databases = self.databases ?? Int.random(in: 1...20, using: &random)
            let processes = self.processes ?? Int.random(in: 1...4, using: &random)
            let budgets = [0, 0.000_05, 0.001, 0.02, 0.02]
            let budget = budgets[Int.random(in: 0..<budgets.count, using: &random)]
            let targets = Int.random(in: 1...3, using: &random)
            var children: [Child] = []
            for index in 0..<processes {
                var arguments: [String] = ["oracle-player", "--arena", arena.root]
                arguments += ["--seed", String(seed &+ UInt64(index) &* 7919)]
                arguments += ["--commits", String((commits + processes - 1) / processes)]
                arguments += ["--databases", String(databases), "--targets", String(targets)]
                arguments += ["--budget", String(budget), "--flush-every", String(flushEvery)]
                if processes == 1 { arguments.append("--alone") }
                arguments += [(bare, "--bare"), (check, "--check"), (trace, "--trace")].filter(\.0).map(\.1)
                children.append(try Child.start(arguments))
            }
            var figures = Figures()
            for child in children { figures.add(try child.figures()) }
            figures.note("databases", databases)
            figures.note("processes", processes)
            figures.note("targets", targets)
            // In a long run nothing is left out, whatever the seed. (With one database none is attached or copied.)
            if commits >= 10_000 && databases > 1 {
                for kind in Coverage.kinds where figures[kind] == 0 {
                    throw Finding("nothing was done of the kind \"\(kind)\": \(figures)")
                }
            }
            return figures
        }
    }
}
