import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

/// A call of a run without faults.
struct FaultCall {
    /// Among all that matched.
    let number: Int
    let name: String
    /// Of FaultWorkload.
    let step: String
    /// What it does, in words that are the same for the same call of the other VFS.
    let what: String
    /// The plan acted on it.
    let isFaulted: Bool
}

/// A process that runs the workload through one VFS.
final class FaultRunner {
    let tool: ToolProcess
    let vfs: String
    let scratch: ScratchDirectory
    /// Everything below the scratch directory, calls without a file, and the marks between the steps. What replication does
    /// in the background is not SQLite's caller's.
    private var scope: String { "thread=main;path=^/step/|^\(scratch.path)/[ws]|^$" }

    private let directory: String

    /// `verneuil` replicates to a spooling directory of its own.
    init(vfs: String, faultio: String, _ scratch: ScratchDirectory) throws {
        self.vfs = vfs
        self.scratch = scratch
        // Of the same length: the name of a super-journal stands in the journals.
        directory = scratch.file("w-\(vfs)" + String(repeating: "-", count: 8 - vfs.utf8.count))
        try Files.makeDirectories(directory)
        tool = try ToolProcess(environment: [
            "LD_PRELOAD": faultio, "FAULTIO": "", "SQLITE_TMPDIR": directory,
        ])
        if vfs == "verneuil" {
            let answer = try tool.ask("replicate", scratch.file("spool"))
            try #require(answer == ["0"])
        }
    }

    /// Starts a run.
    ///
    /// - Parameters:
    ///   - isLogged: its calls are written down, for `logged`.
    ///   - onlySpool: `plan` is about calls on the spooling directory alone, by whatever thread.
    func begin(_ plan: String, isLogged: Bool = true, onlySpool: Bool = false) throws {
        var scope = onlySpool ? "path=^\(scratch.path)/spool" : scope
        if isLogged {
            try Files.remove(log)
            scope += ";log=\(log)"
        }
        try tool.send(["workload", vfs, "\(directory)/run", "\(scope);\(plan)"])
    }

    /// The code of each step, and what became of the files.
    func finish() throws -> (codes: [String], state: String) {
        let words = try tool.receive()
        return (Array(words.dropLast()), words.last ?? "")
    }

    /// All calls of a run without faults.
    func calls() throws -> [FaultCall] {
        try begin("")
        let outcome = try finish()
        #expect(outcome.codes == FaultWorkload.steps.map { _ in "0" } && outcome.state == "ok")
        return try logged()
    }

    private var log: String { scratch.file("\(vfs).log") }

    /// What `begin` had written down.
    func logged() throws -> [FaultCall] {
        var step = ""
        var calls: [FaultCall] = []
        for line in String(decoding: try Files.read(log) ?? [], as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 4, let number = Int(words[0]) else { continue }
            if words[2].hasPrefix("/step/") {
                step = String(words[2].dropFirst(6))
                continue
            }
            let name = Self.commonName(words[1])
            var file = String(words[2])
            if file.hasPrefix(scratch.file("spool")) {
                file = "spool/\(Self.sameEachTime(Files.lastComponent(of: file)))"
            } else {
                // Without a name there, with one that is removed at once here.
                if name == "open", words[3].hasPrefix("0222") { file = "temporary" }
                if file.contains("/#") || file.contains("etilqs_") || line.contains("(deleted)") { file = "temporary" }
                // The name of a super-journal is random.
                if let random = file.firstRange(of: "-mj") { file = String(file[..<random.upperBound]) }
                file = file == directory ? "tmpdir" : String(file.split(separator: "/").last ?? "-")
            }
            let detail = ["lock", "pread", "pwrite"].contains(name) && file != "temporary" ? words[3] : ""
            calls.append(
                FaultCall(
                    number: number, name: String(words[1]), step: step, what: "\(name) \(file) \(detail)",
                    isFaulted: line.hasSuffix(" !")))
        }
        return calls
    }

    /// A name in the spool without what differs from run to run: when the control page was made, which is in the upper bits of
    /// an epoch's number; a database's inode; what temporary names end with.
    private static func sameEachTime(_ name: String) -> String {
        if name.hasPrefix("epoch."), let number = UInt64(name.dropFirst(6)) { return "epoch.\(number & 0xFFFF)" }
        if name.hasPrefix(".tmp.") { return ".tmp" }
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        return parts.count == 2 && parts.allSatisfy { UInt64($0, radix: 16) != nil } ? "DEVICE-INODE" : name
    }

    /// Directories are synced by one with fsync, by the other with fdatasync.
    private static func commonName(_ name: Substring) -> String {
        name == "fsync" || name == "fdatasync" ? "sync" : String(name)
    }

    static func faults(for call: String) -> [String] {
        let all = ["errno=EIO", "errno=ENOSPC", "errno=EINTR", "errno=EMFILE", "errno=EIO;times=0"]
        switch call {
        // A read of nothing would say that the file ends here, which no kernel does in the middle of one.
        case "pread": return all + ["short=7"]
        case "pwrite": return all + ["short=0", "short=7"]
        default: return all
        }
    }

    /// Which call of theirs is the same as each of mine, by number: a longest common subsequence in each step.
    static func pairs(_ mine: [FaultCall], _ theirs: [FaultCall]) -> [Int: Int] {
        var partners: [Int: Int] = [:]
        for step in FaultWorkload.steps {
            let a = mine.filter { $0.step == step }
            let b = theirs.filter { $0.step == step }
            // The length of the longest one of a[i...] and b[j...].
            var length = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
            for i in a.indices.reversed() {
                for j in b.indices.reversed() {
                    length[i][j] =
                        a[i].what == b[j].what
                        ? length[i + 1][j + 1] + 1 : max(length[i + 1][j], length[i][j + 1])
                }
            }
            var (i, j) = (0, 0)
            while i < a.count, j < b.count {
                if a[i].what == b[j].what {
                    partners[a[i].number] = b[j].number
                    i += 1
                    j += 1
                } else if length[i + 1][j] >= length[i][j + 1] {
                    i += 1
                } else {
                    j += 1
                }
            }
        }
        return partners
    }
}
