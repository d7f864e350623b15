import CVerneuil
import Testing
import VFSTestSupport
import VerneuilSystem

// fork(2) and the end of a process, with Python as the caller (Tests/Support/fork), through the built extension.

@Suite struct Fork {
    static let cases = [
        "children_that_only_exit", "child_that_ends_the_interpreter",
        "child_that_ends_the_interpreter_in_exclusive_mode", "child_that_uses_its_inherited_connection",
        "parent_that_is_killed", "child_with_connections_of_its_own", "child_that_executes_another_program",
        "multiprocessing_pool", "threads_at_work_while_another_forks", "children_that_draw_random_numbers",
    ]

    @Test(arguments: cases + (geteuid() == 0 ? ["child_without_proc"] : []))
    func `Locks and descriptors survive`(_ name: String) throws {
        try run("fork_cases.py", name)
    }

    @Test(arguments: [
        "children_leave_the_parents_replication_alone", "children_replicate_databases_of_their_own", "multiprocessing_pool",
        "forks_while_replication_is_at_work", "child_that_closes_what_is_flushed_on_close",
        "children_that_live_keep_nobody_from_a_full_snapshot", "child_of_a_parent_that_was_killed_while_uploading",
    ])
    func `Replication goes on in parent and child`(_ name: String) throws {
        try run("replication_cases.py", name)
    }

    /// The first uses of everything, drawn out; without the gate (vrn_fork.c) one of four processes has a child that hangs.
    @Test func `A fork waits for what Swift's runtime does once`() throws {
        let scratch = try ScratchDirectory("slow")
        try run("replication_cases.py", "forks_while_threads_begin", preload: try FaultIO.build("fork/slow_threads.c", in: scratch.path))
    }

    @Test func `A fork doesn't wait for a full snapshot`() throws {
        try run("replication_cases.py", "forks_during_a_full_snapshot")
    }

    @Test func `A process ends at once, and well, while uploads are in flight`() throws {
        try run("replication_cases.py", "exit_with_uploads_in_flight")
    }

    private func run(_ script: String, _ name: String, preload: String = "") throws {
        let scratch = try ScratchDirectory("fork")
        let path = "\(Files.directory(of: Files.directory(of: #filePath)))/Support/fork/\(script)"
        let result = try Processes.run([
            "timeout", "300", "env", "LD_PRELOAD=\(preload)", "/usr/bin/python3", path, name, try BuiltExtension.path(), scratch.path,
        ])
        #expect(result.status == 0, "\(result.output)")
    }
}
