import CSQLite
import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// Every system call that the VFS makes during FaultWorkload is made to fail in turn. The unix VFS, in another process,
// gets the same fault at the same place; step for step SQLite must give the application the same codes. Each time the
// database shows one whole transaction afterwards, the last that was acknowledged or the one that failed, and no descriptor is left.

@Suite struct Faults {
    @Test func `A failing system call gives SQLite's own code, and loses nothing`() throws {
        let scratch = try ScratchDirectory("faults")
        let faultio = try FaultIO.build(in: scratch.path)
        let mine = try FaultRunner(vfs: "linux", faultio: faultio, scratch)
        let theirs = try FaultRunner(vfs: "unix", faultio: faultio, scratch)
        let calls = try mine.calls()
        let partners = FaultRunner.pairs(calls, try theirs.calls())
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
            for fault in FaultRunner.faults(for: call.name) {
                let other = partners[call.number]
                try mine.begin("at=\(call.number);\(fault)", isLogged: false)
                if let other { try theirs.begin("at=\(other);\(fault)", isLogged: false) }
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

    private func agree(_ mine: [String], _ theirs: [String], _ call: FaultCall, _ fault: String) -> Bool {
        if mine == theirs { return true }
        // Going on after a signal is what the unix VFS leaves to the application in some places.
        if fault.contains("EINTR") { return mine.allSatisfy { $0 == "0" } }
        // Where all calls fail from some point on, the same steps fail. The unix VFS knows of its own process's locks without a
        // call, and so may get to fail in a later one, with another code.
        return fault.contains("times=0") && mine.map { $0 == "0" } == theirs.map { $0 == "0" }
    }
}
