import FormatTestSupport
import Foundation
import ManifestProto
import Testing
import VerneuilFormat

/// Garbage, and objects that are almost right: nothing may crash, use memory out
/// of proportion, or be accepted without being what it says.
@Suite struct FuzzTests {
    /// VERNEUIL_FUZZ_INPUTS: how many there are.
    static let inputs = ProcessInfo.processInfo.environment["VERNEUIL_FUZZ_INPUTS"].flatMap(Int.init) ?? 100_000
    /// By hand, each decoder gets each input.
    static let isThorough = inputs >= 1_000_000

    /// Correct manifests: small ones mostly, since a mutation hits more there, and
    /// the golden ones, raw and compressed.
    func seeds(_ random: inout SeededGenerator) throws -> (small: [[UInt8]], golden: [[UInt8]], bases: [[UInt8]]) {
        var small: [[UInt8]] = []
        var bases: [[UInt8]] = []
        for count in 0..<12 {
            var manifest = RandomManifest.make(chunks: count, bundled: 0, &random)
            small.append(manifest.encoded(base: nil))
            let base = RandomManifest.base(for: manifest.chunks, count: 6, &random)
            manifest.baseChunk = FingerprintKey.chunk.fingerprint(base)
            small.append(manifest.encoded(base: try BaseChunk.decode(base)))
            small.append(Body.compressManifest(small[small.count - 1]))
            bases.append(base)
        }
        let tiny = [UInt8](repeating: 1, count: 600)
        let fingerprint = FingerprintKey.chunk.fingerprint(tiny)
        small.append(
            Manifest(
                headerFingerprint: fingerprint, versionID: [1], length: 600, generatedBy: [2], chunks: [fingerprint],
                bundled: [BundledChunk(index: 0, offset: 0, fingerprint: fingerprint, data: tiny)]
            ).encoded(base: nil))
        var golden: [[UInt8]] = []
        for database in try GoldenData.cases() {
            for version in database.versions {
                let body = try database.manifestBody(version)
                golden.append(body)
                golden.append(try Body.decode(body, limit: Body.maximumLength) { _ in true })
            }
        }
        return (small, golden, bases)
    }

    func mutated(_ seed: [UInt8], with other: [UInt8], _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = seed
        for _ in 0..<Int.random(in: 1...3, using: &random) {
            guard !bytes.isEmpty else { return random.bytes(Int.random(in: 0..<40, using: &random)) }
            let i = Int.random(in: 0..<bytes.count, using: &random)
            let end = min(bytes.count, i + Int.random(in: 0..<20, using: &random))
            switch random.next() % 8 {
            case 0: bytes[i] ^= 1 << UInt8(random.next() % 8)
            case 1: bytes[i] = UInt8(truncatingIfNeeded: random.next())
            case 2: bytes[i] = [0, 0x7F, 0x80, 0xFF].randomElement(using: &random) ?? 0
            case 3: bytes.removeSubrange(i..<end)
            case 4: bytes.removeSubrange(i...)
            case 5: bytes.insert(contentsOf: bytes[i..<end], at: i)
            case 6: bytes.insert(contentsOf: random.bytes(Int.random(in: 0..<12, using: &random)), at: i)
            default: bytes.replaceSubrange(i..., with: other.suffix(Int.random(in: 0...other.count, using: &random)))
            }
        }
        return bytes
    }

    @Test func garbageIsRefusedAndWhatIsAcceptedIsWhatItSays() throws {
        var random = SeededGenerator(for: "garbageIsRefusedAndWhatIsAcceptedIsWhatItSays")
        let seeds = try seeds(&random)
        var accepted = 0
        for i in 0..<Self.inputs {
            let pool = i % 50 == 0 ? seeds.golden : seeds.small
            let seed = pool[Int.random(in: 0..<pool.count, using: &random)]
            let other = seeds.small[Int.random(in: 0..<seeds.small.count, using: &random)]
            let input =
                i % 10 == 1
                ? random.bytes(Int.random(in: 0..<200, using: &random)) : mutated(seed, with: other, &random)

            if try readManifest(input, bases: seeds.bases) { accepted += 1 }
            readBody(input, limit: Int.random(in: 0...100_000, using: &random))
            // Each error thrown under Swift Testing costs 100 µs: it records a backtrace.
            if i % 10 == 0 || input.count % 16 == 0 || Self.isThorough {
                readChunk(input, length: Int.random(in: 0...100_000, using: &random))
                if let words = try? BaseChunk.decode(input) { #expect(8 * words.count == input.count) }
            }
            let name = String(decoding: input.prefix(100), as: UTF8.self)
            if let fingerprint = Fingerprint(chunkName: name) { #expect(fingerprint.chunkName == name) }
        }
        // Changes to fields that nothing is checked against leave a correct manifest.
        #expect(accepted > Self.inputs / 100)
        print("accepted \(accepted) of \(Self.inputs)")
    }

    /// Whether it is a manifest. Where it is, the generated decoder must read the same.
    func readManifest(_ input: [UInt8], bases: [[UInt8]]) throws -> Bool {
        guard let stored = try? StoredManifest(decoding: input) else { return false }
        let base = stored.baseChunk.flatMap { name in bases.first { FingerprintKey.chunk.fingerprint($0) == name } }
        guard let manifest = try? stored.resolved(base: base) else { return false }
        #expect(Chunk.count(forLength: manifest.length) == manifest.chunks.count)
        for chunk in manifest.bundled {
            #expect(FingerprintKey.chunk.fingerprint(chunk.data) == manifest.chunks[chunk.index])
        }
        let content = try Body.decode(input, limit: Body.maximumLength) { _ in true }
        let message = try ProtoManifest(serializedBytes: Data(content)).v1
        #expect(message.contentsFprint.fingerprint == manifest.contentsFingerprint)
        #expect(message.headerFprint.fingerprint == manifest.headerFingerprint)
        #expect(message.len == manifest.length)
        #expect(message.ctime == manifest.ctime && message.ctimeNs == manifest.ctimeNanoseconds)
        #expect([UInt8](message.versionID) == manifest.versionID)
        #expect([UInt8](message.generatedBy) == manifest.generatedBy)
        #expect(message.chunks.count == 2 * manifest.chunks.count)
        #expect(message.bundledChunks.count == manifest.bundled.count)
        // What we make of it reads the same again.
        let words = try base.map { bytes throws(FormatError) in try BaseChunk.decode(bytes) }
        #expect(try StoredManifest(decoding: manifest.encoded(base: words)).resolved(base: base) == manifest)
        return true
    }

    func readBody(_ input: [UInt8], limit: Int) {
        if let content = try? Body.decode(input, limit: limit, accept: { _ in true }) {
            #expect(content.count <= limit)
        }
    }

    func readChunk(_ input: [UInt8], length: Int) {
        if let content = try? Body.decodeChunk(input, expecting: Chunk.zeroFingerprint, length: length) {
            #expect(content == [UInt8](repeating: 0, count: Chunk.size))
        }
    }

    @Test func randomChunkNamesAreReadOrRefused() {
        var random = SeededGenerator(for: "randomChunkNamesAreReadOrRefused")
        for _ in 0..<(Self.isThorough ? Self.inputs : Self.inputs / 10) {
            let fingerprint = RandomManifest.fingerprint(&random)
            #expect(Fingerprint(chunkName: fingerprint.chunkName) == fingerprint)
            let name = String(
                decoding: mutated(Array(fingerprint.chunkName.utf8), with: [0x25], &random), as: UTF8.self)
            if let read = Fingerprint(chunkName: name) { #expect(read.chunkName == name) }
        }
    }
}
