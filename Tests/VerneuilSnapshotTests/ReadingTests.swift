import CSQLite
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore

extension SnapshotVFSTests {
    /// Chunks on demand: their cost, and what happens where one can't be had.
    @Suite struct Reading {
        @Test func aDamagedOrMissingChunkIsAReadErrorAndNeverWrongData() throws {
            let source = try Source(rows: 2000)
            let good = try SQLiteConnection(source.path).rows(Databases.checksum)
            let keys = source.store.chunkKeys
            let victim = try #require(keys.dropFirst(keys.count / 2).first)
            let body = try #require(source.store.body(.chunks, victim))
            let other = try #require(keys.first.flatMap { source.store.body(.chunks, $0) })
            let content = try Body.decode(body, limit: Chunk.size) { _ in true }
            let zstd = { (bytes: [UInt8]) in bytes.withUnsafeBytes { Body.compress($0) } }
            let faults: [(String, MemoryStore.Fault)] = [
                ("missing", .missing),
                ("unavailable", .unavailable),
                ("empty", .body([])),
                ("another chunk", .body(other)),
                ("cut", .body(Array(body.dropLast(100)))),
                ("one bit of the content", .body(zstd(content.enumerated().map { $0 == 40_000 ? $1 ^ 1 : $1 }))),
                ("too short a content", .body(zstd(Array(content.dropLast())))),
                ("too long a content", .body(zstd(content + [0]))),
                ("zeros", .body(zstd([UInt8](repeating: 0, count: Chunk.size)))),
                ("not compressed, one bit", .body(content.enumerated().map { $0 == 0 ? $1 ^ 128 : $1 })),
                ("a body that unpacks to 300 MB", .body(zstd([UInt8](repeating: 7, count: 300_000_000)))),
            ]
            for (name, fault) in faults {
                configure([source.store])
                source.store.setFault { $0.key == victim ? fault : nil }
                let replica = try open(source.uri)
                let failure = error { try replica.rows(Databases.checksum) }
                #expect(failure?.code == SQLITE_IOERR | 1 << 8, "\(name): \(failure?.description ?? "no error")")
                #expect(failure?.primary != SQLITE_CORRUPT)
                // What is there can be read, and so can the rest once the fault is gone.
                #expect(try replica.value("SELECT version FROM state") == "1")
                source.store.setFault(nil)
                #expect(try replica.rows(Databases.checksum) == good)
            }
        }

        @Test func anEagerReplicaOpensWholeOrNotAtAll() throws {
            let source = try Source(rows: 2000)
            let keys = source.store.chunkKeys
            let victim = try #require(keys.last)
            configure([source.store], policy: .eager)
            source.store.setFault { $0.key == victim ? .missing : nil }
            #expect(error { _ = try open(source.uri) }?.primary == SQLITE_CANTOPEN)
            source.store.setFault(nil)
            let replica = try open(source.uri)
            source.store.setFault { _ in .unavailable }
            #expect(try replica.rows(Databases.checksum) == SQLiteConnection(source.path).rows(Databases.checksum))
        }

        @Test func aBadObjectInOneStoreIsReadFromTheNext() throws {
            let source = try Source(rows: 2000)
            let bad = MemoryStore("bad")
            let writer = StoreWriter(path: "/srv/app.db", stores: [bad])
            try writer.store(source.scratch.bytes("db"))
            let counter = Counter()
            bad.setFault { request in
                counter.add()
                let faults: [MemoryStore.Fault] = [.missing, .unavailable, .body([1, 2, 3]), .body([])]
                return faults[counter.value % 4]
            }
            configure([bad, source.store])
            let replica = try open(source.uri)
            #expect(try replica.rows(Databases.checksum) == SQLiteConnection(source.path).rows(Databases.checksum))
            #expect(counter.value > 10)
        }

        @Test func aChunkIsFetchedOnceHoweverManyReadersWait() throws {
            let source = try Source(rows: 5000)
            configure([source.store], policy: .partial(min: 1, max: 1))
            source.store.setDelay(0.01)
            let finished = Counter()
            let (uri, expected) = (source.uri, try SQLiteConnection(source.path).rows(Databases.checksum))
            let good = Counter()
            let keep = try open(uri)
            for _ in 0..<16 {
                Thread.detachNewThread {
                    defer { finished.add() }
                    if let rows = try? SnapshotVFSTests.open(uri).rows(Databases.checksum), rows == expected { good.add() }
                }
            }
            while finished.value < 16 { usleep(5000) }
            #expect(good.value == 16)
            let log = source.store.takeLog()
            #expect(Set(log).count == log.count, "\(log.count - Set(log).count) objects were fetched twice")
            _ = keep
        }

