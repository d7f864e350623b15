import CVerneuil
import VerneuilSystem

/// A server of Tests/Servers that runs as long as this process: it ends with
/// the pipe that its supervisor reads from, thus also when we are killed.
public final class SupervisedProcess: Sendable {
    /// Its own directory, removed when it ends. `log` in it holds its output.
    public let directory: String
    private let lock = Lock()
    nonisolated(unsafe) private var pipe: UnsafeMutablePointer<FILE>?

    public struct Failure: Error, CustomStringConvertible {
        public var description: String
    }

    /// Where the scripts are.
    public static let scripts: String = {
        var path = #filePath
        for _ in 0..<3 { path = Files.directory(of: path) }
        return "\(path)/Servers"
    }()

    /// - Parameters:
    ///   - command: program and arguments; "DIR" stands for the directory.
    ///   - seconds: how long it may run at most.
    public init(_ command: [String], environment: [String: String] = [:], seconds: Int = 1800) throws {
        directory = Self.temporaryName()
        var words = ["exec", "env"]
        words += environment.map { Self.quote("\($0.key)=\($0.value)") }
        words += ["bash", Self.quote("\(Self.scripts)/supervise.sh"), String(seconds), Self.quote(directory)]
        words += command.map { Self.quote($0 == "DIR" ? "\(directory)/data" : $0) }
        guard let pipe = Self.open(words.joined(separator: " ") + " 2>/dev/null", "we") else {
            throw Failure(description: "popen: \(String(cString: strerror(vrn_errno())))")
        }
        self.pipe = pipe
    }

    /// popen(3), with all signals let through: tests run on threads that block them, which children inherit,
    /// and then SIGTERM would not end a server.
    private static func open(_ command: String, _ mode: String) -> UnsafeMutablePointer<FILE>? {
        var none = sigset_t()
        var mask = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, &mask)
        defer { pthread_sigmask(SIG_SETMASK, &mask, nil) }
        return popen(command, mode)
    }

    /// Ends it, without waiting for that.
    deinit {
        guard let pipe else { return }
        nonisolated(unsafe) let closing = pipe
        try? Threads.spawn("pclose") { pclose(closing) }
    }

    /// Ends it and waits for that.
    public func stop() {
        let pipe = lock.withLock {
            defer { self.pipe = nil }
            return self.pipe
        }
        if let pipe { pclose(pipe) }
    }

    /// Waits until it accepts connections.
    public func awaitPort(_ port: Int, seconds: Double) throws {
        let deadline = MonotonicTime.now.advanced(seconds: seconds)
        while true {
            if (try? LoopbackHTTP.connect(port)).map({ _ = vrn_close($0) }) != nil { return }
            let isOver = deadline < .now
            if isOver || (try? Files.status("\(directory)/ended")) ?? nil != nil {
                let log = ((try? Files.read("\(directory)/log")) ?? nil).map { String(decoding: $0, as: UTF8.self) }
                throw Failure(description: "no server on port \(port)\(isOver ? " in time" : ""): \(log ?? "no log")")
            }
            usleep(50_000)
        }
    }

    static func temporaryName() -> String {
        let base = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        return "\(base)/verneuil-server-\(String(UInt64.random(in: 0 ... .max), radix: 36))"
    }

    /// Runs a command to its end; answers what it printed, on either stream.
    @discardableResult
    public static func run(_ command: [String]) throws -> String {
        guard let pipe = open("\(command.map(quote).joined(separator: " ")) 2>&1", "re") else {
            throw Failure(description: "popen: \(String(cString: strerror(vrn_errno())))")
        }
        var output: [UInt8] = []
        while case let byte = fgetc(pipe), byte != EOF { output.append(UInt8(truncatingIfNeeded: byte)) }
        let text = String(decoding: output, as: UTF8.self)
        if pclose(pipe) != 0 { throw Failure(description: "\(command[0]) failed: \(text)") }
        return text
    }

    /// The first of `count` ports in a row that nobody listens on.
    public static func freePort(count: Int = 1) -> Int {
        while true {
            // Below the range that the kernel takes for outgoing connections.
            let first = Int.random(in: 15_000..<32_000)
            if (first..<first + count).allSatisfy(LoopbackHTTP.canListen) { return first }
        }
    }

    private static func quote(_ word: String) -> String {
        "'" + word.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }
}
