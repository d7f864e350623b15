import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Every system call that the VFS makes during FaultWorkload is made to fail in turn. The unix VFS, in another process,
// gets the same fault at the same place; step for step SQLite must give the application the same codes. Each time the
// database shows one whole transaction afterwards, the last that was acknowledged or the one that failed, and no descriptor is left.

@Suite struct Faults {
    /// A call of a run without faults, by its number among all that matched.
    struct Call {
        let number: Int
        let name: String
        /// Where it happens, so that the same call of the other VFS is found whatever its number there.
        let place: String
    }

    /// A process that runs the workload through one VFS.
    private final class Runner {
        let tool: ToolProcess
        let vfs: String
        let scratch: ScratchDirectory
        /// Everything below the scratch directory, calls without a file, and the marks between the steps.
        private var scope: String { "path=^/step/|^\(scratch.path)/w|^$" }

        init(vfs: String, faultio: String, _ scratch: ScratchDirectory) throws {
            self.vfs = vfs
            self.scratch = scratch
            try Files.makeDirectories(scratch.file("w-\(vfs)"))
            tool = try ToolProcess(environment: [
                "LD_PRELOAD": faultio, "FAULTIO": "", "SQLITE_TMPDIR": scratch.file("w-\(vfs)"),
            ])
        }

        func begin(_ plan: String) throws {
            try tool.send(["workload", vfs, scratch.file("w-\(vfs)/run"), "\(scope);\(plan)"])
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
            var seen: [String: Int] = [:]
            var calls: [Call] = []
            for line in String(decoding: try Files.read(log) ?? [], as: UTF8.self).split(separator: "\n") {
                let words = line.split(separator: " ")
                guard words.count >= 4, let number = Int(words[0]) else { continue }
                if words[2].hasPrefix("/step/") {
                    step = String(words[2])
                    continue
                }
                let name = Self.commonName(words[1])
                var file = String(words[2])
                if file.contains("/#") || file.contains("etilqs_") || line.contains("(deleted)") { file = "temporary" }
                // The name of a super-journal is random.
                if let random = file.range(of: "-mj") { file = String(file[..<random.upperBound]) }
                file = String(file.split(separator: "/").last ?? "-").replacing("w-\(vfs)", with: "tmpdir")
                let detail = name == "lock" ? String(words[3]) : ""
                let place = "\(step) \(name) \(file) \(detail)"
                seen[place, default: 0] += 1
                calls.append(Call(number: number, name: String(words[1]), place: "\(place) #\(seen[place] ?? 0)"))
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
        return call == "pread" || call == "pwrite" ? all + ["short=0", "short=7"] : all
    }

    @Test func `A failing system call gives SQLite's own code, and loses nothing`() throws {
        let scratch = try ScratchDirectory("faults")
        let faultio = try FaultIO.build(in: scratch.path)
        let mine = try Runner(vfs: "linux", faultio: faultio, scratch)
        let theirs = try Runner(vfs: "unix", faultio: faultio, scratch)
        let calls = try mine.calls()
        let places = Dictionary(uniqueKeysWithValues: try theirs.calls().map { ($0.place, $0.number) })
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
        var alone: Set<String> = []
        var differences: [String: Int] = [:]
        for (index, call) in calls.enumerated() where index % stride == offset {
            for fault in Self.faults(for: call.name) {
                let other = places[call.place]
                try mine.begin("at=\(call.number);\(fault)")
                if let other { try theirs.begin("at=\(other);\(fault)") }
                let outcome = try mine.finish()
                #expect(outcome.state == "ok", "\(call.place), \(fault): \(outcome)")
                guard other != nil else {
                    alone.insert("\(call.place)")
                    continue
                }
                let reference = try theirs.finish()
                #expect(reference.state == "ok", "unix: \(call.place), \(fault): \(reference)")
                compared += 1
                if outcome.codes == reference.codes { continue }
                // Going on after a signal is what the unix VFS leaves to the application in some places.
                if fault.contains("EINTR"), outcome.codes.allSatisfy({ $0 == "0" }) { continue }
                differences["\(call.place.split(separator: "#")[0]) \(fault): \(outcome.codes) \(reference.codes)", default: 0] += 1
            }
        }
        print("compared \(compared); alone: \(alone.sorted())")
        for (d, n) in differences.sorted(by: { $0.key < $1.key }) { print(n, d) }
        #expect(differences.isEmpty)
    }
}
