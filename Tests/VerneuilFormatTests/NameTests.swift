import FormatTestSupport
import Testing
import VerneuilFormat

/// Manifest names and mangled paths of FORMAT 5.
@Suite struct NameTests {
    @Test func manifestNamesMatchTheVectors() throws {
        let vectors = try GoldenVectors.load().manifestNames
        #expect(vectors.count == 33)
        for vector in vectors {
            #expect(ManifestName.make(host: vector.hostname, path: vector.path) == vector.manifestName)
        }
    }

    @Test func manifestNamesMatchTheGoldenDatabases() throws {
        for golden in try GoldenData.cases() {
            #expect(ManifestName.make(host: golden.hostname, path: golden.path) == golden.manifestKey)
        }
    }

    @Test func mangledPathsMatchTheVectors() throws {
        let vectors = try GoldenVectors.load().mangledPaths
        #expect(vectors.count == 48)
        for vector in vectors { #expect(ManifestName.mangledPath(vector.path) == vector.mangled) }
    }

    @Test func hostNameHashesMatchTheVectors() throws {
        for vector in try GoldenVectors.load().hostnameHashes {
            let name = ManifestName.make(host: vector.hostname, path: "/x")
            #expect(name.hasPrefix("\(vector.hash)-verneuil%3A"))
        }
    }

    @Test func foldedNamesOfDifferentPathsDiffer() {
        let long = "/" + String(repeating: "d", count: 300)
        let names = (0..<100).map { ManifestName.make(host: "h", path: "\(long)/\($0)/\(long)") }
        #expect(Set(names).count == 100)
        #expect(names.allSatisfy { $0.utf8.count == 240 })
    }
}
