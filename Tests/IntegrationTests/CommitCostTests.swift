import Foundation
import Testing

/// What a commit of one row costs beyond SQLite's own VFS, counted: the figures are the machine's in no way.
@Suite struct CommitCostTests {
    static let program = "\(Products.directory)/commit-counter"

    /// "unix mebibytes=1 calls=40 …"
    static func counters(_ line: Substring) -> [String: Int] {
        var found: [String: Int] = [:]
        for word in line.split(separator: " ").dropFirst() {
            let parts = word.split(separator: "=")
            if parts.count == 2 { found[String(parts[0])] = Int(parts[1]) }
        }
        return found
    }

    // I2, I3
    @Test(.timeLimit(.minutes(5)))
    func aCommitCostsTheSameAtAnySizeAtMost70SystemCallsAndNoSyncOrAllocationOfOurs() throws {
        let attributes = try FileManager.default.attributesOfFileSystem(forPath: "/dev/shm")
        let free = (attributes[.systemFreeSize] as? NSNumber)?.int64Value ?? 0
        let scratch = try ScratchDirectory(in: free > 1 << 30 ? "/dev/shm" : "/var/tmp")
        let result = try Products.shell("'\(Self.program)' '\(Products.ext)' '\(scratch.path)' 1 4096", seconds: 250)
        print(result.output)
        #expect(result.status == 0, "\(result)")
        let lines = result.output.split(separator: "\n")
        try #require(lines.count == 4, "\(result)")
        let unix = Self.counters(lines[0])
        let small = Self.counters(lines[1])
        let large = Self.counters(lines[3])
        for ours in [small, large] {
            #expect(try #require(ours["calls"]) <= 70)
            #expect(ours["syncs"] != nil && ours["syncs"] == unix["syncs"])
            #expect(try #require(ours["allocations"]) <= #require(unix["allocations"]))
            // The two chunks that hold the page and the header.
            #expect(ours["hashed"] == 2 * 65536)
            #expect(try #require(ours["written"]) - #require(unix["written"]) < 2 * 65536 + 1024)
        }
        for name in ["calls", "syncs", "read", "written", "hashed", "allocations"] {
            #expect(small[name] != nil && small[name] == large[name], "\(name)")
        }
    }
}
