import CVerneuil

/// From a purpose string to UMASH parameters (FORMAT 3.1).
package enum UMASHParameters {
    /// 2^61 - 1, the modulus that multipliers live in.
    static let modulus: UInt64 = (1 << 61) - 1

    static func derive(purpose: [UInt8]) -> vrn_umash_parameters { parameters(values(purpose: purpose)) }

    package static func values(purpose: [UInt8]) -> Values {
        var key = Array(purpose.prefix(32))
        key += repeatElement(0, count: 32 - key.count)
        var nonce: UInt64 = 0
        while true {
            let words = Salsa20.keyStream(key: key, nonce: nonce, words: 38)
            if let values = select(from: words) { return values }
            nonce += 1
        }
    }

    package struct Values: Equatable {
        package var multipliers: [UInt64]
        package var keys: [UInt64]
    }

    /// Picks two multipliers and 34 distinct keys from 38 random words. Words 0 and
    /// 2 are spares for the ones that are unfit; nil where they don't suffice.
    package static func select(from words: [UInt64]) -> Values? {
        var spares = [words[2], words[0]]  // taken from the end

        func multiplier(_ word: UInt64) -> UInt64? {
            var f = word & modulus
            while f == 0 || f == modulus {
                guard let spare = spares.popLast() else { return nil }
                f = spare & modulus
            }
            return f
        }
        guard let f0 = multiplier(words[1]), let f1 = multiplier(words[3]) else { return nil }

        var keys: [UInt64] = []
        for word in words[4...] {
            var key = word
            while keys.contains(key) {
                guard let spare = spares.popLast() else { return nil }
                key = spare
            }
            keys.append(key)
        }
        return Values(multipliers: [f0, f1], keys: keys)
    }

    private static func parameters(_ values: Values) -> vrn_umash_parameters {
        var p = vrn_umash_parameters()
        let (f0, f1) = (values.multipliers[0], values.multipliers[1])
        p.f = (f0, f1)
        p.f2 = (square(f0), square(f1))
        withUnsafeMutableBytes(of: &p.oh) { oh in
            values.keys.withUnsafeBytes { oh.copyMemory(from: $0) }
        }
        return p
    }

    private static func square(_ f: UInt64) -> UInt64 {
        let (high, low) = f.multipliedFullWidth(by: f)
        return modulus.dividingFullWidth((high, low)).remainder
    }
}
