import Foundation
import Testing
import VerneuilFormat

/// docs/FORMAT.md says what is true: every example in it is computed again.
@Suite struct DocumentationTests {
    struct Example: CustomStringConvertible {
        var kind: String
        /// In the document.
        var line: Int
        var lines: [String]
        var description: String { "FORMAT.md, line \(line): \(kind)" }

        /// The value of the line that begins with `key`.
        func callAsFunction(_ key: String) throws -> String {
            let found = lines.first { $0.hasPrefix(key + " ") }
            return try #require(found, "\(self) lacks \(key)").dropFirst(key.count).trimmingCharacters(in: .whitespaces)
        }
    }

    static let examples: [Example] = {
        var path = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { path.deleteLastPathComponent() }
        let text = (try? String(contentsOf: path.appendingPathComponent("docs/FORMAT.md"), encoding: .utf8)) ?? ""
        var examples: [Example] = []
        var current: Example?
        for (number, line) in text.components(separatedBy: "\n").enumerated() {
            if let example = current {
                if line.hasPrefix("```") {
                    examples.append(example)
                    current = nil
                } else {
                    current?.lines.append(line)
                }
            } else if line.hasPrefix("```example ") {
                current = Example(kind: String(line.dropFirst("```example ".count)), line: number + 1, lines: [])
            }
        }
        return examples
    }()

    /// All examples of a kind; there must be as many as are known to be there.
    func examples(_ kind: String, _ count: Int) -> [Example] {
        let found = Self.examples.filter { $0.kind == kind }
        #expect(found.count == count, "\(kind)")
        return found
    }

    /// Hexadecimal bytes, with spaces between them, or `xx*n`.
    func bytes(_ text: String) throws -> [UInt8] {
        let parts = text.split(separator: "*")
        if parts.count == 2 {
            return [UInt8](
                repeating: try #require(UInt8(parts[0], radix: 16)), count: try #require(Int(parts[1])))
        }
        let digits = Array(text.filter { !$0.isWhitespace })
        try #require(digits.count % 2 == 0, "\(text)")
        return try stride(from: 0, to: digits.count, by: 2).map {
            try #require(UInt8(String(digits[$0...$0 + 1]), radix: 16), "\(text)")
        }
    }

    func number(_ text: String) throws -> UInt64 { try #require(UInt64(text, radix: 16), "\(text)") }

    func fingerprint(_ primary: String, _ secondary: String) throws -> Fingerprint {
        Fingerprint(primary: try number(primary), secondary: try number(secondary))
    }

    func list(_ bytes: [UInt8]) throws -> [Fingerprint] {
        let words = try BaseChunk.decode(bytes)
        return stride(from: 0, to: words.count, by: 2).map { Fingerprint(primary: words[$0], secondary: words[$0 + 1]) }
    }

    @Test func everyExampleIsOfAKindThatIsChecked() {
        let kinds: Set = [
            "body", "fingerprints", "parameters", "chunk-name", "manifest-name", "mangled-path", "manifest",
            "base-chunk", "version-id",
        ]
        #expect(Set(Self.examples.map(\.kind)) == kinds)
    }

    @Test func bodies() throws {
        for example in examples("body", 2) {
            let content = try bytes(example("content"))
            let decoded = try Body.decodeChunk(
                bytes(example("frame")), expecting: FingerprintKey.chunk.fingerprint(content), length: content.count)
            #expect(decoded == content, "\(example)")
        }
    }

    @Test func fingerprints() throws {
        for example in examples("fingerprints", 2) {
            for line in example.lines {
                let columns = line.components(separatedBy: "|").map { $0.trimmingCharacters(in: .whitespaces) }
                try #require(columns.count == 4, "\(example)")
                let found = try FingerprintKey(purpose: columns[0]).fingerprint(bytes(columns[1]))
                #expect(try found == fingerprint(columns[2], columns[3]), "\(line)")
            }
        }
    }

    @Test func parameters() throws {
        for example in examples("parameters", 1) {
            let purpose = Array(try example("purpose").utf8)
            let padded = purpose + [UInt8](repeating: 0, count: 32 - purpose.count)
            let words = Salsa20.keyStream(key: padded, nonce: 0, words: 38)
            let values = UMASHParameters.values(purpose: purpose)
            #expect(try words[0] == number(example("w[0]")))
            #expect(try words[1] == number(example("w[1]")))
            #expect(try values.multipliers == [number(example("f0")), number(example("f1"))])
            #expect(try values.keys[0] == number(example("k[0]")))
            #expect(try values.keys[33] == number(example("k[33]")))
        }
    }

    @Test func names() throws {
        for example in examples("chunk-name", 1) {
            let fingerprint = try fingerprint(example("primary"), example("secondary"))
            #expect(try fingerprint.chunkName == example("name"))
        }
        for example in examples("manifest-name", 2) {
            #expect(try ManifestName.make(host: example("host"), path: example("path")) == example("name"))
        }
        for example in examples("mangled-path", 1) {
            #expect(try ManifestName.mangledPath(example("path")) == example("name"))
        }
    }

    @Test func manifests() throws {
        for example in examples("manifest", 1) {
            let lines = example.lines.map { $0.prefix { $0 != "#" } }
            let stored = try bytes(lines.joined(separator: " "))
            let manifest = try StoredManifest(decoding: stored).resolved(base: nil)
            let content = Array("hello".utf8)
            #expect(manifest.headerFingerprint == FingerprintKey.header.fingerprint(content))
            #expect(manifest.versionID.count == 52)
            #expect(manifest.length == 5)
            #expect(manifest.ctime == 1_700_000_000 && manifest.ctimeNanoseconds == 123_456_789)
            #expect(manifest.generatedBy == Array("example".utf8))
            #expect(manifest.chunks == [FingerprintKey.chunk.fingerprint(content)])
            #expect(manifest.bundled.map(\.data) == [content])
            #expect(manifest.encoded(base: nil) == stored)
        }
    }

    @Test func baseChunks() throws {
        for example in examples("base-chunk", 1) {
            let base = try bytes(example("base"))
            let chunks = try list(bytes(example("list")))
            #expect(chunks == [Chunk.zeroFingerprint, FingerprintKey.chunk.fingerprint(Array("hello".utf8))])
            #expect(try FingerprintKey.chunk.fingerprint(base).chunkName == example("name"))
            let manifest = Manifest(
                headerFingerprint: chunks[0], versionID: [], length: 65_541, generatedBy: [], chunks: chunks,
                baseChunk: FingerprintKey.chunk.fingerprint(base))
            let stored = manifest.encoded(base: try BaseChunk.decode(base))
            // The list is the last field.
            #expect(try Array(stored.suffix(32)) == bytes(example("stored")))
            #expect(try StoredManifest(decoding: stored).resolved(base: base).chunks == chunks)
        }
    }

    @Test func versionIDs() throws {
        for example in examples("version-id", 1) {
            let header = try example("header").split(separator: " ").map(String.init)
            let id = try bytes(example("id"))
            #expect(try id == Array(example("tag").utf8) + BaseChunk.encode([fingerprint(header[0], header[1])]))
            // It is the one in the manifest above.
            for manifest in examples("manifest", 1) {
                let stored = try bytes(manifest.lines.map { $0.prefix { $0 != "#" } }.joined(separator: " "))
                #expect(try StoredManifest(decoding: stored).versionID == id)
            }
        }
    }
}
