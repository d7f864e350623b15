import CVerneuil
import Logging
import VerneuilSystem

/// Log messages on standard error, for the extension and the tool. A program
/// that links the Verneuil library keeps its own swift-log backend.
public enum LogOutput {
    private static let lock = Lock()
    nonisolated(unsafe) private static var isSet = false

    /// Sends this process's log messages to standard error. Later calls do nothing.
    /// - Parameter level: the least severe level that is shown; nil: as `VERNEUIL_LOG` says, else warnings.
    public static func bootstrap(level: Logger.Level? = nil) {
        let isFirst = lock.withLock {
            defer { isSet = true }
            return !isSet
        }
        guard isFirst else { return }
        let wanted = getenv("VERNEUIL_LOG").map { String(cString: $0) } ?? ""
        let threshold = level ?? Logger.Level(rawValue: wanted.lowercased()) ?? .warning
        LoggingSystem.bootstrap { StandardErrorLogHandler(label: $0, logLevel: threshold) }
        if level == nil, !wanted.isEmpty, Logger.Level(rawValue: wanted.lowercased()) == nil {
            let known = Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")
            Logger(label: "verneuil").warning("VERNEUIL_LOG: unknown level, using warning; expected one of \(known)")
        }
    }
}

/// One write(2) for each message, which waits for nobody (vrn_log.c). Unlike stdio and localtime(3), which have
/// locks, this works in a child that was forked while another thread logged.
struct StandardErrorLogHandler: LogHandler {
    let label: String
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    var metadataProvider: Logger.MetadataProvider?

    init(label: String, logLevel: Logger.Level) {
        self.label = label
        self.logLevel = logLevel
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        var line = "\(wallClock().rfc3339) \(event.level) \(label): \(event.message)"
        var details = metadata
        details.merge(metadataProvider?.get() ?? [:]) { $1 }
        details.merge(event.metadata ?? [:]) { $1 }
        if let error = event.error { details["error"] = "\(error)" }
        for (key, value) in details.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(value)" }
        let dropped = vrn_log_take_dropped()
        // A message is one line, whatever a path or a server's answer holds.
        var bytes = line.utf8.map { $0 < 0x20 ? UInt8(ascii: " ") : $0 }
        let end = (dropped > 0 ? " dropped-before=\(dropped)" : "") + "\n"
        let most = Int(VRN_LOG_LINE) - end.utf8.count
        if bytes.count > most {
            let mark = "…".utf8
            bytes.removeLast(bytes.count - (most - mark.count))
            // Not in the middle of a character: its first byte is the last one that isn't 10xxxxxx.
            while bytes.last.map({ $0 & 0xC0 == 0x80 }) ?? false { bytes.removeLast() }
            if bytes.last.map({ $0 >= 0xC0 }) ?? false { bytes.removeLast() }
            bytes += mark
        }
        bytes += end.utf8
        bytes.withUnsafeBytes { vrn_log_write($0.baseAddress, $0.count, dropped) }
    }
}

extension FileTime {
    /// UTC with milliseconds, as RFC 3339 writes it. No localtime(3), which has a lock.
    public var rfc3339: String {
        let (days, second) = seconds.quotientAndRemainder(dividingBy: 86_400)
        // Days to a date of the Gregorian calendar, counted in years that begin in
        // March, so that the leap day is the last; eras of 400 years have 146,097 days.
        let shifted = days + 719_468
        let (era, dayOfEra) = shifted.quotientAndRemainder(dividingBy: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        let clock = "\(padded(second / 3600, 2)):\(padded(second / 60 % 60, 2)):\(padded(second % 60, 2))"
        return "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))T\(clock).\(padded(nanoseconds / 1_000_000, 3))Z"
    }
}

private func padded(_ number: Int64, _ width: Int) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, width - digits.count)) + digits
}
