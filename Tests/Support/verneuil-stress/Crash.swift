import ArgumentParser
import CVerneuil
import FormatTestSupport
import VFSTestSupport
import VerneuilStore
import VerneuilSystem

/// The spool's protocol is a list of file operations: a process dies before each of them in turn, for each kind of operation.
struct Crash: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Kills a process before each of its file operations in turn, and looks at what is left.")

    @OptionGroup var common: CommonOptions
    @Option(help: "Only every so manyth operation, beginning with a random one.") var stride = 1
    @Option(help: "Only scenarios whose name contains this.") var only = ""
    @Option(help: "Only so many operations of each scenario, chosen at random; 0: as the other options say.") var deaths = 0
    @Flag(help: "Also those of which there are many of a kind: the pages of a large transaction, the chunks of an upload.")
    var every = false
    @Flag(help: "Print the operations of each scenario instead.") var list = false

    func run() throws {
        try Preloaded.run(
            "crash-player", common,
            ["--stride", "\(stride)", "--only", only, "--deaths", "\(deaths)"] + (every ? ["--every"] : []) + (list ? ["--list"] : []))
    }
}

/// Runs this program again with faultio preloaded, which fails, kills and records.
enum Preloaded {
    static func run(_ command: String, _ common: CommonOptions, _ arguments: [String]) throws {
        try common.supervise(command.replacing("-player", with: "")) { arena, seed in
            let library = try FaultIO.build(in: arena.root)
            let child = try Child.start(
                [command, "--arena", arena.root, "--seed", "\(seed)"] + arguments,
                environment: ["LD_PRELOAD=\(library)", "FAULTIO="])
            let said = child.text()
            let status = child.wait()
            guard status == 0 else { throw Finding("process \(child.pid) ended with status \(status):\n\(said)") }
            // A list is all there is to see then.
            if arguments.contains("--list") { print(said) }
            return Child.figures(in: said)
        }
    }
}

