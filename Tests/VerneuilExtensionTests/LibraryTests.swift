import ProductSupport
import Testing

/// The Swift library in a program of its own: the VFSs are the process's, so
/// the other tests of this one must not see them.
@Suite struct LibraryTests {
    @Test func aSwiftProgramWritesFlushesAndReadsAReplica() throws {
        let here = try Workspace()
        let program = try Program.run([Products.path("hello-replication"), here.path])
        #expect(
            program.text.split(separator: "\n") == [
                "true true true", "42", "false", "\(here.path)/nothing.db is not stored: there is no such file",
            ], "\(program)")
        #expect(program.status == 0, "\(program)")
        #expect(here.files("store/manifests").count == 1)
    }
}
