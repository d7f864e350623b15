import Foundation

/// What the package builds, found beside the running tests, and processes that use it.
enum Products {
    /// Where the test executable stands: the build's product directory.
    static let directory = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
    static let tool = "\(directory)/verneuilctl"
    static let ext = "\(directory)/libverneuil_vfs.so"

    struct Result {
        var status: Int32
        var output: String
        var errors: String
    }

    /// Runs a shell command to its end; at most `seconds`, then it is killed.
    static func shell(_ command: String, environment: [String: String] = [:], seconds: Int = 120) throws -> Result {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
        process.arguments = ["-k", "5", "\(seconds)", "bash", "-c", command]
        var merged = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("AWS_") && $0.key != "VERNEUIL_CONFIG" }
        merged.merge(environment) { $1 }
        process.environment = merged
        let scratch = FileManager.default.temporaryDirectory.appendingPathComponent("verneuil-out-\(UUID().uuidString)").path
        defer {
            try? FileManager.default.removeItem(atPath: scratch + ".out")
            try? FileManager.default.removeItem(atPath: scratch + ".err")
        }
        _ = FileManager.default.createFile(atPath: scratch + ".out", contents: nil)
        _ = FileManager.default.createFile(atPath: scratch + ".err", contents: nil)
        process.standardOutput = FileHandle(forWritingAtPath: scratch + ".out")
        process.standardError = FileHandle(forWritingAtPath: scratch + ".err")
        process.standardInput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        return Result(
            status: process.terminationStatus,
            output: String(decoding: FileManager.default.contents(atPath: scratch + ".out") ?? Data(), as: UTF8.self),
            errors: String(decoding: FileManager.default.contents(atPath: scratch + ".err") ?? Data(), as: UTF8.self))
    }
}

/// A directory of its own for a test, removed with it.
final class ScratchDirectory {
    let path: String
    init(in parent: String = "/tmp") throws {
        path = "\(parent)/verneuil-it-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// A configuration that replicates to a directory store here.
    var configuration: String {
        """
        {"replication_spooling_dir": "\(path)/spool", "tempdir": "\(path)",
         "replication_targets": [{"directory": {"path": "\(path)/store"}}]}
        """
    }
}

/// Set by `scripts/test --quick`: leave out what takes minutes.
let isQuick = ProcessInfo.processInfo.environment["VERNEUIL_TEST_QUICK"] == "1"
