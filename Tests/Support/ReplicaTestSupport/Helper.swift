import Foundation

/// Other processes: the `replica-test-helper` that is built beside the tests.
public enum Helper {
    public static let path: String = {
        // The tests are a file in the directory that all products are built into.
        let tests = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        for directory in sequence(first: tests.deletingLastPathComponent(), next: { $0.deletingLastPathComponent() }).prefix(4) {
            let candidate = directory.appendingPathComponent("replica-test-helper").path
            if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
        }
        return "/nonexistent/replica-test-helper"
    }()

    public static func start(_ arguments: [String]) throws -> (process: Process, output: Pipe) {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        let output = Pipe()
        process.standardOutput = output
        try process.run()
        return (process, output)
    }

    public static func finish(_ started: (process: Process, output: Pipe)) throws -> String {
        let data = try started.output.fileHandleForReading.readToEnd() ?? Data()
        started.process.waitUntilExit()
        return String(decoding: data, as: UTF8.self)
    }

    /// Runs it to its end; answers its standard output.
    public static func run(_ arguments: String...) throws -> String { try finish(start(arguments)) }
}
