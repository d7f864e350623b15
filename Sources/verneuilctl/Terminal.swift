import CVerneuil
import VerneuilSystem

/// The standard streams: results on output, everything else on error.
enum Terminal {
    static let errorIsTerminal = isatty(STDERR_FILENO) == 1
    static let outputIsTerminal = isatty(STDOUT_FILENO) == 1

    /// Colours only where a person looks, and doesn't object (https://no-color.org).
    static let usesColour: Bool = {
        let noColour = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
        let isDumb = getenv("TERM").map { String(cString: $0) == "dumb" } ?? true
        return errorIsTerminal && !noColour && !isDumb
    }()

    static func print(_ line: String) throws { try write(Array((line + "\n").utf8)) }

    static func write(_ bytes: [UInt8]) throws {
        try bytes.withUnsafeBytes { try write($0) }
    }

    /// To standard output, whole.
    static func write(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let n = vrn_write(STDOUT_FILENO, UnsafeRawBufferPointer(rebasing: rest).baseAddress, rest.count)
            if n < 0 { throw SystemError("write", "standard output", Int32(-n)) }
            rest = rest.dropFirst(n)
        }
    }

    static func complain(_ message: String) {
        let prefix = usesColour ? "\u{1B}[31mverneuilctl:\u{1B}[0m " : "verneuilctl: "
        write(prefix + message + "\n", to: STDERR_FILENO)
    }

    /// Best effort: there is nowhere to report its failure.
    static func write(_ text: String, to fd: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                let n = vrn_write(fd, bytes.baseAddress! + done, bytes.count - done)
                if n <= 0 { return }
                done += n
            }
        }
    }
}
