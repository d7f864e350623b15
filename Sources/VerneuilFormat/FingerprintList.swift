/// A list of fingerprints as the format stores it: 16 bytes each, primary first,
/// little-endian.
extension [Fingerprint] {
    func withLittleEndianBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        #if _endian(little)
        // The layout of `Fingerprint` in memory is the stored one.
        withUnsafeBytes(body)
        #else
        map { Fingerprint(primary: $0.primary.littleEndian, secondary: $0.secondary.littleEndian) }
            .withUnsafeBytes(body)
        #endif
    }

    /// Xors the list, seen as words, with a base chunk's: where that is shorter it
    /// counts as padded with zeros, what it has in excess is ignored. Its own inverse.
    mutating func xor(with base: [UInt64]) {
        for i in 0..<Swift.min(count, (base.count + 1) / 2) {
            self[i].primary ^= base[2 * i]
            if 2 * i + 1 < base.count { self[i].secondary ^= base[2 * i + 1] }
        }
    }
}
