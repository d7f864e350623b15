import CForkSupport
import CTestSupport
import CVerneuil
import VerneuilSystem

/// A forked copy of this process, which must have one thread. It begins where it is, so that thousands of them cost little.
struct Forked: ~Copyable {
    let pid: pid_t
    private let output: Descriptor

    /// The copy runs `body`, and ends with 0, its answer sent, or with 1 and what went wrong.
    static func start(_ body: () throws -> String) throws -> Forked {
        var ends: [Int32] = [-1, -1]
        try SystemError.check(test_pipe(&ends), "pipe2", "")
        let reader = Descriptor(owning: ends[0], path: "pipe")
        let writer = Descriptor(owning: ends[1], path: "pipe")
        let pid = vrn_test_fork()
        if pid != 0 { return Forked(pid: try SystemError.check(pid, "fork", ""), output: reader) }
        // Ends a copy that doesn't get on.
        alarm(100)
        var status: Int32 = 0
        var answer: String
        do { answer = try body() } catch {
            status = 1
            answer = "\(error)"
        }
        answer.withUTF8 { _ = vrn_write(writer.fd, $0.baseAddress, min($0.count, 60_000)) }
        _exit(status)
    }

    /// Its status as waitpid gives it, and what it answered.
    consuming func finish() -> (status: Int32, answer: String) {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let n = vrn_read(output.fd, &buffer, buffer.count)
            if n <= 0 { break }
            bytes += buffer[..<n]
        }
        return (test_wait(pid), String(decoding: bytes, as: UTF8.self))
    }

    /// Runs `body` in a copy to its end; throws where that isn't a good one.
    @discardableResult
    static func run(_ body: () throws -> String) throws -> String {
        let (status, answer) = try start(body).finish()
        guard status == 0 else { throw Finding(status == Int32(SIGALRM) ? "it hangs" : "\(answer) (status \(status))") }
        return answer
    }
}
