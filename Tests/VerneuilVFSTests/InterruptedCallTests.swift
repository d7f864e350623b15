import Testing
import VFSTestSupport
import VerneuilSystem

/// Calls below the stores and the spool that fail, or are cut into by fork(2).
@Suite struct InterruptedCallTests {
    private func tool(_ scratch: ScratchDirectory) throws -> ToolProcess {
        try ToolProcess(environment: ["LD_PRELOAD": FaultIO.build(in: scratch.path), "FAULTIO": ""])
    }

    /// A list that ends early would let a sweep, or a full listing of a store, believe that the rest isn't there.
    @Test func `A directory that can't be read to its end is an error`() throws {
        let scratch = try ScratchDirectory("interrupted")
        let tool = try tool(scratch)
        let directory = scratch.file("directory")
        try Files.makeDirectory(directory)
        for i in 0..<5 { try Files.writeAtomically([], to: "\(directory)/\(i)") }
        #expect(try Set(tool.ask("list", directory)) == ["0", "1", "2", "3", "4"])
        // The first, one in the middle, and the call that finds the end: five files, `.` and `..` before it.
        for call in [1, 4, 8] {
            try tool.ask("faults", "calls=readdir;path=^\(directory);at=\(call);errno=EIO")
            let answer = try tool.ask("list", directory)
            #expect(answer.first == "error" && answer.last?.contains("readdir") == true, "call \(call): \(answer)")
        }
        try tool.ask("faults", "")
        #expect(try tool.ask("list", directory).count == 5)
    }

    /// flock(2) belongs to the open file, which a child shares.
    @Test func `A child that is forked while a directory store's lock is held doesn't keep it`() throws {
        let scratch = try ScratchDirectory("interrupted")
        let tool = try tool(scratch)
        let store = scratch.file("store")
        #expect(try tool.ask("store-prepare", store) == ["-"])
        let tag = try tool.ask("store-put", store, "m", "")
        try #require(tag.count == 1, "\(tag)")
        for condition in [tag[0], ""] {
            try tool.ask("faults", "calls=rename;path=manifests/m$;at=1;fork=1")
            #expect(try tool.ask("store-put", store, "m", condition) == tag)
            // The child lives: it ends with the tool.
            #expect(try tool.ask("store-put", store, "m", tag[0]) == tag)
        }
    }
}
