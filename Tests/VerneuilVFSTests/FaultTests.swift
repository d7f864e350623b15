import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Every system call that the VFS makes during FaultWorkload is made to fail in turn. The unix VFS, in another process,
// gets the same fault at the same place; step for step SQLite must give the application the same codes. Each time the
// database shows one whole transaction afterwards, the last that was acknowledged or the one that failed, and no descriptor is left.

@Suite struct Faults {
    /// A call of a run without faults.
    struct Call {
        /// Among all that matched.
        let number: Int
        let name: String
        /// Of FaultWorkload.
        let step: String
        /// What it does, in words that are the same for the same call of the other VFS.
        let what: String
    }

    /// A process that runs the workload through one VFS.
    private final class Runner {
        let tool: ToolProcess
        let vfs: String
        let scratch: ScratchDirectory
        /// Everything below the scratch directory, calls without a file, and the marks between the steps.
        private var scope: String { "path=^/step/|^\(scratch.path)/w|^$" }

        private let directory: String

        init(vfs: String, faultio: String, _ scratch: ScratchDirectory) throws {
            self.vfs = vfs
            self.scratch = scratch
            // Of the same length: the name of a super-journal stands in the journals.
            directory = scratch.file(vfs == "unix" ? "w-unix-" : "w-\(vfs)")
            try Files.makeDirectories(directory)
            tool = try ToolProcess(environment: [
                "LD_PRELOAD": faultio, "FAULTIO": "", "SQLITE_TMPDIR": directory,
            ])
        }

        func begin(_ plan: String) throws {
            try tool.send(["workload", vfs, "\(directory)/run", "\(scope);\(plan)"])
        }

        /// The code of each step, and what became of the files.
        func finish() throws -> (codes: [String], state: String) {
            let words = try tool.receive()
            return (Array(words.dropLast()), words.last ?? "")
        }

        func calls() throws -> [Call] {
            let log = scratch.file("\(vfs).log")
            try begin("log=\(log)")
            let outcome = try finish()
            #expect(outcome.codes == FaultWorkload.steps.map { _ in "0" } && outcome.state == "ok")
            var step = ""
            var calls: [Call] = []
            for line in String(decoding: try Files.read(log) ?? [], as: UTF8.self).split(separator: "\n") {
                let words = line.split(separator: " ")
                guard words.count >= 4, let number = Int(words[0]) else { continue }
                if words[2].hasPrefix("/step/") {
                    step = String(words[2].dropFirst(6))
                    continue
                }
                let name = Self.commonName(words[1])
                var file = String(words[2])
                // Without a name there, with one that is removed at once here.
                if name == "open", words[3].hasPrefix("0222") { file = "temporary" }
                if file.contains("/#") || file.contains("etilqs_") || line.contains("(deleted)") { file = "temporary" }
                // The name of a super-journal is random.
                if let random = file.firstRange(of: "-mj") { file = String(file[..<random.upperBound]) }
                file = file == directory ? "tmpdir" : String(file.split(separator: "/").last ?? "-")
                let detail = ["lock", "pread", "pwrite"].contains(name) && file != "temporary" ? words[3] : ""
                calls.append(Call(number: number, name: String(words[1]), step: step, what: "\(name) \(file) \(detail)"))
            }
            return calls
        }

        /// Directories are synced by one with fsync, by the other with fdatasync.
        private static func commonName(_ name: Substring) -> String {
            name == "fsync" || name == "fdatasync" ? "sync" : String(name)
        }
    }

    private static func faults(for call: String) -> [String] {
        let all = ["errno=EIO", "errno=ENOSPC", "errno=EINTR", "errno=EMFILE", "errno=EIO;times=0"]
        switch call {
        // A read of nothing would say that the file ends here, which no kernel does in the middle of one.
        case "pread": return all + ["short=7"]
        case "pwrite": return all + ["short=0", "short=7"]
        default: return all
        }
    }

    @Test func `A failing system call gives SQLite's own code, and loses nothing`() throws {
        let scratch = try ScratchDirectory("faults")
        let faultio = try FaultIO.build(in: scratch.path)
        let mine = try Runner(vfs: "linux", faultio: faultio, scratch)
        let theirs = try Runner(vfs: "unix", faultio: faultio, scratch)
        let calls = try mine.calls()
        let partners = pairs(calls, try theirs.calls())
        for name in ["open", "pread", "pwrite", "ftruncate", "fdatasync", "fsync", "lock", "getlk", "fstat", "stat",
            "lstat", "readlink", "getcwd", "unlink", "access", "close", "fchown", "fallocate"]
        {
            #expect(calls.contains { $0.name == name }, "\(name) is never called: the workload misses something")
        }

        // All of it takes minutes.
        let stride = getenv("VERNEUIL_TEST_QUICK") == nil ? 1 : 23
        let offset = Int.random(in: 0..<stride)
        print("faults: \(calls.count) calls, every \(stride)th from \(offset)")
        var compared = 0
        for (index, call) in calls.enumerated() where index % stride == offset {
            for fault in Self.faults(for: call.name) {
                let other = partners[call.number]
                try mine.begin("at=\(call.number);\(fault)")
                if let other { try theirs.begin("at=\(other);\(fault)") }
                let outcome = try mine.finish()
                #expect(outcome.state == "ok", "\(call), \(fault): \(outcome)")
                guard other != nil else {
                    // This SQLite's unix VFS makes the blocks of a chunk by writing to them. A hint that fails is none.
                    #expect(call.name == "fallocate", "the unix VFS makes no such call: \(call)")
                    if !fault.contains("times=0") { #expect(outcome.codes.allSatisfy { $0 == "0" }, "\(call), \(fault)") }
                    continue
                }
                let reference = try theirs.finish()
                #expect(reference.state == "ok", "unix: \(call), \(fault): \(reference)")
                compared += 1
                #expect(
                    agree(outcome.codes, reference.codes, call, fault),
                    "\(call), \(fault): \(outcome.codes), but unix: \(reference.codes)")
            }
        }
        print("faults: \(compared) compared with the unix VFS")
    }

    /// Which call of theirs is the same as each of mine, by number: a longest common subsequence in each step.
    private func pairs(_ mine: [Call], _ theirs: [Call]) -> [Int: Int] {
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

    private func agree(_ mine: [String], _ theirs: [String], _ call: Call, _ fault: String) -> Bool {
        if mine == theirs { return true }
        // Going on after a signal is what the unix VFS leaves to the application in some places.
        if fault.contains("EINTR") { return mine.allSatisfy { $0 == "0" } }
        // Where all calls fail from some point on, the same steps fail. The unix VFS knows of its own process's locks without a
        // call, and so may get to fail in a later one, with another code.
        return fault.contains("times=0") && mine.map { $0 == "0" } == theirs.map { $0 == "0" }
    }
}
