import ArgumentParser
import CTestSupport
import CVerneuil
import VerneuilSystem

/// What every run has.
struct CommonOptions: ParsableArguments {
    @Option(help: "Of the random numbers; otherwise a new one, which is printed.") var seed: UInt64?
    @Option(help: "Where to work; otherwise in memory.") var directory: String?
    @Flag(help: "Leave the files there after a success as well.") var keep = false

    /// Runs `body` in an arena of its own; prints its figures, or what was found, and where the pieces are.
    func supervise(_ label: String, _ body: (Arena, UInt64) throws -> Figures) throws {
        let seed = self.seed ?? UInt64.random(in: 0 ... UInt64(UInt32.max))
        let arena = try Arena.make(in: directory, label: label)
        let start = MonotonicTime.now
        do {
            let figures = try body(arena, seed)
            let seconds = MonotonicTime.now.seconds(since: start)
            print("\(label) ok: seed=\(seed) \(figures) seconds=\(Double(Int(seconds * 10)) / 10)")
            if !keep { arena.remove() }
        } catch {
            print("\(label) FAILED: seed=\(seed) files=\(arena.root)\n\(error)")
            throw ExitCode.failure
        }
    }
}

/// Counts, by name.
struct Figures: CustomStringConvertible {
    private(set) var values: [(name: String, value: Int)] = []

    subscript(_ name: String) -> Int { values.first { $0.name == name }?.value ?? 0 }

    mutating func note(_ name: String, _ count: Int) {
        if let i = values.firstIndex(where: { $0.name == name }) {
            values[i].value += count
        } else {
            values.append((name, count))
        }
    }

    mutating func add(_ other: Figures) { for (name, value) in other.values { note(name, value) } }

    var description: String { values.map { "\($0.name)=\($0.value)" }.joined(separator: " ") }

    init() {}

    init(_ line: String) {
        for word in line.split(separator: " ") {
            let parts = word.split(separator: "=")
            if parts.count == 2, let value = Int(parts[1]) { note(String(parts[0]), value) }
        }
    }
}

/// An array of C strings that ends with NULL.
private final class CStrings {
    let pointers: [UnsafePointer<CChar>?]

    init(_ strings: [String]) {
        var pointers: [UnsafePointer<CChar>?] = []
        for string in strings { pointers.append(UnsafePointer(strdup(string))) }
        pointers.append(nil)
        self.pointers = pointers
    }

    deinit { for pointer in pointers { free(UnsafeMutablePointer(mutating: pointer)) } }
}

/// Another process, which runs this program, or another.
final class Child {
    let pid: pid_t
    private let output: Descriptor
    private var ended: Int32?

    /// - Parameters:
    ///   - environment: "NAME=VALUE", added to this process's.
    ///   - program: another one than this.
    static func start(
        _ arguments: [String], environment: [String] = [], program: String = "/proc/self/exe"
    ) throws -> Child {
        var ends: [Int32] = [-1, -1]
        try SystemError.check(test_pipe(&ends), "pipe2", "")
        let reader = Descriptor(owning: ends[0], path: "pipe")
        let writer = Descriptor(owning: ends[1], path: "pipe")
        let words = CStrings([program] + arguments)
        let variables = CStrings(environment)
        let pid = test_spawn(words.pointers, variables.pointers, -1, writer.fd, 1)
        try SystemError.check(pid, "posix_spawn", arguments[0])
        return Child(pid, reader)
    }

    private init(_ pid: pid_t, _ output: consuming Descriptor) {
        self.pid = pid
        self.output = output
    }

    deinit { if ended == nil { stop(SIGKILL) } }

    func send(_ signal: Int32) { if ended == nil { kill(pid, signal) } }

    /// Kills it and waits until it is gone.
    func stop(_ signal: Int32) {
        send(signal)
        _ = wait()
    }

    /// Until it has ended; its status as waitpid gives it.
    @discardableResult
    func wait() -> Int32 {
        if let ended { return ended }
        let status = test_wait(pid)
        ended = status
        return status
    }

    /// Whether it is still at work.
    var isRunning: Bool {
        if ended != nil { return false }
        var status: Int32 = 0
        if waitpid(pid, &status, WNOHANG) != pid { return true }
        ended = status
        return false
    }

    /// All that it says, until it closes its standard output and standard error.
    func text() -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let n = vrn_read(output.fd, &buffer, buffer.count)
            if n <= 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[..<n]
        }
    }

    /// Waits for its end; throws where that was not a success. The figures that it reported.
    func figures() throws -> Figures {
        let said = text()
        let status = wait()
        guard status == 0 else { throw Finding("process \(pid) ended with status \(status):\n\(said)") }
        return Self.figures(in: said)
    }

    /// What `report` said, among other things.
    static func figures(in said: String) -> Figures {
        let line = said.split(separator: "\n").last { $0.hasPrefix(mark) } ?? ""
        return Figures(String(line.dropFirst(mark.count)))
    }

    private static let mark = "figures: "

    /// In the child: to its parent.
    static func report(_ figures: Figures) { print("\(mark)\(figures)") }
}

/// Ends a process that doesn't get on, so that a hang is a failure with a core's worth of evidence and no time-out of somebody else's.
final class Watchdog: @unchecked Sendable {
    static let shared = Watchdog()
    private let lock = Lock()
    private var last = MonotonicTime.now
    private var isRunning = false
    static let patience = 120.0

    func pet() {
        lock.withLock {
            last = MonotonicTime.now
            if isRunning { return }
            isRunning = true
            try? Threads.spawn("watchdog") { [self] in
                while lock.withLock({ MonotonicTime.now.seconds(since: last) < Self.patience }) { usleep(500_000) }
                let message = "nothing happened for \(Int(Self.patience)) s\n"
                _ = message.withCString { vrn_write(2, $0, strlen($0)) }
                abort()
            }
        }
    }
}
