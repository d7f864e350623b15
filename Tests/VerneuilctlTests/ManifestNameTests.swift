import Foundation
import FormatTestSupport
import ProductSupport
import Testing

@Suite struct ManifestNameTests {
    @Test(arguments: GoldenData.caseNames)
    func namesAreThoseOfTheOriginal(caseName: String) throws {
        let golden = try #require(GoldenData.cases().first { $0.name == caseName })
        let program = try Workspace().verneuilctl("manifest-name", "--hostname", golden.hostname, golden.path, config: "")
        #expect(program.status == 0 && program.text == golden.manifestKey, "\(program)")
    }

    @Test func pathsAreResolvedAsTheWriterDoes() throws {
        let here = try Workspace()
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        try FileManager.default.createSymbolicLink(atPath: here.file("link.db"), withDestinationPath: "app.db")
        try FileManager.default.createSymbolicLink(atPath: here.file("link"), withDestinationPath: ".")
        let whole = try here.verneuilctl("manifest-name", here.file("app.db")).text
        #expect(whole.hasSuffix("app.db"))
        for name in ["app.db", "./app.db", "link.db", "link/app.db", "link/../\(here.path.split(separator: "/").last!)/app.db"] {
            #expect(try here.verneuilctl("manifest-name", name).text == whole, "\(name)")
        }
        // Deleted since: its directory still says where it was.
        try FileManager.default.removeItem(atPath: here.file("app.db"))
        #expect(try here.verneuilctl("manifest-name", "link/app.db").text == whole)
        // On another machine, nothing here says what that path means there.
        let there = try here.verneuilctl("manifest-name", "--hostname", "elsewhere", here.file("link/app.db")).text
        #expect(there.hasSuffix("link%2Fapp.db"))
    }

    @Test func asJSON() throws {
        let program = try Workspace().verneuilctl("manifest-name", "--json", "--hostname", "h", "/a/b.db")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(program.output)) as? [String: String])
        #expect(object["host"] == "h" && object["path"] == "/a/b.db")
        #expect(object["manifest_name"] == (try Workspace().verneuilctl("manifest-name", "--hostname", "h", "/a/b.db").text))
    }
}
