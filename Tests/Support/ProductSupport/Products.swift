import Foundation

/// What was built beside the tests.
public enum Products {
    public static func path(_ name: String) throws -> String {
        // The tests are a file in the directory that all products are built into.
        let tests = URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath()
        for directory in sequence(first: tests.deletingLastPathComponent(), next: { $0.deletingLastPathComponent() }).prefix(4) {
            let candidate = directory.appendingPathComponent(name).path
            if FileManager.default.fileExists(atPath: candidate) { return candidate }
        }
        throw Missing(name: name, tests: tests.path)
    }

    public struct Missing: Error, CustomStringConvertible {
        var name: String
        var tests: String
        public var description: String {
            "\(name) is not beside \(tests): build it first (swift build --product verneuil_vfs), or run scripts/test"
        }
    }

    public static func `extension`() throws -> String { try path("libverneuil_vfs.so") }
    public static func verneuilctl() throws -> String { try path("verneuilctl") }

    /// The package's own directory.
    public static let package: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { url.deleteLastPathComponent() }
        return url.path
    }()
}

/// A program that has run to its end.
public struct Program: Sendable, CustomStringConvertible {
    /// The exit status; for a signal, 128 and its number.
    public var status: Int32
    public var output: [UInt8]
    public var errors: String

    /// Standard output, without newlines at the end.
    public var text: String {
        var text = Substring(decoding: output, as: UTF8.self)
        while text.last == "\n" { text.removeLast() }
        return String(text)
    }
    public var description: String { "status \(status), output \"\(text.prefix(2000))\", errors \"\(errors.prefix(2000))\"" }

    /// - Parameters:
    ///   - words: a program, by path or as PATH has it, and its arguments.
    ///   - environment: on top of this process's, whose own configuration of Verneuil and AWS is left out.
    public static func run(
        _ words: [String], environment: [String: String] = [:], directory: String? = nil, input: [UInt8] = []
    ) throws -> Program {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = words
        process.environment = ProcessInfo.processInfo.environment
            .filter { !$0.key.hasPrefix("VERNEUIL_") && !$0.key.hasPrefix("AWS_") && $0.key != "NO_COLOR" }
            .merging(["AWS_EC2_METADATA_DISABLED": "true"]) { $1 }
            .merging(environment) { $1 }
        if let directory { process.currentDirectoryURL = URL(fileURLWithPath: directory) }
        // Files, not pipes: nobody has to read two of them at once.
        let scratch = FileManager.default.temporaryDirectory.appendingPathComponent("verneuil-program-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: scratch) }
        let files = try ["in", "out", "err"].map { name in
            let url = scratch.appendingPathComponent(name)
            try Data(name == "in" ? input : []).write(to: url)
            return try FileHandle(forUpdating: url)
        }
        process.standardInput = files[0]
        process.standardOutput = files[1]
        process.standardError = files[2]
        try process.run()
        process.waitUntilExit()
        let contents = try ["out", "err"].map { [UInt8](try Data(contentsOf: scratch.appendingPathComponent($0))) }
        return Program(
            status: process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus,
            output: contents[0], errors: String(decoding: contents[1], as: UTF8.self))
    }
}

/// A directory for one test, with a store and what belongs to it. Removed with its last reference.
public final class Workspace: Sendable {
    public let path: String

    public init() throws {
        path = FileManager.default.temporaryDirectory.resolvingSymlinksInPath()
            .appendingPathComponent("verneuil-test-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    public func file(_ name: String) -> String { "\(path)/\(name)" }
    public func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: file(name)) }
    public func bytes(_ name: String) throws -> [UInt8] { [UInt8](try Data(contentsOf: URL(fileURLWithPath: file(name)))) }
    public func write(_ bytes: [UInt8], to name: String) throws {
        let url = URL(fileURLWithPath: file(name))
        try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
        try Data(bytes).write(to: url)
    }
    /// Names of the files below a directory, at any depth.
    public func files(_ name: String) -> [String] {
        let all = FileManager.default.enumerator(atPath: file(name))?.compactMap { $0 as? String } ?? []
        return all.filter {
            var isDirectory: ObjCBool = false
            return FileManager.default.fileExists(atPath: "\(file(name))/\($0)", isDirectory: &isDirectory) && !isDirectory.boolValue
        }.sorted()
    }

    /// JSON for VERNEUIL_CONFIG: this directory's store, and maybe its spool.
    public func configuration(spool: Bool = false, store: String = "store") -> String {
        let spooling = spool ? "\"replication_spooling_dir\": \"\(file("spool"))\", " : ""
        return "{\(spooling)\"replication_targets\": [{\"directory\": {\"path\": \"\(file(store))\"}}]}"
    }

    // MARK: programs

    public func verneuilctl(_ arguments: String..., config: String? = nil, environment: [String: String] = [:]) throws -> Program {
        var environment = environment
        environment["VERNEUIL_CONFIG"] = config ?? configuration()
        return try Program.run([Products.verneuilctl()] + arguments, environment: environment, directory: path)
    }

    /// SQLite's shell without the extension.
    public func sqlite(_ database: String, _ sql: String...) throws -> Program {
        try Program.run(["sqlite3", "-bail", file(database)] + sql, directory: path)
    }

    /// SQLite's shell with the extension: a statement per argument, through a VFS.
    public func extended(
        _ uri: String, _ sql: String..., config: String? = nil, environment: [String: String] = [:]
    ) throws -> Program {
        var environment = environment
        environment["VERNEUIL_CONFIG"] = config ?? configuration(spool: true)
        return try Program.run(
            ["sqlite3", "-bail", "-cmd", ".load \(Products.extension())", "-cmd", ".open \"\(uri)\"", ":memory:"] + sql,
            environment: environment, directory: path)
    }
}
