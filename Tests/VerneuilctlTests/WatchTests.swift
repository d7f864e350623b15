import Foundation
import ProductSupport
import Testing

/// `verneuilctl flush --watch`.
@Suite struct WatchTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private func start(_ options: [String] = [], environment: [String: String] = [:]) throws -> Process {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try Products.verneuilctl())
        process.arguments = ["flush", "--watch", "--interval", "0.1"] + options + [here.file("spool")]
        process.environment = ProcessInfo.processInfo.environment
            .merging(["VERNEUIL_CONFIG": "{\"replication_pacing\": {\"manifest_interval_seconds\": 0.05}, " + here.configuration().dropFirst(), "VERNEUIL_LOG": "notice"]) { $1 }.merging(environment) { $1 }
        try here.write([], to: "log")
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: here.file("log")))
        try process.run()
        return process
    }

    private func wait(_ what: String, seconds: Double = 30, _ condition: () throws -> Bool) throws {
        let end = Date(timeIntervalSinceNow: seconds)
        while try !condition() {
            try #require(Date() < end, "no \(what) in \(seconds) s; \(String(decoding: (try? here.bytes("log")) ?? [], as: UTF8.self))")
            usleep(20_000)
        }
    }

    /// The writer has no store of its own, and is gone at once.
    private func write(_ sql: String) throws {
        let program = try here.extended(
            "file:app.db?vfs=verneuil", sql, config: "{\"replication_spooling_dir\": \"\(here.file("spool"))\"}")
        #expect(program.status == 0, "\(program)")
    }

    private func isStored() throws -> Bool {
        guard here.files("store/manifests").isEmpty == false else { return false }
        let restored = try here.verneuilctl("restore", "--source-path", "app.db")
        return try restored.status == 0 && restored.output == here.bytes("app.db")
    }

    @Test(arguments: [SIGTERM, SIGINT, SIGHUP]) func aWatchedSpoolIsUploadedUntilASignal(signal: Int32) throws {
        let process = try start()
        defer { process.terminate() }
        try write("CREATE TABLE t(x)")
        try wait("first snapshot") { try isStored() }
        for i in 1...3 {
            try write("INSERT INTO t VALUES (\(i))")
            try wait("snapshot \(i)") { try isStored() }
        }
        kill(process.processIdentifier, signal)
        process.waitUntilExit()
        let log = String(decoding: try here.bytes("log"), as: UTF8.self)
        #expect(process.terminationReason == .exit && process.terminationStatus == 0, "\(log)")
        #expect(log.contains("watching") && !log.contains("error"), "\(log)")
    }

    @Test func whatIsLeftIsUploadedBeforeItStops() throws {
        let process = try start(["--interval", "3600"])
        defer { process.terminate() }
        try wait("start") { String(decoding: try here.bytes("log"), as: UTF8.self).contains("watching") }
        try write("CREATE TABLE t(x)")
        kill(process.processIdentifier, SIGTERM)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0)
        #expect(try isStored())
    }

    @Test func aStoreThatIsAwayDoesNotKeepItFromStopping() throws {
        try here.write([1], to: "store")  // a file stands in its place
        try write("CREATE TABLE t(x)")
        let process = try start(["--stop-timeout", "1"])
        defer { process.terminate() }
        try wait("start") { String(decoding: try here.bytes("log"), as: UTF8.self).contains("watching") }
        let before = Date()
        kill(process.processIdentifier, SIGTERM)
        process.waitUntilExit()
        #expect(process.terminationStatus == 0 && Date().timeIntervalSince(before) < 10)
        #expect(String(decoding: try here.bytes("log"), as: UTF8.self).contains("left in the spool"))
        try FileManager.default.removeItem(atPath: here.file("store"))
        #expect(try here.verneuilctl("flush", "spool").status == 0)
        #expect(try isStored())
    }

    @Test func theServiceManagerIsToldWhenItIsReady() throws {
        // A datagram socket, as systemd has it; Python reads what comes.
        let listener = Process()
        listener.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        listener.arguments = [
            "python3", "-c",
            "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.settimeout(60)\ns.bind(sys.argv[1])\nprint(s.recv(999),s.recv(999),flush=True)",
            here.file("notify"),
        ]
        let pipe = Pipe()
        listener.standardOutput = pipe
        try listener.run()
        try wait("socket") { here.exists("notify") }
        let process = try start(environment: ["NOTIFY_SOCKET": here.file("notify")])
        try wait("start") { String(decoding: try here.bytes("log"), as: UTF8.self).contains("watching") }
        kill(process.processIdentifier, SIGTERM)
        process.waitUntilExit()
        listener.waitUntilExit()
        let heard = String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self)
        #expect(heard.contains("READY=1") && heard.contains("STOPPING=1"), "\(heard)")
    }
}
