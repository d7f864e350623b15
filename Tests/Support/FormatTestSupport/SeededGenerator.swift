import Foundation

/// Random numbers that can be had again: SplitMix64. The seed is printed, and
/// taken from VERNEUIL_TEST_SEED where that is set.
public struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    /// - Parameter test: what to print the seed with.
    public init(for test: String) {
        let given = ProcessInfo.processInfo.environment["VERNEUIL_TEST_SEED"].flatMap { UInt64($0) }
        let seed = given ?? UInt64.random(in: 0...UInt64.max)
        print("\(test): VERNEUIL_TEST_SEED=\(seed)")
        state = seed
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    public mutating func bytes(_ count: Int) -> [UInt8] {
        var words: [UInt64] = []
        words.reserveCapacity(count / 8 + 1)
        for _ in 0..<count / 8 + 1 { words.append(next()) }
        return words.withUnsafeBytes { Array($0[..<count]) }
    }
}