        @Test func readersOfLoadedChunksDoNotWaitForThoseThatAreFetched() throws {
            let source = try Source(rows: 5000)
            configure([source.store], policy: .partial(min: 1, max: 1))
            let replica = try open(source.uri)
            #expect(try replica.value("SELECT version FROM state") == "1")
            let slow = try open(source.uri)
            source.store.setFault { _ in .hang }
            let done = Flag()
            Thread.detachNewThread {
                _ = try? slow.rows(Databases.checksum)
                done.set()
            }
            while source.store.takeMostInFlight() == 0 { usleep(1000) }
            for _ in 0..<100 { #expect(try replica.value("SELECT version FROM state") == "1") }
            #expect(!done.isSet)
            source.store.setFault(nil)
            while !done.isSet {
                source.store.release()
                usleep(1000)
            }
        }

        /// Round trips one after the other, slow enough for computing not to matter.
        @Test func openingAndLookingUpTakesFewRoundTrips() throws {
            let delay = 0.25
            let source = try Source(rows: 200_000, rowBytes: 300)
            source.store.setDelay(delay)
            let key = try SQLiteConnection(source.path).rows("SELECT id, k FROM t WHERE id = 123456")[0]
            let chunks = Chunk.count(forLength: UInt64(try source.scratch.bytes("db").count))
            func trips(_ sql: String) throws -> Double {
                configure([source.store])
                let start = Date()
                let replica = try open(source.uri)
                #expect(try replica.rows(sql).count == 1)
                return Date().timeIntervalSince(start) / delay
            }
            let byRow = try trips("SELECT body FROM t WHERE id = \(key[0])")
            let covered = try trips("SELECT id FROM t WHERE k = '\(key[1])'")
            let byIndex = try trips("SELECT body FROM t WHERE k = '\(key[1])'")
            print("round trips of a fresh replica of \(chunks) chunks: by row id \(byRow), index alone \(covered), index and row \(byIndex)")
            // Manifest, base chunk; then one for each level of a tree that isn't in the first chunks: the table's
            // root is. Where a row is looked up by an index, that is two trees.
            #expect(byRow < 5 && covered < 6 && byIndex < 8)
        }

        @Test func aScanKeepsTheRequestsInFlightBusy() throws {
            let delay = 0.03
            let source = try Source(rows: 200_000, rowBytes: 300)
            configure([source.store])
            let chunks = Chunk.count(forLength: UInt64(try source.scratch.bytes("db").count))
            let replica = try open(source.uri)
            source.store.setDelay(delay)
            _ = source.store.takeMostInFlight()
            let start = Date()
            #expect(try replica.value("SELECT count(length(body)) FROM t NOT INDEXED") == "200000")
            let took = Date().timeIntervalSince(start)
            let ideal = Double(chunks) / 64 * delay
            print("scan of \(chunks) chunks: \(took) s, 64 parallel GETs take \(ideal) s: \(100 * ideal / took) %")
            let most = source.store.takeMostInFlight()
            #expect(most >= 56 && most <= 64 + 16, "\(most) requests in flight at most")
        }

        @Test func aForkedChildHasItsOwnReplicasAndHarmsNobodys() throws {
            let source = try Source(rows: 2000)
            let directory = source.scratch.file("store")
            let store = DirectoryStore(path: directory, sync: false)
            try store.prepare()
            try StoreWriter(path: "/srv/app.db", stores: [store]).store(source.scratch.bytes("db"))
            let output = try Helper.run("fork", directory, source.uri, "SELECT sum(length(body)) FROM t")
            let rounds = output.split(separator: "\n").filter { $0.hasPrefix("round") }
            #expect(rounds.count == 20)
            for round in rounds { #expect(round.hasSuffix("own 0, inherited 0, closing 0, parent true"), "\(round)") }
        }

        @Test func aFullDiskIsAReadErrorThatNamesIt() throws {
            let source = try Source(rows: 5000)
            let directory = source.scratch.file("store")
            let store = DirectoryStore(path: directory, sync: false)
            try store.prepare()
            try StoreWriter(path: "/srv/app.db", stores: [store]).store(source.scratch.bytes("db"))
            let output = try Helper.run("query-limited", directory, source.uri, Databases.checksum, "1000000")
            #expect(output.contains("error ") && output.contains("File too large"), "\(output)")
        }

        @Test func theLocalCacheServesOtherProcessesWithoutTheStore() throws {
            let source = try Source(rows: 2000)
            let cache = { CacheDirectory(local: source.scratch.file("cache"), shards: 10, capacity: 1000) }
            configure([source.store], policy: .eager, caches: [cache()])
            let expected = try SQLiteConnection(source.path).rows(Databases.checksum)
            #expect(try open(source.uri).rows(Databases.checksum) == expected)
            // Readers don't wait until a chunk has reached the cache.
            for key in source.store.chunkKeys {
                let fingerprint = try #require(Fingerprint(chunkName: key))
                while cache().read(fingerprint, length: nil, limit: 1 << 20) == nil { usleep(1000) }
            }
            _ = source.store.takeLog()
            // A new configuration is what another process would have.
            configure([source.store], caches: [cache()])
            #expect(try open(source.uri).rows(Databases.checksum) == expected)
            #expect(source.store.takeLog() == [source.writer.manifestName])
            // And the same through a cache that is only read.
            configure([source.store], caches: [CacheDirectory(readOnly: source.scratch.file("cache"), shards: 10)])
            #expect(try open(source.uri).rows(Databases.checksum) == expected)
            #expect(source.store.takeLog() == [source.writer.manifestName])
        }
    }
}
