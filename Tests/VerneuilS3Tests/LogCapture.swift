import Logging
import VerneuilSystem

/// Keeps what is logged, at every level, with its metadata.
final class LogCapture: Sendable {
    struct Line: Sendable {
        var level: Logger.Level
        var text: String
    }

    private let lock = Lock()
    nonisolated(unsafe) private var kept: [Line] = []

    var lines: [Line] { lock.withLock { kept } }
    /// Messages of that level and above.
    func lines(from level: Logger.Level) -> [String] { lines.filter { $0.level >= level }.map(\.text) }
    var text: String { lines.map(\.text).joined(separator: "\n") }

    var logger: Logger { Logger(label: "test") { _ in Handler(capture: self) } }

    private struct Handler: LogHandler {
        let capture: LogCapture
        var logLevel = Logger.Level.trace
        var metadata: Logger.Metadata = [:]

        init(capture: LogCapture) { self.capture = capture }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }

        func log(event: LogEvent) {
            let all = metadata.merging(event.metadata ?? [:]) { $1 }.sorted { $0.key < $1.key }
            let line = "\(event.message) " + all.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
            capture.lock.withLock { capture.kept.append(Line(level: event.level, text: line)) }
        }
    }
}
