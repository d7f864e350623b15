import CSQLite
import FormatTestSupport
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

        /// Issue 6.2. Round trips one after the other, slow enough for computing not to matter. The tables and
        /// indexes have three levels, as those of a GiB have.
        @Test(arguments: [false, true])
        func openingAndLookingUpTakesFiveRoundTrips(indexFirst: Bool) throws {
            let delay = 0.2
            let source = try Source(rows: 200_000, rowBytes: 300, indexFirst: indexFirst)
            let database = try source.scratch.bytes("db")
            let chunks = Chunk.count(forLength: UInt64(database.count))
            let local = try SQLiteConnection(source.path)
            for table in ["t", "by_k"] { #expect(try levels(of: table, in: local, database) == 3) }
            source.store.setDelay(delay)
            let row = try local.rows("SELECT id, k, hex(body) FROM t WHERE id = 123456")[0]
            func trips(_ sql: String, _ expected: String) throws -> Double {
                configure([source.store])
                _ = source.store.takeLog()
                let start = Date()
                let replica = try open(source.uri)
                #expect(try replica.value(sql) == expected)
                return Date().timeIntervalSince(start) / delay
            }
            let byRow = try trips("SELECT hex(body) FROM t WHERE id = \(row[0])", row[2])
            // What was guessed is still on its way.
            while source.store.takeMostInFlight() > 0 { usleep(300_000) }
            let byIndex = try trips("SELECT hex(body) FROM t WHERE k = '\(row[1])'", row[2])
            let requests = source.store.takeLog().count
            print("round trips of a fresh replica of \(chunks) chunks: by row id \(byRow), index and row \(byIndex), \(requests) requests")
            // Manifest and base chunk; with an index made first: its interior page, its leaf, and of the table
            // both at once; with one made last: its root, the other two at once, and of the table likewise.
            #expect(byRow < 4 && byIndex < 6)
            // What was guessed is bounded: twice the 34 first chunks.
            #expect(requests < 2 + 35 + 68 + 40)
        }

        /// From its root to a leaf.
        private func levels(of name: String, in db: SQLiteConnection, _ bytes: [UInt8]) throws -> Int {
            var page = try #require(Int(try db.value("SELECT rootpage FROM sqlite_master WHERE name = '\(name)'")))
            var levels = 1
            while [2, 5].contains(bytes[(page - 1) * 4096]) {
                page = bytes[((page - 1) * 4096 + 8)..<((page - 1) * 4096 + 12)].reduce(0) { $0 << 8 | Int($1) }
                levels += 1
            }
            return levels
        }

        /// Every page that a guess is made from is damaged in many ways, by a writer: the fingerprints are right.
        @Test func damagedPagesMisleadNoGuess() throws {
            let source = try Source(rows: 20_000, rowBytes: 100, pageSize: 512)
            let good = try source.scratch.bytes("db")
            var random = SeededGenerator(for: "damagedPagesMisleadNoGuess")
            var (answers, errors) = (0, 0)
            for round in 0..<30 {
                var bytes = good
                // The schema, roots and interior pages; mostly their headers and pointers.
                for _ in 0..<40 {
                    let page = round % 2 == 0 ? Int.random(in: 0..<8, using: &random) : Int.random(in: 0..<bytes.count / 512, using: &random)
                    let within = Int.random(in: 0..<(Bool.random(using: &random) ? 16 : 512), using: &random)
                    if page > 0 || within >= 100 { bytes[page * 512 + within] = UInt8.random(in: 0...255, using: &random) }
                }
                try source.writer.store(bytes)
                configure([source.store], policy: .partial(min: 200, max: 300))
                for sql in ["SELECT body FROM t WHERE id = 15000", "SELECT body FROM t WHERE k = 'key 7919'", "SELECT sum(id) FROM t", "PRAGMA integrity_check"] {
                    do {
                        let replica = try open(source.uri)
                        _ = try replica.rows(sql)
                        try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                        answers += 1
                    } catch let error as SQLiteError {
                        #expect([SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_ERROR].contains(error.primary), "\(error)")
                        errors += 1
                    }
                }
            }
            print("damaged pages: \(answers) answers, \(errors) errors")
            #expect(answers > 10 && errors > 10)
        }

        @Test func whatIsGuessedIsBoundedForAllLookupsTogether() throws {
            let source = try Source(rows: 200_000, rowBytes: 300)
            configure([source.store])
            let replica = try open(source.uri)
            var random = SeededGenerator(for: "whatIsGuessedIsBounded")
            _ = source.store.takeLog()
            for _ in 0..<40 {
                #expect(try replica.rows("SELECT id FROM t WHERE id = \(Int.random(in: 1...200_000, using: &random))").count == 1)
            }
            usleep(100_000)
            // Two a lookup, those that are loaded first, twice as many guessed, and a few for accidental neighbours.
            let requests = source.store.takeLog().count
            print("\(requests) requests for 40 lookups")
            #expect(requests < 80 + 35 + 68 + 80, "\(requests) requests for 40 lookups")
        }

        /// Issue 6.2, against what the same store brings with 64 GETs at a time.
        @Test func aScanKeepsTheRequestsInFlightBusy() throws {
            let source = try Source(rows: 200_000, rowBytes: 300)
            source.store.setDelay(0.03)
            let keys = source.store.chunkKeys
            var shares: [Double] = []
            // The best of a few: whatever else the machine does slows the one or the other.
            while (shares.max() ?? 0) < 0.75, shares.count < 5 {
                let plain = time { source.store.getAll(keys, parallelism: 64) }
                configure([source.store])
                _ = source.store.takeMostInFlight()
                let replica = try open(source.uri)
                var rows = ""
                let took = try time { rows = try replica.value("SELECT count(length(body)) FROM t NOT INDEXED") }
                #expect(rows == "200000")
                let most = source.store.takeMostInFlight()
                #expect(most >= 60 && most <= 64 + 16, "\(most) requests in flight at most")
                shares.append(plain / took)
            }
            print("scan of \(keys.count) chunks at 30 ms, of the speed of 64 parallel GETs: \(shares)")
            #expect(shares.max()! >= 0.6)
        }

        private func time(_ body: () throws -> Void) rethrows -> Double {
            let start = Date()
            try body()
            return Date().timeIntervalSince(start)
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
