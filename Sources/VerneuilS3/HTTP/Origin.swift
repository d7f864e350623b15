/// Where HTTP requests go: scheme, host and port.
struct Origin: Hashable, Sendable {
    var isTLS: Bool
    /// A name or an address; IPv6 without brackets. Lower case.
    var host: String
    var port: Int

    init(isTLS: Bool, host: String, port: Int? = nil) {
        self.isTLS = isTLS
        self.host = host.lowercased()
        self.port = port ?? (isTLS ? 443 : 80)
    }

    /// The Host header: without the scheme's own port.
    var authority: String {
        let name = host.utf8.contains(UInt8(ascii: ":")) ? "[\(host)]" : host
        return port == (isTLS ? 443 : 80) ? name : "\(name):\(port)"
    }

    var url: String { "\(isTLS ? "https" : "http")://\(authority)" }

    /// An address, so that there is nothing to resolve, no name for TLS to
    /// announce and no subdomain.
    var isAddress: Bool {
        host.utf8.contains(UInt8(ascii: ":"))
            || host.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { UInt8($0) != nil }
    }

    /// Splits "http://host:port/path?query" into where and what. nil where it is not such a URL;
    /// names and passwords in it are not accepted.
    static func parse(url: String) -> (origin: Origin, target: String)? {
        let isTLS: Bool
        var rest: Substring
        if url.lowercased().hasPrefix("http://") {
            isTLS = false
            rest = url.dropFirst(7)
        } else if url.lowercased().hasPrefix("https://") {
            isTLS = true
            rest = url.dropFirst(8)
        } else {
            return nil
        }
        var target = "/"
        if let end = rest.firstIndex(where: { "/?#".contains($0) }) {
            target = rest[end] == "/" ? String(rest[end...]) : "/\(rest[end...])"
            rest = rest[..<end]
        }
        if let fragment = target.firstIndex(of: "#") { target = String(target[..<fragment]) }

        let host: Substring
        if rest.hasPrefix("[") {
            guard let bracket = rest.firstIndex(of: "]") else { return nil }
            host = rest[rest.index(after: rest.startIndex)..<bracket]
            guard host.utf8.allSatisfy({ isHexDigit($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".") }) else {
                return nil
            }
            rest = rest[rest.index(after: bracket)...]
        } else {
            let end = rest.firstIndex(of: ":") ?? rest.endIndex
            host = rest[..<end]
            guard host.utf8.allSatisfy(isHostByte) else { return nil }
            rest = rest[end...]
        }
        var port: Int?
        if rest.hasPrefix(":") {
            guard let number = UInt16(rest.dropFirst()), number > 0 else { return nil }
            port = Int(number)
        } else if !rest.isEmpty {
            return nil
        }
        guard !host.isEmpty, !host.hasPrefix("."), !host.contains("..") else { return nil }
        return (Origin(isTLS: isTLS, host: String(host), port: port), target)
    }

    /// Letters, digits, '-', '.' and the '_' that some private networks use.
    static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"):
            return true
        default: return false
        }
    }

    private static func isHexDigit(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "f"), UInt8(ascii: "A")...UInt8(ascii: "F"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            return true
        default: return false
        }
    }
}
