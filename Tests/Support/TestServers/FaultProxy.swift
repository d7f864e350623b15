import VerneuilSystem

/// Stands between a client and a server and does harm by rule, as
/// Tests/Servers/faultproxy.py explains. Plain HTTP.
public final class FaultProxy: Sendable {
    public struct Rule: Sendable {
        /// "503", "reset_before", "truncate", ...
        public var fault: String
        /// A regular expression on "METHOD /path?query".
        public var match: String
        /// How many times at most; nil: always.
        public var times: Int?
        /// Requests that pass before.
        public var skip: Int
        public var milliseconds: Int?

        public init(_ fault: String, match: String = "", times: Int? = nil, skip: Int = 0, milliseconds: Int? = nil) {
            self.fault = fault
            self.match = match
            self.times = times
            self.skip = skip
            self.milliseconds = milliseconds
        }

        var json: String {
            var members = ["\"fault\": \"\(fault)\"", "\"match\": \"\(match)\"", "\"skip\": \(skip)"]
            if let times { members.append("\"n\": \(times)") }
            if let milliseconds { members.append("\"ms\": \(milliseconds)") }
            return "{\(members.joined(separator: ", "))}"
        }
    }

    public let port: Int
    public let process: SupervisedProcess
    private let lock = Lock()
    nonisolated(unsafe) private var connectionsBefore = 1  // the probe that waited for the port
    nonisolated(unsafe) private var requestsBefore = 0
    public var endpoint: String { "http://127.0.0.1:\(port)" }
    private var control: Int { port + 1 }

    public init(to server: S3Server) throws {
        port = SupervisedProcess.freePort(count: 2)
        process = try SupervisedProcess([
            "python3", "\(SupervisedProcess.scripts)/faultproxy.py", String(port), String(server.port),
            String(port + 1),
        ])
        try process.awaitPort(port, seconds: 30)
        try process.awaitPort(port + 1, seconds: 30)
    }

    /// Replaces the rules. The first one that fires wins.
    public func set(_ rules: [Rule]) throws {
        let body = "[\(rules.map(\.json).joined(separator: ", "))]"
        _ = try LoopbackHTTP.request("PUT", port: control, path: "/rules", body: body)
    }

    /// Forgets all rules, and counts from 0.
    public func reset() throws {
        try set([])
        let seen = try statistics()
        lock.withLock {
            connectionsBefore += seen.connections
            requestsBefore += seen.requests
        }
    }

    /// Connections accepted and requests seen since `reset`.
    public func statistics() throws -> (connections: Int, requests: Int) {
        let text = try LoopbackHTTP.request("GET", port: control, path: "/stats").body
        let numbers = text.split { !$0.isNumber }.compactMap { Int($0) }
        guard numbers.count == 2 else { throw LoopbackHTTP.Failure() }
        return lock.withLock { (numbers[0] - connectionsBefore, numbers[1] - requestsBefore) }
    }

    public func stop() { process.stop() }
}
