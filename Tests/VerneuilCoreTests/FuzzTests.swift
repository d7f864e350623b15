import FormatTestSupport
import Foundation
import Testing
import VerneuilCore

/// Configurations and references to manifests that are almost right: they are read or refused, and nothing else happens.
/// VERNEUIL_FUZZ_INPUTS: how many inputs each.
@Suite struct ConfigurationFuzzTests {
    static let inputs = ProcessInfo.processInfo.environment["VERNEUIL_FUZZ_INPUTS"].flatMap(Int.init) ?? 20_000

    /// Of the repository: one input a file.
    static func corpus(_ name: String) throws -> [[UInt8]] {
        let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Fixtures/fuzz/\(name)")
        return try FileManager.default.contentsOfDirectory(at: directory, includingPropertiesForKeys: nil)
            .sorted { $0.path < $1.path }.map { try [UInt8](Data(contentsOf: $0)) }
    }

    static let words = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u0000", "\\ud800", "null", "true", "false", "-", "1e999", "0.", "1E-", "99999999999999999999",
        "\"s3\"", "\"local\"", "\"directory\"", "\"path\"", "\"replication_targets\"", "\"snapshot_loading_policy\"", "//", "%", "%2F", "%zz", "?", "#",
        "://", "verneuil://", "s3://", "file://", "..", "\u{0}", "é", "🂡",
    ].map { Array($0.utf8) }

    static func mutated(_ seed: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = seed
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            guard !bytes.isEmpty else { return random.bytes(Int.random(in: 0..<30, using: &random)) }
            let i = Int.random(in: 0..<bytes.count, using: &random)
            let end = min(bytes.count, i + Int.random(in: 0..<12, using: &random))
            switch random.next() % 7 {
            case 0: bytes[i] ^= 1 << UInt8(random.next() % 8)
            case 1: bytes[i] = UInt8(truncatingIfNeeded: random.next())
            case 2: bytes.removeSubrange(i..<end)
            case 3: bytes.insert(contentsOf: bytes[i..<end], at: i)
            case 4: bytes.removeSubrange(i...)
            default: bytes.insert(contentsOf: words[Int.random(in: 0..<words.count, using: &random)], at: i)
            }
        }
        return bytes
    }

    @Test func randomConfigurationsAreReadOrRefusedWithAMessage() throws {
        var random = SeededGenerator(for: "randomConfigurationsAreReadOrRefusedWithAMessage")
        let seeds = try Self.corpus("configuration")
        #expect(seeds.count > 3)
        for seed in seeds { _ = try Configuration(json: seed, source: "corpus") }
        var accepted = 0
        for i in 0..<Self.inputs {
            let input =
                i % 200 == 0
                // Deep nesting must not use up the stack.
                ? [UInt8](repeating: UInt8(ascii: "["), count: 100_000)
                : Self.mutated(seeds[Int.random(in: 0..<seeds.count, using: &random)], &random)
            do {
                _ = try Configuration(json: input, source: "fuzz")
                accepted += 1
            } catch {
                #expect(!error.description.isEmpty)
            }
        }
        print("accepted \(accepted) of \(Self.inputs)")
        #expect(accepted > Self.inputs / 1000 && accepted < Self.inputs)
    }

    @Test func randomReferencesToManifestsAreReadOrRefusedWithAMessage() throws {
        var random = SeededGenerator(for: "randomReferencesToManifestsAreReadOrRefusedWithAMessage")
        let seeds = try Self.corpus("reference")
        #expect(seeds.count > 3)
        var accepted = 0
        for _ in 0..<Self.inputs {
            let input = String(decoding: Self.mutated(seeds[Int.random(in: 0..<seeds.count, using: &random)], &random), as: UTF8.self)
            do {
                let reference = try ManifestReference(input)
                // What is shown reads as the same again.
                if case .object = reference { #expect(try ManifestReference(reference.description) == reference, "\(input)") }
                if case .stored(let database) = reference { #expect(!database.manifestName.isEmpty) }
                accepted += 1
            } catch {
                #expect(!error.description.isEmpty)
            }
        }
        print("accepted \(accepted) of \(Self.inputs)")
        #expect(accepted > Self.inputs / 100 && accepted < Self.inputs)
    }
}
