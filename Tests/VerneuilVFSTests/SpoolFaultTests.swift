import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Replication inside the application's calls: every system call that it makes there, beside those of the linux VFS, is made
// to fail in turn. SQLite never hears of it, and the next commit is replicated again. After each snapshot that is taken,
// what is staged is compared with the database.

@Suite struct SpoolFaults {
    @Test func `A failing call of tracking or spooling never reaches the application, and replication goes on`() throws {
        let scratch = try ScratchDirectory("spool-faults")
        let faultio = try FaultIO.build(in: scratch.path)
        let replicating = try FaultRunner(vfs: "verneuil", faultio: faultio, scratch)
        let plain = try FaultRunner(vfs: "linux", faultio: faultio, scratch)
        // Twice: the first one makes the spooling directory.
        _ = try replicating.calls()
        let calls = try replicating.calls()
        let own = FaultRunner.pairs(calls, try plain.calls())
        let spooling = calls.filter { own[$0.number] == nil }
        for name in ["open", "pread", "pwrite", "fstat", "fgetxattr", "fsetxattr", "lock", "rename", "stat", "close",
            "getrandom", "mkdir"]
        {
            #expect(spooling.contains { $0.name == name }, "replication never calls \(name): the workload misses something")
        }

        // All of it takes minutes.
        let stride = getenv("VERNEUIL_TEST_LONG") == nil ? 23 : 1
        let offset = Int.random(in: 0..<stride)
        print("spool faults: \(spooling.count) of \(calls.count) calls are replication's, every \(stride)th from \(offset)")
        let steps = FaultWorkload.steps.map { _ in "0" }
        var (runs, elsewhere) = (0, 0)
        for (index, call) in spooling.enumerated() where index % stride == offset {
            for fault in FaultRunner.faults(for: call.name) {
                // From some point on *all* calls fail: that includes SQLite's.
                if fault.contains("times=0") { continue }
                runs += 1
                // What the thread in the background has done already differs from run to run, and with it what is left to
                // do here. Where that made the fault hit another call, little was learned, and it is tried again: where this
                // call came in that run.
                var isHit = false
                var number = call.number
                for _ in 0..<5 where !isHit {
                    try replicating.begin("at=\(number);\(fault)")
                    let outcome = try replicating.finish()
                    let made = try replicating.logged()
                    func isSame(_ other: FaultCall) -> Bool { other.step == call.step && other.what == call.what }
                    isHit = made.first(where: \.isFaulted).map(isSame) ?? false
                    if isHit { #expect(outcome.codes == steps && outcome.state == "ok", "\(call), \(fault): \(outcome)") }
                    number = made.filter(isSame).map(\.number).min { abs($0 - number) < abs($1 - number) } ?? number
                }
                if !isHit {
                    elsewhere += 1
                    print("spool faults: not hit: \(call), \(fault)")
                }
            }
        }
        print("spool faults: \(elsewhere) of \(runs) hit another call")
        #expect(elsewhere * 5 <= runs)
    }

    @Test(arguments: ["EIO", "ENOSPC", "EMFILE", "EACCES", "EROFS"])
    func `A spooling directory where nothing works disturbs nobody`(_ error: String) throws {
        let scratch = try ScratchDirectory("spool-faults")
        let faultio = try FaultIO.build(in: scratch.path)
        let replicating = try FaultRunner(vfs: "verneuil", faultio: faultio, scratch)
        for calls in ["", "calls=pwrite,ftruncate,rename,mkdir,create;"] {
            try replicating.begin("\(calls)at=1;times=0;errno=\(error)", isLogged: false, onlySpool: true)
            let outcome = try replicating.finish()
            #expect(outcome.codes.allSatisfy { $0 == "0" } && outcome.state == "ok", "\(calls): \(outcome)")
        }
    }

    @Test func `Databases that come and go leave no descriptor behind`() throws {
        let scratch = try ScratchDirectory("spool-faults")
        let tool = try ToolProcess()
        #expect(try tool.ask("replicate", scratch.file("spool")) == ["0"])
        var open: [String] = []
        for i in 1...50 {
            let path = scratch.file("\(i % 3).db")
            #expect(try tool.ask("sql-open", "a", "verneuil", path, "6") == ["0"])
            #expect(try tool.ask("sql", "a", "CREATE TABLE t(a); INSERT INTO t VALUES(\(i)); SELECT a FROM t") == ["0", "\(i)"])
            #expect(try tool.ask("sql-close", "a") == ["0"])
            try Files.remove(path)
            open.append(try tool.ask("descriptors", scratch.path)[0])
        }
        // The builder looks at random chunks a second later, and has one open then for a moment.
        #expect(open.filter { $0 != "0" }.count < 10, "\(open)")
        #expect(open.allSatisfy { (Int($0) ?? 99) < 10 }, "\(open)")
        // In the end there is none.
        var left = ""
        for _ in 0..<3000 {
            left = try tool.ask("descriptors", scratch.path)[0]
            if left == "0" { break }
            usleep(10_000)
        }
        #expect(left == "0")
    }
}
