import FormatTestSupport
import Foundation
import ManifestProto
import Testing
import VerneuilFormat

/// Manifests (FORMAT 6): the golden ones, and both directions against generated protobuf code.
@Suite struct ManifestTests {
    /// The content of a stored manifest, not looked at.
    func protobuf(_ body: [UInt8]) throws -> [UInt8] {
        try Body.decode(body, limit: Body.maximumLength) { _ in true }
    }

    @Test(arguments: GoldenData.caseNames)
    func goldenManifestsDecodeToWhatTheirFixturesSay(name: String) throws {
        let golden = try #require(GoldenData.cases().first { $0.name == name })
        for version in golden.versions {
            let expected = try golden.decoded(version)
            let stored = try StoredManifest(decoding: golden.manifestBody(version))
            let manifest = try golden.manifest(version)
            #expect(manifest.headerFingerprint == Fingerprint(hex: expected.headerFprint))
            #expect(manifest.versionID.map { String(format: "%02x", $0) }.joined() == expected.versionIdHex)
            #expect(manifest.contentsFingerprint == Fingerprint(hex: expected.contentsFprint))
            #expect(manifest.length == expected.len)
            #expect(manifest.ctime == expected.ctime)
            #expect(manifest.ctimeNanoseconds == expected.ctimeNs)
            #expect(manifest.baseChunk == expected.baseChunksFprint.flatMap { Fingerprint(hex: $0) })
            #expect(manifest.generatedBy == Array(expected.generatedBy.utf8))
            #expect(2 * manifest.chunks.count == expected.chunksWords.count)
            #expect(manifest.bundled.count == expected.bundledChunks.count)
            for (chunk, fixture) in zip(manifest.bundled, expected.bundledChunks) {
                #expect(chunk.index == fixture.chunkIndex)
                #expect(chunk.offset == fixture.chunkOffset)
                #expect(chunk.fingerprint == Fingerprint(hex: fixture.chunkFprint))
                #expect(try GoldenData.sha256(chunk.data) == fixture.chunkDataSha256)
            }
            // What can be asked of a manifest before its base chunk is there.
            #expect(stored.headerFingerprint == manifest.headerFingerprint)
            #expect(stored.contentsFingerprint == manifest.contentsFingerprint)
            #expect(stored.versionID == manifest.versionID)
            #expect(stored.length == manifest.length)
            #expect(stored.ctime == manifest.ctime && stored.ctimeNanoseconds == manifest.ctimeNanoseconds)
            #expect(stored.generatedBy == manifest.generatedBy)
            #expect(stored.baseChunk == manifest.baseChunk)
        }
    }

    @Test(arguments: GoldenData.caseNames)
    func goldenManifestsEncodeToTheirOwnBytes(name: String) throws {
        let golden = try #require(GoldenData.cases().first { $0.name == name })
        for version in golden.versions {
            let body = try golden.manifestBody(version)
            let stored = try StoredManifest(decoding: body)
            let base = try golden.baseChunk(of: stored)
            let manifest = try stored.resolved(base: base)
            let encoded = try manifest.encoded(
                base: base.map { bytes throws(FormatError) in try BaseChunk.decode(bytes) })
            #expect(try encoded == protobuf(body), "\(version.step)")
            #expect(try encoded.count == golden.decoded(version).protoBytes)
        }
    }

    @Test func theHeaderFingerprintIsOfTheFirst100Bytes() throws {
        for golden in try GoldenData.cases() {
            let version = try #require(golden.versions.last)
            let database = try golden.restore(version)
            let manifest = try golden.manifest(version)
            #expect(FingerprintKey.header.fingerprint(Array(database.prefix(100))) == manifest.headerFingerprint)
        }
    }

    @Test func listFingerprintsMatchTheVectors() throws {
        for list in try GoldenVectors.load().chunkLists.lists {
            // The last one is a multiplication table, given by its first words.
            let words =
                list.nWords == list.firstWords.count
                ? try list.firstWords.map { try #require(UInt64($0, radix: 16)) }
                : (0..<UInt64(list.nWords)).map { $0 &* 0x9E37_79B9_7F4A_7C15 }
            let chunks = stride(from: 0, to: words.count, by: 2).map {
                Fingerprint(primary: words[$0], secondary: words[$0 + 1])
            }
            let manifest = Manifest(
                headerFingerprint: Chunk.zeroFingerprint, versionID: [], length: 0, generatedBy: [], chunks: chunks)
            #expect(manifest.contentsFingerprint == Fingerprint(hex: [list.hash, list.secondary]))
        }
    }

    // MARK: Against generated code

    @Test func generatedCodeReadsWhatWeWriteAndWeReadWhatItWrites() throws {
        var random = SeededGenerator(for: "generatedCodeReadsWhatWeWriteAndWeReadWhatItWrites")
        for (count, bundled) in [(0, 0), (1, 0), (1, 1), (2, 2), (3, 0), (3, 1), (40, 5), (299, 1), (300, 1), (701, 2)]
        {
            for baseCount in [nil, 0, 1, count / 2, count, count + 1, 3 * count + 7] {
                var manifest = RandomManifest.make(chunks: count, bundled: bundled, &random)
                let base = baseCount.map { RandomManifest.base(for: manifest.chunks, count: $0, &random) }
                manifest.baseChunk = base.map { FingerprintKey.chunk.fingerprint($0) }
                let words = try base.map { bytes throws(FormatError) in try BaseChunk.decode(bytes) }
                let ours = manifest.encoded(base: words)
                let expected = ProtoManifest(manifest, base: words)

                #expect(try ProtoManifest(serializedBytes: Data(ours)) == expected)
                #expect(try StoredManifest(decoding: ours).resolved(base: base) == manifest)
                #expect(try StoredManifest(decoding: expected.bytes()).resolved(base: base) == manifest)
                #expect(try StoredManifest(decoding: Body.compressManifest(ours)).resolved(base: base) == manifest)
                #expect(try ours == expected.bytes())
            }
        }
    }

    @Test func aBaseWithoutANameIsNamedByItsContent() throws {
        var random = SeededGenerator(for: "aBaseWithoutANameIsNamedByItsContent")
        let manifest = RandomManifest.make(chunks: 20, bundled: 0, &random)
        let base = RandomManifest.base(for: manifest.chunks, count: 20, &random)
        let stored = try StoredManifest(decoding: manifest.encoded(base: BaseChunk.decode(base)))
        #expect(stored.baseChunk == FingerprintKey.chunk.fingerprint(base))
        #expect(try stored.resolved(base: base).chunks == manifest.chunks)
    }

    @Test func aNameWithoutItsBaseIsNotStored() throws {
        var random = SeededGenerator(for: "aNameWithoutItsBaseIsNotStored")
        var manifest = RandomManifest.make(chunks: 20, bundled: 0, &random)
        manifest.baseChunk = RandomManifest.fingerprint(&random)
        let stored = try StoredManifest(decoding: manifest.encoded(base: nil))
        #expect(stored.baseChunk == nil)
        #expect(try stored.resolved(base: nil).chunks == manifest.chunks)
    }
}