struct CrashPlayer: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "crash-player", shouldDisplay: false)
    @Option var arena: String
    @Option var seed: UInt64
    @Option var stride: Int
    @Option var only: String
    @Option var deaths: Int
    @Flag var every = false
    @Flag var list = false

    /// Cases at the same time: most of their time is waiting.
    static let width = 4
    static let operations = "create,pwrite,write,ftruncate,fallocate,unlink,rename,link,mkdir,rmdir,chmod,fchmod,fsetxattr,utimens"

    func run() throws {
        guard FaultIO.isLoaded else { throw Finding("faultio is not preloaded") }
        var figures = Figures()
        var findings: [String] = []
        var kinds = CrashKinds()
        var random = SeededGenerator(seed: seed)
        for scenario in CrashScenario.all where only.isEmpty || scenario.name.contains(only) {
            let operations = try record(scenario)
            kinds.see(operations)
            if list {
                print("\(scenario.name): \(operations.count) operations\n" + operations.map { "  \($0)" }.joined(separator: "\n"))
                continue
            }
            figures.note("scenarios", 1)
            figures.note("operations", operations.count)
            let chosen = every ? Array(1...operations.count + 1) : thinned(operations)
            var all = Swift.stride(from: Int(seed % UInt64(stride)), to: chosen.count, by: stride).map { chosen[$0] }
            if deaths > 0 { all = all.shuffled(using: &random).prefix(deaths).sorted() }
            for start in Swift.stride(from: 0, to: all.count, by: Self.width) {
                var cases: [Case] = []
                for number in all[start..<min(all.count, start + Self.width)] { cases.append(try Case(self, scenario, number)) }
                for one in cases {
                    let finding = one.finish()
                    figures.note("cases", 1)
                    guard let finding else { continue }
                    let operation = one.number <= operations.count ? operations[one.number - 1] : "the end"
                    findings.append("\(scenario.name), before operation \(one.number) (\(operation)):\n\(finding)\nfiles: \(one.arena.root)")
                }
                if findings.count > 5 { break }
            }
        }
        if only.isEmpty {
            if let complaint = kinds.complaint { findings.append(complaint) }
            figures.note("kinds", CrashKinds.known.count)
        }
        if !findings.isEmpty { throw Finding(findings.joined(separator: "\n\n")) }
        Child.report(figures)
    }

    /// One death and its judgement, in a process of its own.
    private final class Case {
        let number: Int
        let arena: Arena
        private var process: Forked?

        init(_ player: CrashPlayer, _ scenario: CrashScenario, _ number: Int) throws {
            self.number = number
            let arena = try Arena.make(in: "\(player.arena)/cases", label: "\(scenario.name)-\(number)")
            self.arena = arena
            process = try Forked.start {
                let stored = try player.setUp(scenario, arena)
                let plan = "calls=\(CrashPlayer.operations);path=\(CrashPlayer.scope(arena));at=\(number);kill=before"
                let (status, answer) = try player.operate(scenario, arena, plan).finish()
                guard status == 0 || status == Int32(SIGKILL) else { throw Finding("the operation failed: \(answer) (\(status))") }
                try Forked.run {
                    try CrashJudge(arena: arena, scenario: scenario, storedBefore: stored).judge(seed: player.seed &+ UInt64(number))
                    return ""
                }
                return ""
            }
        }

        /// nil: all is well.
        func finish() -> String? {
            guard let process = process.take() else { return "it has ended" }
            let (status, answer) = process.finish()
            if status == 0 { arena.remove() }
            return status == 0 ? nil : "\(answer) (status \(status))"
        }
    }

    /// The commit that is stored afterwards; -1: none.
    func setUp(_ scenario: CrashScenario, _ arena: Arena) throws -> Int64 {
        let answer = try Forked.run {
            let stage = try CrashStage(arena, seed: seed, targets: scenario.targets)
            try scenario.setUp(stage)
            let image = try StoredImage.read(arena.store(0), arena.manifestName(stage.ledger.path))
            return try image.map { "\(try Ledger.verify($0.bytes, scratch: arena.side("judge")).commit)" } ?? "-1"
        }
        return Int64(answer) ?? -1
    }

    func operate(_ scenario: CrashScenario, _ arena: Arena, _ plan: String) throws -> Forked {
        try Forked.start {
            let stage = try CrashStage(arena, seed: seed &+ 1, targets: scenario.targets, scenario.change)
            try scenario.approach(stage)
            FaultIO.configure(plan)
            try scenario.operate(stage)
            return ""
        }
    }

    /// All that is in the arena, but what the tests write themselves.
    static func scope(_ arena: Arena) -> String { "^\(arena.root)/(db|spool|store\\.[0-9])(/|$)" }

    /// The first eight and the last four operations of each kind, by number; and the end, where nobody is killed.
    private func thinned(_ operations: [String]) -> [Int] {
        let kinds = operations.map { operation in
            let words = operation.split(separator: " ")
            return "\(words[0]) \(words.dropFirst().first.map { Files.lastComponent(of: String($0)).filter(\.isLetter) } ?? "")"
        }
        let total = Dictionary(grouping: kinds, by: \.self).mapValues(\.count)
        var seen: [String: Int] = [:]
        var numbers: [Int] = []
        for (i, kind) in kinds.enumerated() {
            seen[kind, default: 0] += 1
            if let n = seen[kind], n <= 8 || n > (total[kind] ?? 0) - 4 { numbers.append(i + 1) }
        }
        return numbers + [operations.count + 1]
    }

    /// What the operation does to files, in order, with the arena's name left out.
    private func record(_ scenario: CrashScenario) throws -> [String] {
        let arena = try Arena.make(in: "\(self.arena)/cases", label: "\(scenario.name)-list")
        defer { arena.remove() }
        let log = arena.side("calls")
        do {
            _ = try setUp(scenario, arena)
            let (status, answer) = try operate(
                scenario, arena, "calls=\(Self.operations);path=\(Self.scope(arena));log=\(log)").finish()
            guard status == 0 else { throw Finding("\(answer) (status \(status))") }
        } catch {
            throw Finding("\(scenario.name): \(error)")
        }
        return String(decoding: try Files.read(log) ?? [], as: UTF8.self).split(separator: "\n").map { line in
            line.split(separator: " ").dropFirst().joined(separator: " ").replacing(arena.root + "/", with: "")
        }
    }
}
