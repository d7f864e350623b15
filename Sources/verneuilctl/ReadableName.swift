/// "path of host" for a manifest's name.
enum ReadableName {
    static func of(_ manifestName: String) -> String {
        var bytes: [UInt8] = []
        var rest = Array(manifestName.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
                bytes.append(value)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        // HHHH-verneuil:HOST:PPPP/PATH; a long name lacks its middle, and stays as it is.
        let parts = String(decoding: bytes, as: UTF8.self)
            .split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].hasSuffix("-verneuil"), parts[2].utf8.dropFirst(4).first == UInt8(ascii: "/")
        else { return manifestName }
        return "\(parts[2].dropFirst(5)) of \(parts[1])"
    }
}
