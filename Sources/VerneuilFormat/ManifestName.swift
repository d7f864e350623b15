/// What names objects and files after a database (FORMAT 5).
public enum ManifestName {
    /// The key of a database's manifest.
    /// - Parameters:
    ///   - host: the replicating machine's host name.
    ///   - path: the database's canonical absolute path there.
    public static func make(host: String, path: String) -> String {
        let hostHash = Hex.string(FingerprintKey.hostname.primary(Array(host.utf8)), width: 4)
        let pathHash = Hex.string(FingerprintKey.path.primary(Array(path.utf8)), width: 4)
        let name = "\(hostHash)-verneuil:\(host):\(pathHash)/\(path)"
        return folded(
            percentEncoded(name.utf8) { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    return true
                case UInt8(ascii: "!"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "*"),
                    UInt8(ascii: "'"), UInt8(ascii: "("), UInt8(ascii: ")"):
                    return true
                default:
                    return false
                }
            })
    }

    /// A path as one file name: `/` becomes `#`; `#`, `%`, control characters and
    /// what is not ASCII are percent-encoded.
    public static func mangledPath(_ path: String) -> String {
        let slash = UInt8(ascii: "/")
        let encoded = percentEncoded(path.utf8) { byte in
            byte >= 0x20 && byte < 0x7F && byte != UInt8(ascii: "#") && byte != UInt8(ascii: "%")
        }
        return folded(encoded.map { $0 == slash ? UInt8(ascii: "#") : $0 })
    }

    private static func percentEncoded(_ bytes: String.UTF8View, keep: (UInt8) -> Bool) -> [UInt8] {
        let digits = Array("0123456789ABCDEF".utf8)
        var encoded: [UInt8] = []
        for byte in bytes {
            if keep(byte) {
                encoded.append(byte)
            } else {
                encoded += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return encoded
    }

    /// Names from this length on are folded: file systems stop at 255 bytes, and
    /// temporary names need room.
    private static let tooLong = 230
    private static let kept = 104

    /// A name that is too long keeps its two ends, with a fingerprint of the whole between them.
    private static func folded(_ name: [UInt8]) -> String {
        guard name.count >= tooLong else { return String(decoding: name, as: UTF8.self) }
        let fingerprint = FingerprintKey.mangling.fingerprint(name)
        return String(decoding: name.prefix(kept), as: UTF8.self)
            + Hex.string(fingerprint.primary) + Hex.string(fingerprint.secondary)
            + String(decoding: name.suffix(kept), as: UTF8.self)
    }
}
