import CVerneuil
import VerneuilReplica
import VerneuilSystem

/// A line on standard error that is written over: bytes, rate and time left.
/// Nothing at all where that is no terminal, or the work takes under half a second.
/// Used by one thread at a time.
final class ProgressBar: @unchecked Sendable {
    enum Unit { case bytes, objects }

    private let title: String
    private let unit: Unit
    private let start = MonotonicTime.now
    private var isShown = false

    init(_ title: String, unit: Unit = .bytes) {
        self.title = title
        self.unit = unit
    }

    func show(_ progress: Restore.Progress) { show(progress.done, of: progress.total) }

    func show(_ done: UInt64, of total: UInt64) {
        guard Terminal.errorIsTerminal else { return }
        let elapsed = MonotonicTime.now.seconds(since: start)
        if elapsed < 0.5 { return }
        isShown = true
        let rate = Double(done) / elapsed
        let left = rate > 0 ? Double(total - min(done, total)) / rate : 0
        let share = total > 0 ? Double(done) / Double(total) : 1
        let width = 24
        let full = min(width, Int(share * Double(width)))
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: width - full)
        Terminal.write(
            "\r\(title) [\(bar)] \(Int(share * 100))% of \(size(Double(total))), \(size(rate))/s, \(time(left)) left\u{1B}[K",
            to: STDERR_FILENO)
    }

    /// Takes the line away.
    func finish() {
        if isShown { Terminal.write("\r\u{1B}[K", to: STDERR_FILENO) }
        isShown = false
    }

    private func size(_ bytes: Double) -> String {
        if unit == .objects { return "\(Int(bytes.rounded())) objects" }
        var value = bytes
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1024 { return "\(rounded(value)) \(unit)" }
            value /= 1024
        }
        return "\(rounded(value)) TiB"
    }

    /// Three digits or so.
    private func rounded(_ value: Double) -> String {
        value >= 100 || value == value.rounded() ? "\(Int(value.rounded()))" : "\((value * 10).rounded() / 10)"
    }

    private func time(_ seconds: Double) -> String {
        let whole = Int(min(seconds, 359_999).rounded(.up))
        let minutes = String(whole / 60 % 60), rest = String(whole % 60)
        let tail = (minutes.count < 2 ? "0\(minutes)" : minutes) + ":" + (rest.count < 2 ? "0\(rest)" : rest)
        return whole >= 3600 ? "\(whole / 3600):\(tail)" : tail
    }
}
