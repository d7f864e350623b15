import ProductSupport
import Testing

/// The Swift library in a program of its own: the VFSs are the process's, so
/// the other tests of this one must not see them.
@Suite struct LibraryTests {
    @Test func aSwiftProgramWritesFlushesReadsAReplicaAndRestores() throws {
        let here = try Workspace()
        let program = try Program.run([Products.path("hello-replication"), here.path])
        #expect(
            program.text.split(separator: "\n") == [
                "8192 bytes are stored",
                "again",
                "another: alreadyConfigured configuration: this process replicates with other settings already, through \(here.path)/spool: "
                    + "configure it once, or give databases settings of their own in their file names",
                "unusable: configuration: pacing.workers: found 0, expected a number from 1 to 1000",
                "known: true",
                "refreshed: true 8192 1 true",
                "changed: true true",
                "replica: 42",
                "restored: 8192 42",
                "verified: [VerneuilVerify.Verification.Outcome.good] []",
                "noDatabase \(here.path)/nothing.db is not stored: there is no such file",
                "manifest \(try manifestName(here, "nothing.db")): directory \(here.path)/store: there is no such object",
                "ftp://x/y: expected a file's path, or one of file://, http://, https://, s3:// and verneuil://",
                // The process's store doesn't have it.
                "elsewhere: can't open",
                "status: [1, 1] true",
                "lag: 0.0",
                "32 at once",
            ], "\(program)")
        #expect(program.status == 0, "\(program)")
        #expect(here.files("store/manifests").count == 1)
        #expect(here.files("else where/manifests").count == 1)
    }

    @Test func whatKeepsAFlushFromBeingTrueIsToldByItsCauseAndATakeOverEndsAFence() throws {
        let here = try Workspace()
        let program = try Program.run([Products.path("hello-replication"), here.path, "obstacles"])
        #expect(
            program.text.split(separator: "\n") == [
                "8192 bytes are stored", "nothing: noDatabase", "wal: walMode", "busy: timedOut", "hot: hotJournal", "flush: fenced", "sync: fenced",
                "taken over", "text: noDatabase", "parts: true true true", "checked: true false", "unchecked: true",
            ], "\(program)")
        #expect(program.status == 0, "\(program)")
    }

    /// swift-log and swift-metrics: the program's own handler and factory get what is said, with what it is about.
    @Test func aProgramsOwnLogHandlerAndMetricsFactoryGetOurMessagesAndFigures() throws {
        let here = try Workspace()
        let program = try Program.run([Products.path("observed-replication"), here.path])
        #expect(program.status == 0 && program.errors.isEmpty, "\(program)")
        let lines = program.text.split(separator: "\n")
        let stored = try #require(lines.first { $0.hasPrefix("log|info|verneuil.replication|stored a snapshot|") }, "\(program)")
        for pair in ["database=\(here.path)/app.db", "store=directory \(here.path)/store", "requests=", "bytes="] {
            #expect(stored.contains(pair), "\(pair): \(stored)")
        }
        #expect(lines.filter { !$0.hasPrefix("log|") } == ["refused: sqlite(code: 1)", "stored: true", "requests: true", "bytes: true", "lag: 0.0"], "\(program)")
        // Every message is under a label of ours.
        #expect(lines.filter { $0.hasPrefix("log|") }.allSatisfy { $0.contains(/^log\|[a-z]+\|verneuil\./) }, "\(program)")
    }

    private func manifestName(_ here: Workspace, _ name: String) throws -> String {
        try here.verneuilctl("manifest-name", here.file(name)).text
    }
}
