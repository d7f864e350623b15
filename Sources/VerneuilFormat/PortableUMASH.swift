import CVerneuil

/// UMASH on any CPU (FORMAT 3.2, 3.3): inputs of up to 8 bytes always, longer
/// ones where there is no carry-less multiply instruction. Sixteen times slower
/// than vrn_umash.c, and what that is tested against.
enum PortableUMASH {
    static func hash(_ bytes: UnsafeRawBufferPointer, _ parameters: UnsafePointer<vrn_umash_parameters>) -> Fingerprint
    {
        guard let oh = vrn_umash_keys(parameters) else { return Fingerprint(primary: 0, secondary: 0) }
        guard bytes.count > 8, let base = bytes.baseAddress else {
            return Fingerprint(
                primary: short(bytes, noise: oh[bytes.count]), secondary: short(bytes, noise: oh[bytes.count + 4]))
        }
        let f = parameters.pointee.f
        let f2 = parameters.pointee.f2
        var primary: UInt64 = 0
        var secondary: UInt64 = 0
        var start = 0
        while start < bytes.count {
            let size = min(256, bytes.count - start)
            let value = block(base, start, size, bytes.count, oh)
            primary = step(primary, f.0, f2.0, value.primary)
            secondary = step(secondary, f.1, f2.1, value.secondary)
            start += size
        }
        return Fingerprint(primary: finish(primary), secondary: finish(secondary))
    }

    // MARK: Up to 8 bytes

    private static func short(_ bytes: UnsafeRawBufferPointer, noise: UInt64) -> UInt64 {
        let n = bytes.count
        let low: UInt32
        let high: UInt32
        if n >= 4 {
            low = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
            high = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: n - 4, as: UInt32.self))
        } else {
            low = n & 1 == 1 ? UInt32(bytes[0]) : 0
            high =
                n >= 2 ? UInt32(UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: n - 2, as: UInt16.self))) : 0
        }
        var h = UInt64(high) << 32 | UInt64(high &+ low)
        h ^= h >> 30
        h = h &* 0xBF58_476D_1CE4_E5B9
        h ^= h >> 27
        h ^= noise
        h = h &* 0x94D0_49BB_1331_11EB
        return h ^ h >> 31
    }

    // MARK: Blocks

    private struct Wide {
        var low: UInt64 = 0
        var high: UInt64 = 0
        @inline(__always) static func ^ (a: Wide, b: Wide) -> Wide { Wide(low: a.low ^ b.low, high: a.high ^ b.high) }
        /// Each half shifted on its own.
        @inline(__always) var shifted: Wide { Wide(low: low << 1, high: high << 1) }
    }

    @inline(__always) private static func load(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    private static func block(
        _ base: UnsafeRawPointer, _ start: Int, _ size: Int, _ total: Int, _ oh: UnsafePointer<UInt64>
    ) -> (primary: Wide, secondary: Wide) {
        let count = (size + 15) / 16
        var plain = Wide()  // xor of all x but the last two
        var shifted = Wide()  // xor of x_i << (count - 1 - i), without the last
        var keyed = Wide()  // xor of all keyed pieces
        var x = Wide()
        for i in 0..<count - 1 {
            let a = load(base, start + 16 * i) ^ oh[2 * i]
            let b = load(base, start + 16 * i + 8) ^ oh[2 * i + 1]
            keyed = keyed ^ Wide(low: a, high: b)
            plain = plain ^ x
            x = carrylessProduct(a, b)
            shifted = (shifted ^ x).shifted
        }
        // The input's last piece overlaps its neighbour where it would be short.
        let whole = start + 16 * count <= total
        let a = load(base, whole ? start + 16 * (count - 1) : max(0, total - 16))
        let b = load(base, whole ? start + 16 * count - 8 : total - 8)
        let (ka, kb) = (oh[2 * count - 2], oh[2 * count - 1])
        keyed = keyed ^ Wide(low: a ^ ka, high: b ^ kb)
        let e = (a &+ ka).multipliedFullWidth(by: b &+ kb)
        let end = Wide(low: e.low, high: (e.high &+ UInt64(size & 255)) ^ e.low)
        let check = carrylessProduct(keyed.low ^ oh[32], keyed.high ^ oh[33])
        return (plain ^ x ^ end, check ^ end ^ shifted ^ plain.shifted)
    }

    /// The product of two polynomials over GF(2), with integer multiplications of
    /// numbers that use only every fourth bit: the three bits between take the
    /// carries of up to 15 terms. The top four bits of `x` would make it 16 and
    /// are added by hand.
    private static func carrylessProduct(_ x: UInt64, _ y: UInt64) -> Wide {
        let mask: UInt64 = 0x1111_1111_1111_1111
        let x0 = x & 0x0111_1111_1111_1111
        let x1 = x & 0x0222_2222_2222_2222
        let x2 = x & 0x0444_4444_4444_4444
        let x3 = x & 0x0888_8888_8888_8888
        let (y0, y1, y2, y3) = (y & mask, y & mask << 1, y & mask << 2, y & mask << 3)

        @inline(__always) func sum(
            _ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ mask: UInt64
        ) -> Wide {
            let p = x0.multipliedFullWidth(by: a)
            let q = x1.multipliedFullWidth(by: b)
            let r = x2.multipliedFullWidth(by: c)
            let s = x3.multipliedFullWidth(by: d)
            return Wide(
                low: (p.low ^ q.low ^ r.low ^ s.low) & mask, high: (p.high ^ q.high ^ r.high ^ s.high) & mask)
        }
        var product =
            sum(y0, y3, y2, y1, mask) ^ sum(y1, y0, y3, y2, mask << 1)
            ^ sum(y2, y1, y0, y3, mask << 2) ^ sum(y3, y2, y1, y0, mask << 3)
        for bit in UInt64(60)..<64 {
            let set = 0 &- (x >> bit & 1)
            product = product ^ Wide(low: y << bit & set, high: y >> (64 - bit) & set)
        }
        return product
    }

    // MARK: The polynomial over blocks, mod 2^64 - 8, where a carry out of 64 bits is worth 8

    @inline(__always) private static func add(_ a: UInt64, _ b: UInt64) -> UInt64 {
        let (sum, carry) = a.addingReportingOverflow(b)
        return carry ? sum &+ 8 : sum
    }
    /// `f` is below 2^61, so that eight times the product's high half fits.
    @inline(__always) private static func multiply(_ f: UInt64, _ a: UInt64) -> UInt64 {
        let (high, low) = f.multipliedFullWidth(by: a)
        return add(low, high << 3)
    }
    @inline(__always) private static func step(_ acc: UInt64, _ f: UInt64, _ f2: UInt64, _ value: Wide) -> UInt64 {
        let sum = add(multiply(f2, add(acc, value.low)), multiply(f, value.high))
        return sum >= 0 &- 8 ? sum &+ 8 : sum
    }
    private static func finish(_ acc: UInt64) -> UInt64 {
        acc ^ (acc << 8 | acc >> 56) ^ (acc << 33 | acc >> 31)
    }
}
