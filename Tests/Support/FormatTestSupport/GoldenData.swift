import Foundation
import VerneuilFormat

/// Tests/Fixtures/golden: databases as Verneuil 0.6.4 stored them.
public enum GoldenData {
    public static let directory: String = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<3 { url.deleteLastPathComponent() }
        return url.appendingPathComponent("Fixtures/golden").path
    }()

    /// A file below `directory`.
    public static func bytes(_ file: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: "\(directory)/\(file)")))
    }

    static func json<T: Decodable>(_ type: T.Type, _ file: String) throws -> T {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode(type, from: Data(try bytes(file)))
    }

    public static let caseNames = [
        "big-base-chunk", "exactly-64k", "odd-path", "one-mib-4k-pages", "pages-64k", "tiny-1-page", "zero-chunks",
    ]

    public static func cases() throws -> [GoldenCase] {
        try caseNames.map { try GoldenCase(name: $0, index: json(GoldenCase.Index.self, "\($0)/index.json")) }
    }

    /// Of the bytes, by the system's sha256sum.
    public static func sha256(_ bytes: [UInt8]) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["sha256sum"]
        let (input, output) = (Pipe(), Pipe())
        process.standardInput = input
        process.standardOutput = output
        try process.run()
        try input.fileHandleForWriting.write(contentsOf: Data(bytes))
        try input.fileHandleForWriting.close()
        let line = try output.fileHandleForReading.readToEnd() ?? Data()
        process.waitUntilExit()
        return String(decoding: line.prefix(64), as: UTF8.self)
    }
}

/// One database of the golden data, with all its versions.
public struct GoldenCase: Sendable, CustomStringConvertible {
    struct Index: Decodable, Sendable {
        var hostname: String
        var path: String
        var pageSize: Int
        var manifestKey: String
        var versions: [GoldenVersion]
        var objects: [Object]
    }
    struct Object: Decodable, Sendable {
        var key: String
        var file: String
    }

    public let name: String
    let index: Index

    public var description: String { name }
    public var hostname: String { index.hostname }
    public var path: String { index.path }
    /// The manifest's key in its bucket.
    public var manifestKey: String { index.manifestKey }
    /// In the order in which they were stored.
    public var versions: [GoldenVersion] { index.versions }
    /// Keys of everything in the chunk bucket.
    public var chunkKeys: [String] { index.objects.filter { $0.file.hasPrefix("chunks/") }.map(\.key) }

    /// The body of an object in the chunk bucket.
    public func chunkBody(_ key: String) throws -> [UInt8] {
        try GoldenData.bytes("\(name)/chunks/\(key.replacingOccurrences(of: "%2F", with: "_"))")
    }

    /// The manifest's body at a version.
    public func manifestBody(_ version: GoldenVersion) throws -> [UInt8] {
        try GoldenData.bytes("\(name)/\(version.file)")
    }

    /// What the fixtures' own decoding says that the body holds.
    public func decoded(_ version: GoldenVersion) throws -> GoldenManifest {
        try GoldenData.json(GoldenManifest.self, "\(name)/\(version.file).json")
    }

    /// The base chunk of a stored manifest, decompressed; nil where it has none.
    public func baseChunk(of stored: StoredManifest) throws -> [UInt8]? {
        guard let name = stored.baseChunk else { return nil }
        return try Body.decode(chunkBody(name.chunkName), limit: stored.maximumBaseLength) {
            FingerprintKey.chunk.fingerprint($0) == name
        }
    }

    public func manifest(_ version: GoldenVersion) throws -> Manifest {
        let stored = try StoredManifest(decoding: manifestBody(version))
        return try stored.resolved(base: baseChunk(of: stored))
    }

    /// The database at a version, put together from the stored objects alone.
    public func restore(_ version: GoldenVersion) throws -> [UInt8] {
        let manifest = try manifest(version)
        var database: [UInt8] = []
        database.reserveCapacity(Int(manifest.length))
        for (i, fingerprint) in manifest.chunks.enumerated() {
            let length = Chunk.length(ofChunk: i, databaseLength: manifest.length)
            if let bundled = manifest.bundled.first(where: { $0.index == i }) {
                database += bundled.data
            } else if fingerprint == Chunk.zeroFingerprint {
                database += repeatElement(0, count: Chunk.size)
            } else {
                database += try Body.decodeChunk(
                    chunkBody(fingerprint.chunkName), expecting: fingerprint, length: length)
            }
        }
        return database
    }
}

public struct GoldenVersion: Decodable, Sendable {
    public var step: String
    public var file: String
    /// Of the stored bytes.
    public var sha256: String
    /// Of the database.
    public var sourceSha256: String
    public var sourceLen: Int
}

/// A manifest as the fixtures describe it; numbers of 64 bits in hexadecimal.
public struct GoldenManifest: Decodable, Sendable {
    public struct Bundled: Decodable, Sendable {
        public var chunkIndex: Int
        public var chunkOffset: UInt64
        public var chunkFprint: [String]
        public var chunkDataLen: Int
        public var chunkDataSha256: String
    }
    public var protoBytes: Int
    public var headerFprint: [String]
    public var versionIdHex: String
    public var contentsFprint: [String]
    public var len: UInt64
    public var ctime: Int64
    public var ctimeNs: Int32
    public var baseChunksFprint: [String]?
    public var generatedBy: String
    /// As stored, before undoing the xor.
    public var chunksWords: [String]
    public var bundledChunks: [Bundled]
}

extension Fingerprint {
    /// From two hexadecimal numbers.
    public init?(hex: [String]) {
        guard hex.count == 2, let primary = UInt64(hex[0], radix: 16), let secondary = UInt64(hex[1], radix: 16)
        else { return nil }
        self.init(primary: primary, secondary: secondary)
    }
}
