import CTestSupport
import CVerneuil
import VerneuilSystem

/// A `vfs-tool` in a process of its own, which does what it is told over a pipe: a line there, a line back.
/// Not safe from several threads.
public final class ToolProcess {
    public let pid: pid_t
    private let input: Descriptor
    private let output: Descriptor
    private var buffer: [UInt8] = []

    /// - Parameters:
    ///   - environment: added to this process's.
    ///   - copyIn: a directory that everybody may read. Where this process is root's, the tool is copied there and
    ///     runs as `nobody`, to whom permissions mean something.
    ///   - withoutStandardError: its descriptor 2 is free.
    public init(
        environment: [String: String] = [:], unprivilegedCopyIn copyIn: String? = nil, withoutStandardError: Bool = false
    ) throws {
        var command = [try Self.executable()]
        if let copyIn, geteuid() == 0 {
            let copy = "\(copyIn)/vfs-tool"
            try Files.writeAtomically(try Files.read(command[0]) ?? [], to: copy, mode: 0o755)
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy]
        }
        if withoutStandardError { command = ["sh", "-c", "exec \"$0\" 2>&-"] + command }
        let there = try Processes.Pipe()
        let back = try Processes.Pipe()
        pid = try Processes.start(
            command, environment: environment, input: there.reader.fd, output: back.writer.fd)
        input = there.keepWriter()
        output = back.keepReader()
    }

    deinit {
        if status == nil { crash() }
    }

    /// Built beside the tests.
    private static func executable() throws -> String {
        var candidates: [String] = []
        if let directory = getenv("VERNEUIL_TEST_BINARIES") { candidates.append(String(cString: directory)) }
        // `swift test` runs the bundle itself, or a helper with the bundle's path as an argument.
        candidates += CommandLine.arguments.map { Files.directory(of: $0) }
        for directory in candidates where vrn_access("\(directory)/vfs-tool", X_OK) == 0 {
            return "\(directory)/vfs-tool"
        }
        throw SystemError("find vfs-tool", candidates.joined(separator: ":"), ENOENT)
    }

    /// It ended instead of answering.
    public struct Gone: Error {
        /// As waitpid gives it.
        public let status: Int32
    }

    /// Words must be free of tabs and newlines.
    @discardableResult
    public func ask(_ words: String...) throws -> [String] {
        try send(words)
        return try receive()
    }

    /// Without waiting for the answer, which `receive` gets.
    public func send(_ words: [String]) throws {
        var line = Array((words.joined(separator: "\t") + "\n").utf8)
        while !line.isEmpty {
            let count = line.withUnsafeBytes { vrn_write(input.fd, $0.baseAddress, $0.count) }
            if count < 0 { throw Gone(status: wait()) }
            line.removeFirst(count)
        }
    }

    public func receive() throws -> [String] {
        while true {
            if let end = buffer.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: buffer[..<end], as: UTF8.self)
                buffer.removeSubrange(...end)
                return line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
            }
            guard let chunk = try Processes.readSome(output), !chunk.isEmpty else { throw Gone(status: wait()) }
            buffer += chunk
        }
    }

    private var status: Int32?

    /// Until it has ended; its status as waitpid gives it.
    @discardableResult
    public func wait() -> Int32 {
        if let status { return status }
        let status = test_wait(pid)
        self.status = status
        return status
    }

    public func crash() {
        kill(pid, SIGKILL)
        wait()
    }
}
