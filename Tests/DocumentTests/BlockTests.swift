import Foundation
import ProductSupport
import Testing
import VerneuilCore

/// Each fenced block of each document is run, compiled, decoded or compared by a test,
/// or a comment above it says why not: `<!-- not run: REASON -->`.
@Suite struct BlockTests {
    /// The test that sees to a block; nil: none does.
    static func test(of block: Document.Block, in document: String) -> String? {
        switch (document, block.info) {
        // Generated, and compared as a whole.
        case ("docs/VERNEUILCTL.md", ""): "theReferenceIsWhatTheToolSays"
        case ("docs/VERNEUILCTL.md", "sh"): "theExamplesWork"
        case ("docs/FORMAT.md", "proto"): "theMessagesInTheFormatAreThoseThatTheTestsAreCompiledFrom"
        case ("docs/FORMAT.md", let info) where info.hasPrefix("example "): "everyExampleIsOfAKindThatIsChecked"
        case ("docs/DESIGN.md", "") where block.section == "The way of a page": "theWayOfAPageInTheDesignIsThatOfTheSources"
        case ("docs/INSTALL.md", "sh"): "theCommandsThatInstallAreRun"
        case ("docs/HOSTS.md", _) where HostTests.programs[block.info] != nil: "host"
        case ("README.md", "console"): "theTourInTheReadmePrintsWhatItSays"
        case ("docs/RECOVERY.md", "console"): "recovery"
        case (_, "console"): "commandsOf"
        case (_, "swift"): "everyBlockOfSwiftInTheDocumentationIsCompiled"
        case (_, "json"): "everyBlockOfJSONIsAConfigurationWithoutAWarning"
        default: nil
        }
    }

    @Test func everyBlockOfEveryDocumentIsRunOrSaysWhyNot() throws {
        let tests = try ReferenceTests.sources("Tests").joined(separator: "\n")
        var seenBy: [String: Int] = [:]
        for document in try Document.all() {
            let read = try Document(document)
            for block in read.blocks {
                let place = "\(document):\(block.line): ```\(block.info)"
                switch (Self.test(of: block, in: document), block.reason) {
                case (let test?, nil):
                    seenBy[test, default: 0] += 1
                    #expect(tests.contains("func \(test)("), "\(place): there is no test \(test)")
                case (nil, let reason?):
                    #expect(reason.count >= 15, "\(place): no reason: \(reason)")
                case (.some, .some):
                    // Those who run blocks of this kind leave it alone.
                    #expect(["console", "sh", "swift", "json"].contains(block.info), "\(place): is run, and says that it isn't")
                case (nil, nil):
                    Issue.record("\(place): nobody runs it: use an info string that a test takes, or say why not: <!-- not run: REASON -->")
                }
            }
            for line in read.idleReasons { Issue.record("\(document):\(line): a reason, and no block directly below") }
        }
        #expect(seenBy.count >= 12, "\(seenBy)")
    }

    @Test func blocksMarksAndStrayMarksAreTold() {
        let document = Document(
            text: "## A\n```sh\none\n```\n<!-- not run: it would take all day -->\n```\ntwo\n```\n<!-- not run: stray, as nothing follows -->\n\n```sh\nthree")
        #expect(document.blocks.map(\.info) == ["sh", "", "never closed"])
        #expect(document.blocks.map(\.reason) == [nil, "it would take all day", nil])
        #expect(document.idleReasons == [9])
        #expect(document.blocks.map { Self.test(of: $0, in: "docs/NEW.md") } == [nil, nil, nil])
    }

    /// A whole configuration, or one target.
    @Test func everyBlockOfJSONIsAConfigurationWithoutAWarning() throws {
        var count = 0
        for document in try Document.with("json") {
            for block in try Document(document).blocks where block.info == "json" && block.reason == nil {
                count += 1
                let text = block.lines.joined(separator: "\n")
                let isTarget = text.contains(/^\s*\{\s*"(s3|directory|local|read_only)"/)
                let configuration = try Configuration(
                    specification: isTarget ? "{\"replication_targets\": [\(text)]}" : text, source: "\(document):\(block.line)")
                #expect(configuration.warnings.isEmpty && !configuration.targets.isEmpty, "\(document):\(block.line): \(configuration.warnings)")
            }
        }
        #expect(count >= 1)
    }

    @Test func theMessagesInTheFormatAreThoseThatTheTestsAreCompiledFrom() throws {
        func words(_ lines: [String]) -> [Substring] {
            lines.map { $0.components(separatedBy: "//")[0] }.joined(separator: "\n").split(whereSeparator: \.isWhitespace)
        }
        let block = try #require(try Document("docs/FORMAT.md").blocks.first { $0.info == "proto" })
        let file = try String(contentsOfFile: "\(Products.package)/Tests/Support/ManifestProto/manifest.proto", encoding: .utf8)
        let messages = file.components(separatedBy: "\n").filter { !$0.hasPrefix("syntax") && !$0.hasPrefix("option") }
        #expect(words(block.lines) == words(messages))
    }

    /// Also in text and in blocks that are not run.
    @Test func scriptsThatDocumentsNameAreThereAndKnowTheirOptions() throws {
        var count = 0
        for document in try Document.all() {
            let text = try Document(document).text
            for match in text.matches(of: /(?:^|[\s`(])((?:scripts|Benchmarks)\/[a-z0-9][a-z0-9.-]*)((?: --?[a-z][a-z0-9-]*(?:[= ][A-Z$\/][^ `\n]*)?)*)/.anchorsMatchLineEndings()) {
                let name = String(match.output.1)
                guard !name.hasSuffix(".md"), !name.hasSuffix(".") else { continue }
                let path = "\(Products.package)/\(name)"
                count += 1
                guard FileManager.default.isExecutableFile(atPath: path) else {
                    Issue.record("\(document): \(name) is no program")
                    continue
                }
                let source = try String(contentsOfFile: path, encoding: .utf8)
                for option in match.output.2.matches(of: /--[a-z][a-z0-9-]*/).map({ String($0.output) }) {
                    // Those that it hands on to swift test.
                    if name == "scripts/test", option == "--filter" { continue }
                    #expect(source.contains("\(option))") || source.contains("\(option) |") || source.contains("\(option)\""), "\(document): \(name) \(option)")
                }
            }
        }
        #expect(count >= 30)
    }
}
