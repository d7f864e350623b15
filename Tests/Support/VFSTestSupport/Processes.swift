import CTestSupport
import CVerneuil
import VerneuilSystem

/// Runs other programs.
public enum Processes {
    public struct Result: Sendable {
        /// As waitpid gives it: 0 is success.
        public var status: Int32
        /// Standard output and standard error.
        public var output: String
    }

    /// Until it ends. The first word is looked for in PATH.
    public static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Result {
        let pipe = try Pipe()
        let pid = try start(arguments, environment: environment, input: -1, output: pipe.writer.fd, errors: true)
        let reader = pipe.keepReader()
        var output: [UInt8] = []
        while let chunk = try readSome(reader), !chunk.isEmpty { output += chunk }
        return Result(status: test_wait(pid), output: String(decoding: output, as: UTF8.self))
    }

    static func start(
        _ arguments: [String], environment: [String: String], input: Int32, output: Int32, errors: Bool = false
    ) throws -> pid_t {
        test_ignore_sigpipe()
        var words = (arguments.map { strdup($0) } + [nil]).map { UnsafePointer($0) }
        var variables = (environment.map { strdup("\($0)=\($1)") } + [nil]).map { UnsafePointer($0) }
        defer { (words + variables).forEach { free(UnsafeMutablePointer(mutating: $0)) } }
        return try SystemError.check(
            test_spawn(&words, &variables, input, output, errors ? 1 : 0), "posix_spawn", arguments[0])
    }

    /// Tuples can't hold descriptors.
    struct Pipe: ~Copyable {
        let reader: Descriptor
        let writer: Descriptor

        init() throws {
            var ends: [Int32] = [-1, -1]
            try SystemError.check(test_pipe(&ends), "pipe2", "")
            reader = Descriptor(owning: ends[0], path: "pipe")
            writer = Descriptor(owning: ends[1], path: "pipe")
        }

        /// What is left to the process that starts another one; the other end is closed.
        consuming func keepReader() -> Descriptor { reader }
        consuming func keepWriter() -> Descriptor { writer }
    }

    /// What is there; empty at the end.
    static func readSome(_ pipe: borrowing Descriptor) throws -> [UInt8]? {
        let fd = pipe.fd
        return try [UInt8](unsafeUninitializedCapacity: 65536) { buffer, count in
            count = try SystemError.check(vrn_read(fd, buffer.baseAddress, buffer.count), "read", "pipe")
        }
    }
}
