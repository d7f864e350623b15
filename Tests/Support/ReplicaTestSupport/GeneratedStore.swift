import Foundation
import VerneuilFormat
import VerneuilStore
import VerneuilSystem

/// A database of any size that takes no memory: each chunk is made when it is asked for.
public final class GeneratedStore: ObjectStore {
    public static let manifestName = "generated"
    public let name = "generated"
    public let manifest: Manifest
    private let manifestBody: [UInt8]
    private let base: (name: String, body: [UInt8])
    private let numbers: [String: Int]

    /// 8,192 words that are all the chunk's number, counted from 1: no chunk is all zeros.
    public static func chunk(_ i: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Chunk.size) { buffer, initialized in
            UnsafeMutableRawBufferPointer(buffer).initializeMemory(as: UInt64.self, repeating: UInt64(i + 1))
            initialized = Chunk.size
        }
    }

    public init(chunks: Int) {
        var list: [Fingerprint] = []
        var numbers: [String: Int] = [:]
        for i in 0..<chunks {
            let fingerprint = FingerprintKey.chunk.fingerprint(Self.chunk(i))
            list.append(fingerprint)
            numbers[fingerprint.chunkName] = i
        }
        self.numbers = numbers
        let base = BaseChunk.encode(list)
        self.base = (FingerprintKey.chunk.fingerprint(base).chunkName, base)
        manifest = Manifest(
            headerFingerprint: FingerprintKey.header.fingerprint(Array(Self.chunk(0).prefix(100))), versionID: [],
            length: UInt64(chunks) * UInt64(Chunk.size), generatedBy: [], chunks: list)
        manifestBody = Body.compressManifest(manifest.encoded(base: list.flatMap { [$0.primary, $0.secondary] }))
    }

    public func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        if request.key == Self.manifestName { return completion(.success(.found(body: manifestBody, tag: "1"))) }
        if request.key == base.name { return completion(.success(.found(body: base.body, tag: "1"))) }
        guard let i = numbers[request.key] else { return completion(.success(.missing)) }
        completion(.success(.found(body: Self.chunk(i), tag: "1")))
    }
    public func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        completion(.failure(StoreError(.denied, store: name, operation: "PUT", reason: "can't be written")))
    }
    public func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) { completion(.success(true)) }
    public func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) { completion(.success(ObjectPage(entries: [], isTruncated: false))) }
    public func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) { completion(.success(())) }
}

/// This process's memory, as the kernel counts it.
public enum Memory {
    /// Bytes of memory, at the most, that `body` takes beyond what the process had before.
    public static func peak(_ body: () throws -> Void) throws -> Int {
        // Resets the high-water mark.
        try "5".write(toFile: "/proc/self/clear_refs", atomically: false, encoding: .utf8)
        let before = try field("VmHWM:")
        try body()
        return try field("VmHWM:") - before
    }

    /// Bytes that are not backed by any file.
    public static func anonymous() throws -> Int { try field("RssAnon:") }

    private static func field(_ name: String) throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        for line in status.split(separator: "\n") where line.hasPrefix(name) {
            return (Int(line.split(separator: " ").dropFirst().first ?? "") ?? 0) << 10
        }
        return 0
    }
}
