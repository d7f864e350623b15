import CVerneuil
import FormatTestSupport
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilStore
import VerneuilSystem
import VerneuilVerify

@Suite struct VerifierTests {
    private func bytes(_ chunks: Int, seed: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        var all: [UInt8] = []
        for _ in 0..<chunks { all += [UInt8](repeating: UInt8.random(in: 1...255, using: &random), count: 65_000) + (0..<536).map { _ in UInt8.random(in: 0...255, using: &random) } }
        return all
    }

    /// A bucket of 20,000 chunks, of which a database needs a few: no more lists than chunks.
    @Test func listsPassOverWhatIsNotWanted() throws {
        let store = MemoryStore()
        let writer = StoreWriter(path: "/a.db", stores: [store])
        try writer.store(bytes(4, seed: 1))
        var random = SeededGenerator(seed: 2)
        for _ in 0..<20_000 {
            let other = Fingerprint(primary: random.next(), secondary: random.next())
            try store.put(PutRequest(.chunks, other.chunkName, [1]))
        }
        _ = store.takeListCount()
        let verification = Verifier(store).verify(name: writer.manifestName)
        #expect(verification.outcome == .good && verification.objects == 3, "\(verification)")
        #expect(store.takeListCount() <= 3)
    }

    /// A bucket that is all one database's: a list for each page.
    @Test func listsPageThroughABigDatabase() throws {
        let store = MemoryStore()
        let writer = StoreWriter(path: "/a.db", stores: [store])
        let manifest = try writer.store(bytes(400, seed: 3))
        store.setPageSize(100)
        _ = store.takeListCount()
        _ = store.takeLog()
        let verifier = Verifier(store)
        let good = verifier.verify(name: writer.manifestName)
        #expect(good.outcome == .good && good.objects == 399, "\(good)")
        #expect(store.takeListCount() <= 5)
        #expect(store.takeLog().count == 2)  // the manifest and its base chunk

        for i in [1, 200, 399] { store.remove(.chunks, manifest.chunks[i].chunkName) }
        let bad = verifier.verify(name: writer.manifestName)
        #expect(bad.outcome == .bad)
        #expect(
            Set(bad.findings.map(\.object)) == Set([1, 200, 399].map { "chunk \(manifest.chunks[$0].chunkName)" }), "\(bad)")
        #expect(bad.findings.allSatisfy { $0.found == "there is no such object" }, "\(bad)")
    }

    @Test func whatIsReplicatedMeanwhileIsNotCalledBad() throws {
        let store = MemoryStore()
        let writer = StoreWriter(path: "/a.db", stores: [store])
        let old = try writer.store(bytes(3, seed: 4))
        let oldBody = try #require(store.body(.manifests, writer.manifestName))
        try writer.store(bytes(3, seed: 5))
        store.remove(.chunks, old.chunks[1].chunkName)
        // The first GET is answered with the manifest as it was a moment ago.
        let once = Once()
        store.setFault { $0.space == .manifests && once.isFirst() ? .body(oldBody) : nil }
        #expect(Verifier(store).verify(name: writer.manifestName).outcome == .good)
        // And where it stays, it is bad.
        store.setFault { $0.space == .manifests ? .body(oldBody) : nil }
        #expect(Verifier(store).verify(name: writer.manifestName).outcome == .bad)
    }

    @Test func whatCantBeAskedCantBeTold() throws {
        let store = MemoryStore()
        let writer = StoreWriter(path: "/a.db", stores: [store])
        let manifest = try writer.store(bytes(3, seed: 6))
        let verifier = Verifier(store)
        store.setListFailure(StoreError(.denied, store: "memory", operation: "LIST", reason: "needs s3:ListBucket"))
        let listed = verifier.verify(name: writer.manifestName)
        #expect(listed.outcome == .unknown && listed.findings.first?.found.contains("s3:ListBucket") == true, "\(listed)")
        var deep = VerificationOptions()
        deep.deep = true
        #expect(verifier.verify(name: writer.manifestName, options: deep).outcome == .good)
        store.setListFailure(nil)

        store.setFault { $0.key == manifest.chunks[1].chunkName ? .unavailable : nil }
        #expect(verifier.verify(name: writer.manifestName, options: deep).outcome == .unknown)
        store.setFault { $0.space == .manifests ? .unavailable : nil }
        #expect(verifier.verify(name: writer.manifestName).outcome == .unknown)
        // Something that is bad is bad, whatever else can't be told.
        store.setFault { $0.key == manifest.chunks[1].chunkName ? .unavailable : nil }
        store.remove(.chunks, manifest.chunks[2].chunkName)
        #expect(verifier.verify(name: writer.manifestName, options: deep).outcome == .bad)
    }

    @Test func allDatabasesOfABucket() throws {
        let store = MemoryStore()
        let writers = (0..<20).map { StoreWriter(path: "/\($0).db", stores: [store]) }
        var manifests: [Manifest] = []
        for (i, writer) in writers.enumerated() { manifests.append(try writer.store(bytes(3, seed: UInt64(i % 10)))) }
        try store.put(PutRequest(.manifests, "README", [1]))
        store.setPageSize(7)
        for isDeep in [false, true] {
            var options = VerificationOptions()
            options.deep = isDeep
            let verifier = Verifier(store)
            var results: [Verification] = []
            #expect(verifier.verifyAll(options: options) { results.append($0) } == nil)
            #expect(results.map(\.name) == writers.map(\.manifestName).sorted())
            #expect(results.allSatisfy { $0.outcome == .good && $0.length == 3 * 65_536 && $0.objects == 2 })

            // Database 4 and 14 have the same chunks.
            let key = manifests[4].chunks[2].chunkName
            let body = try #require(store.body(.chunks, key))
            store.remove(.chunks, key)
            results = []
            #expect(verifier.verifyAll(options: options) { results.append($0) } == nil)
            let bad = results.filter { $0.outcome == .bad }
            #expect(bad.map(\.name) == [writers[4].manifestName, writers[14].manifestName].sorted())
            #expect(bad.allSatisfy { $0.findings.map(\.object) == ["chunk \(key)"] })
            #expect(results.count { $0.outcome == .good } == 18)
            try store.put(PutRequest(.chunks, key, body))
        }
        store.setListFailure(StoreError(.unavailable, store: "memory", operation: "LIST", reason: "told to fail"))
        #expect(Verifier(store).verifyAll { _ in }?.outcome == .unknown)
    }

    @Test func aLiveDatabaseIsCompared() throws {
        let scratch = try Scratch()
        let path = scratch.file("a.db")
        let connection = try SQLiteConnection(path)
        try connection.rows("CREATE TABLE t(x)")
        try connection.rows("WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) INSERT INTO t SELECT randomblob(1000) FROM n")
        let store = MemoryStore()
        let writer = StoreWriter(path: path, stores: [store])
        try writer.store(try #require(try Files.read(path)))
        var options = VerificationOptions()
        options.against = path
        let verifier = Verifier(store)
        #expect(verifier.verify(name: writer.manifestName, options: options).outcome == .good)

        try connection.rows("UPDATE t SET x = 1 WHERE rowid = 200")
        let lagging = verifier.verify(name: writer.manifestName, options: options)
        #expect(lagging.outcome == .bad && lagging.findings.first?.object == path, "\(lagging)")
        #expect(lagging.findings.first?.found.contains("flush") == true, "\(lagging)")

        // In a transaction that has spilled, the file is nobody's snapshot.
        try connection.rows("PRAGMA cache_size=5")
        try connection.rows("BEGIN")
        try connection.rows("UPDATE t SET x = randomblob(1000)")
        let open = verifier.verify(name: writer.manifestName, options: options)
        #expect(open.outcome == .unknown && open.findings.first?.found.contains("-journal") == true, "\(open)")
        try connection.rows("ROLLBACK")

        options.against = scratch.file("nothing.db")
        #expect(verifier.verify(name: writer.manifestName, options: options).outcome == .unknown)
    }
}

/// True the first time.
private final class Once: @unchecked Sendable {
    private let lock = Lock()
    private var isUsed = false
    func isFirst() -> Bool {
        lock.withLock {
            defer { isUsed = true }
            return !isUsed
        }
    }
}
