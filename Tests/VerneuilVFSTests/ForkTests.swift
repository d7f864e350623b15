import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// fork(2), with Python as the caller (Tests/Support/fork/fork_cases.py), through the built extension.

@Suite struct Fork {
    static let cases = [
        "children_that_only_exit", "child_that_ends_the_interpreter",
        "child_that_ends_the_interpreter_in_exclusive_mode", "child_that_uses_its_inherited_connection",
        "parent_that_is_killed", "child_with_connections_of_its_own", "child_that_executes_another_program",
        "multiprocessing_pool", "threads_at_work_while_another_forks",
    ]

    @Test(arguments: cases + (geteuid() == 0 ? ["child_without_proc"] : []))
    func `Locks and descriptors survive`(_ name: String) throws {
        let scratch = try ScratchDirectory("fork")
        let script = "\(Files.directory(of: Files.directory(of: #filePath)))/Support/fork/fork_cases.py"
        let result = try Processes.run([
            "timeout", "120", "/usr/bin/python3", script, name, try BuiltExtension.path(), scratch.path,
        ])
        #expect(result.status == 0, "\(result.output)")
    }
}
