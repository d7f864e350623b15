import ArgumentParser
import CVerneuil
import FormatTestSupport
import VFSTestSupport
import VerneuilSystem

/// Each file operation of tracker, spool and copier fails in turn: the application sees nothing, the log says something, and
/// when the cause is gone everything is stored, without a restart.
struct FailingCalls: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "faults", abstract: "Makes each file operation of replication fail in turn.")

    @OptionGroup var common: CommonOptions
    @Option(help: "Only every so manyth operation, beginning with a random one.") var stride = 1
    @Option(help: "Only so many operations of each form, chosen at random; 0: as the stride says.") var calls = 0
    @Flag(help: "Each with one error, chosen at random, instead of all.") var oneError = false

    func run() throws {
        try Preloaded.run("faults-player", common, ["--stride", "\(stride)", "--calls", "\(calls)"] + (oneError ? ["--one-error"] : []))
    }
}

struct FailingCallsPlayer: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "faults-player", shouldDisplay: false)
    @Option var arena: String
    @Option var seed: UInt64
    @Option var stride: Int
    @Option var calls: Int
    @Flag var oneError = false

    static let errors = ["EIO", "ENOSPC", "EDQUOT", "EMFILE", "EACCES", "ENOENT"]
    static let width = 3
    /// What a case answers that says nothing, because one of SQLite's own calls failed.
    private static let otherCall = "another call"

    func run() throws {
        guard FaultIO.isLoaded else { throw Finding("faultio is not preloaded") }
        var figures = Figures()
        var findings: [String] = []
        var random = SeededGenerator(seed: seed)
        for mode in FaultMode.allCases {
            let reference = try observe(mode)
            let numbers = try mode == .all ? reference.numbers(missingIn: observe(mode, vfs: "linux")) : Array(reference.calls.indices)
            figures.note("\(mode)-calls", numbers.count)
            var plans: [(call: Int, plan: String)] = []
            var chosen = Array(Swift.stride(from: Int(seed % UInt64(stride)), to: numbers.count, by: stride))
            if calls > 0 { chosen = chosen.shuffled(using: &random).prefix(calls).sorted() }
            for i in chosen {
                let call = numbers[i]
                let errors = oneError ? [Self.errors[(i / stride + Int(seed % 6)) % 6]] : Self.errors
                for error in errors { plans.append((call, "at=\(call + 1);errno=\(error)" + (mode.lasts ? ";times=0" : ""))) }
            }
            for start in Swift.stride(from: 0, to: plans.count, by: Self.width) {
                var cases: [(plan: String, call: Int, arena: Arena, process: Case)] = []
                for (call, plan) in plans[start..<min(plans.count, start + Self.width)] {
                    let arena = try Arena.make(in: "\(self.arena)/cases", label: "\(mode)-\(call)")
                    let process = try Case(
                        Forked.start {
                            let run = FaultRun(arena: arena, mode: mode, vfs: "verneuil", seed: seed)
                            return try run.judge(plan, reference.calls[call], against: reference) ? "" : Self.otherCall
                        })
                    cases.append((plan, call, arena, process))
                }
                for one in cases {
                    let (status, answer) = one.process.finish()
                    figures.note(status == 0 && answer == Self.otherCall ? "others" : "cases", 1)
                    if status == 0 { one.arena.remove() } else {
                        findings.append("\(mode), \(one.plan), as a rule \(reference.calls[one.call]):\n\(answer) (status \(status))\nfiles: \(one.arena.root)")
                    }
                }
                if findings.count > 5 { break }
            }
        }
        // A few in a thousand.
        if figures["others"] > figures["cases"] / 10 + 2 { findings.append("\(figures): the calls aren't the ones that are listed") }
        if !findings.isEmpty { throw Finding(findings.joined(separator: "\n\n")) }
        Child.report(figures)
    }

    private final class Case {
        private var process: Forked?
        init(_ process: consuming Forked) { self.process = consume process }
        func finish() -> (status: Int32, answer: String) { process.take()?.finish() ?? (-1, "it has ended") }
    }

    /// A run in which nothing fails.
    private func observe(_ mode: FaultMode, vfs: String = "verneuil") throws -> FaultReference {
        let arena = try Arena.make(in: "\(self.arena)/cases", label: "\(mode)-\(vfs)")
        defer { arena.remove() }
        do {
            return try FaultReference(
                Forked.run { try FaultRun(arena: arena, mode: mode, vfs: vfs, seed: seed).observe() }, calls: FaultRun.calls(arena))
        } catch {
            throw Finding("\(mode), nothing failing, \(vfs): \(error)")
        }
    }
}

/// Whose calls fail, and for how long.
enum FaultMode: String, CaseIterable {
    /// One call of the connection's thread, on any file: the calls that the linux VFS alone doesn't make.
    case all
    /// The same where a stranger writes in between, and only on what SQLite has no part in.
    case stranger
    /// All calls from one on, until the cause is gone.
    case lasting
    /// One call of the threads in the background.
    case background

    var lasts: Bool { self == .lasting }

    func scope(_ arena: Arena) -> String {
        switch self {
        case .all: "thread=main;path=^$|^\(arena.root)/(db|spool|store\\.[0-9])(/|$)"
        case .stranger, .lasting: "thread=main;path=^\(arena.root)/(spool|store\\.[0-9])(/|$)"
        case .background: "thread=other;path=^\(arena.root)/(db|spool|store\\.[0-9])(/|$)"
        }
    }
}

/// What happens when nothing fails.
struct FaultReference {
    /// Of each step, what SQLite answered.
    let answers: [String]
    /// The epoch at the end: another one means that a full snapshot was needed.
    let epoch: String
    let descriptors: Int
    let calls: [String]

    init(_ text: String, calls: [String]) throws {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        guard lines.count > 2, let descriptors = Int(lines[1]) else { throw Finding("what is \(text)?") }
        epoch = lines[0]
        self.descriptors = descriptors
        answers = Array(lines[2...])
        self.calls = calls
    }

    /// Which of our calls the other run doesn't make: a longest common subsequence is what both do.
    func numbers(missingIn other: FaultReference) -> [Int] {
        let a = calls, b = other.calls
        var length = [[Int32]](repeating: [Int32](repeating: 0, count: b.count + 1), count: a.count + 1)
        for i in a.indices.reversed() {
            for j in b.indices.reversed() {
                length[i][j] = a[i] == b[j] ? length[i + 1][j + 1] + 1 : max(length[i + 1][j], length[i][j + 1])
            }
        }
        var missing: [Int] = []
        var (i, j) = (0, 0)
        while i < a.count {
            if j < b.count, a[i] == b[j] {
                (i, j) = (i + 1, j + 1)
            } else if j == b.count || length[i + 1][j] >= length[i][j + 1] {
                missing.append(i)
                i += 1
            } else {
                j += 1
            }
        }
        return missing
    }
}
