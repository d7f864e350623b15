/// A base chunk (FORMAT 6.2): an earlier list of chunk fingerprints, kept as an
/// object of its own, that a manifest's list is xored with. Where few chunks have
/// changed since, what is stored is mostly zeros, and compresses to little.
public enum BaseChunk {
    /// Words of a list, two per chunk, from which on a base chunk is worth an object (300 chunks, 19 MiB).
    public static let minimumWords = 600

    /// The object's bytes, to be stored as a chunk is.
    public static func encode(_ chunks: [Fingerprint]) -> [UInt8] {
        chunks.withLittleEndianBytes { [UInt8]($0) }
    }

    /// The list's words: primary, secondary, primary…
    public static func decode(_ bytes: [UInt8]) throws(FormatError) -> [UInt64] {
        guard bytes.count % 16 == 0 else {
            throw FormatError("base chunk", "has \(bytes.count) bytes, which is not a multiple of 16")
        }
        return bytes.withUnsafeBytes { bytes in
            (0..<bytes.count / 8).map {
                UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self))
            }
        }
    }

    /// The name of the object that holds these words.
    static func fingerprint(_ words: [UInt64]) -> Fingerprint {
        words.map(\.littleEndian).withUnsafeBytes { FingerprintKey.chunk.fingerprint($0) }
    }

    /// Whether the next manifest should go on using `base`: with the probability
    /// that a word of the list still is the base's, so that a base that has aged is
    /// replaced sooner or later, and rarely by chance alone. Never where it is more than twice as long as the list, as after
    /// a database has shrunk: readers bound what they unpack by the list.
    /// - Parameter random: uniform in 0 ..< 1.
    public static func shouldKeep(base: [UInt64], for chunks: [Fingerprint], random: Double) -> Bool {
        let words = 2 * chunks.count
        guard words >= minimumWords, base.count <= 2 * words else { return false }
        var matching = 0
        for (i, chunk) in chunks.enumerated() {
            if 2 * i < base.count, base[2 * i] == chunk.primary { matching += 1 }
            if 2 * i + 1 < base.count, base[2 * i + 1] == chunk.secondary { matching += 1 }
        }
        return random * Double(words) < Double(matching)
    }
}
