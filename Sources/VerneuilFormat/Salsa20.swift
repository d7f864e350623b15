/// The Salsa20/20 stream cipher's key stream with a 256-bit key: the format's
/// random generator. Nothing here is secret.
package enum Salsa20 {
    /// - Parameters:
    ///   - key: 32 bytes.
    ///   - words: how many 64-bit little-endian words of the stream to answer.
    package static func keyStream(key: [UInt8], nonce: UInt64, words: Int) -> [UInt64] {
        let k = key.withUnsafeBytes { key in
            (0..<8).map { UInt32(littleEndian: key.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)) }
        }
        var stream: [UInt64] = []
        var counter: UInt64 = 0
        while stream.count < words {
            let block = block(k, nonce, counter)
            for i in 0..<8 { stream.append(UInt64(block[2 * i]) | UInt64(block[2 * i + 1]) << 32) }
            counter += 1
        }
        return Array(stream.prefix(words))
    }

    private static func block(_ k: [UInt32], _ nonce: UInt64, _ counter: UInt64) -> [UInt32] {
        // "expand 32-byte k" on the diagonal.
        let input: [UInt32] = [
            0x6170_7865, k[0], k[1], k[2],
            k[3], 0x3320_646E, UInt32(truncatingIfNeeded: nonce), UInt32(truncatingIfNeeded: nonce >> 32),
            UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32), 0x7962_2D32, k[4],
            k[5], k[6], k[7], 0x6B20_6574,
        ]
        var x = input
        func quarter(_ a: Int, _ b: Int, _ c: Int, _ d: Int) {
            x[b] ^= rotate(x[a] &+ x[d], 7)
            x[c] ^= rotate(x[b] &+ x[a], 9)
            x[d] ^= rotate(x[c] &+ x[b], 13)
            x[a] ^= rotate(x[d] &+ x[c], 18)
        }
        for _ in 0..<10 {
            quarter(0, 4, 8, 12)
            quarter(5, 9, 13, 1)
            quarter(10, 14, 2, 6)
            quarter(15, 3, 7, 11)
            quarter(0, 1, 2, 3)
            quarter(5, 6, 7, 4)
            quarter(10, 11, 8, 9)
            quarter(15, 12, 13, 14)
        }
        return zip(x, input).map { $0 &+ $1 }
    }

    private static func rotate(_ x: UInt32, _ n: UInt32) -> UInt32 { x << n | x >> (32 - n) }
}
