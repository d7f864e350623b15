import FormatTestSupport
import Testing
import VerneuilFormat

/// Every version of every golden database comes back from its stored objects.
@Suite struct GoldenRestoreTests {
    @Test(arguments: GoldenData.caseNames)
    func everyVersionRestoresToItsSHA256(name: String) throws {
        let golden = try #require(GoldenData.cases().first { $0.name == name })
        #expect(!golden.versions.isEmpty)
        for version in golden.versions {
            #expect(try GoldenData.sha256(golden.manifestBody(version)) == version.sha256)
            let database = try golden.restore(version)
            #expect(database.count == version.sourceLen, "\(version.step)")
            #expect(try GoldenData.sha256(database) == version.sourceSha256, "\(version.step)")
        }
    }

    @Test func everyChunkObjectIsNamedByItsContent() throws {
        var objects = 0
        for golden in try GoldenData.cases() {
            for key in golden.chunkKeys {
                let name = try #require(Fingerprint(chunkName: key))
                _ = try Body.decode(golden.chunkBody(key), limit: Chunk.size) { Chunk.fingerprint($0) == name }
                objects += 1
            }
        }
        #expect(objects > 1600)
    }
}
