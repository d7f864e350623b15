import CSQLite
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore

extension SnapshotVFSTests {
    @Suite struct Opening {
        @Test(arguments: [LoadingPolicy.default, .eager, .partial(min: 1, max: 1)], [512, 4096, 65536])
        func aReplicaAnswersAsItsSourceDoes(policy: LoadingPolicy, pageSize: Int) throws {
            let source = try Source(rows: 3000, pageSize: pageSize)
            let original = try SQLiteConnection(source.path)
            configure([source.store], policy: policy)
            let replica = try open(source.uri)
            for sql in [Databases.checksum, "SELECT id, k FROM t ORDER BY k LIMIT 500", "PRAGMA integrity_check"] {
                #expect(try replica.rows(sql) == original.rows(sql))
            }
        }

        @Test func everyGoldenVersionOpensAndIsIntact() throws {
            for golden in try GoldenData.cases() {
                let scratch = try Scratch()
                try FileManager.default.createDirectory(atPath: scratch.file("store"), withIntermediateDirectories: false)
                let store = DirectoryStore(path: scratch.file("store"), sync: false)
                try store.prepare()
                for key in golden.chunkKeys { try store.put(PutRequest(.chunks, key, golden.chunkBody(key))) }
                for version in golden.versions {
                    try store.put(PutRequest(.manifests, golden.manifestKey, golden.manifestBody(version)))
                    let database = try golden.restore(version)
                    try scratch.write(database, to: "db")
                    let original = try SQLiteConnection(scratch.file("db"))
                    configure([store])
                    let replica = try open("verneuil://\(golden.hostname)\(golden.path)")
                    #expect(try replica.value("PRAGMA integrity_check") == "ok", "\(golden) \(version.step)")
                    let schema = "SELECT name, sql, rootpage FROM sqlite_master ORDER BY 1"
                    #expect(try replica.rows(schema) == original.rows(schema))
                    for table in try original.rows("SELECT name FROM sqlite_master WHERE type = 'table'") {
                        let all = "SELECT * FROM \"\(table[0])\" ORDER BY rowid LIMIT 1000"
                        #expect(try replica.rows(all) == original.rows(all))
                    }
                }
            }
        }

        @Test func namesAndURIsLeadToTheSameReplica() throws {
            let source = try Source("/srv/a dir/x%y.db")
            configure([source.store], hostName: "db.example.com")
            let names: [(name: String, vfs: String?)] = [
                ("verneuil://db.example.com/srv/a dir/x%y.db", "verneuil_snapshot"),
                ("verneuil:///srv/a dir/x%y.db", "verneuil_snapshot"),
                ("file:verneuil://db.example.com/srv/a%20dir/x%25y.db?vfs=verneuil_snapshot", nil),
                ("file:verneuil:///srv/a%20dir/x%25y.db?vfs=verneuil_snapshot", nil),
                ("file:verneuil:///srv/a dir/x%25y.db?vfs=verneuil_snapshot&mode=ro&cache=private", nil),
            ]
            for (name, vfs) in names {
                let replica = try SQLiteConnection(name, vfs: vfs, flags: SQLITE_OPEN_READONLY)
                #expect(try replica.value("SELECT count(*) FROM t") == "1000", "\(name)")
            }
        }

        @Test func aManifestFileOpensByAnyPathAndURI() throws {
            let source = try Source()
            configure([source.store])
            let manifest = try #require(source.store.body(.manifests, source.writer.manifestName))
            try source.scratch.write(manifest, to: "a manifest")
            try FileManager.default.createSymbolicLink(
                atPath: source.scratch.file("link"), withDestinationPath: source.scratch.file("a manifest"))
            let path = source.scratch.file("a manifest")
            let uri = "file:\(path.replacingOccurrences(of: " ", with: "%20"))?vfs=verneuil_snapshot"
            for name in [path, source.scratch.file("./../\(path.split(separator: "/")[2])/a manifest"), source.scratch.file("link")] {
                #expect(try open(name).value("SELECT count(*) FROM t") == "1000")
            }
            #expect(try SQLiteConnection(uri).value("SELECT count(*) FROM t") == "1000")
        }

        @Test func aReplicaCanBeAttachedBesideADatabaseThatIsWritten() throws {
            let source = try Source()
            configure([source.store])
            let db = try SQLiteConnection(source.scratch.file("own.db"))
            try db.rows("ATTACH 'file:\(source.uri)?vfs=verneuil_snapshot' AS r; CREATE TABLE c AS SELECT id, k FROM r.t")
            #expect(try db.value("SELECT count(*) FROM c JOIN r.t USING (id, k)") == "1000")
        }

        @Test func theLocalTapIsUsedBeforeAnyStore() throws {
            let source = try Source()
            let manifest = try #require(source.store.body(.manifests, source.writer.manifestName))
            source.store.remove(.manifests, source.writer.manifestName)
            let name = source.writer.manifestName
            configure([source.store], tap: { $0 == name ? manifest : nil })
            #expect(try open(source.uri).value("SELECT count(*) FROM t") == "1000")
            #expect(!source.store.takeLog().contains(name))
        }

        @Test func anEmptyDatabaseOpens() throws {
            let store = MemoryStore()
            let writer = StoreWriter(path: "/srv/empty.db", stores: [store])
            try writer.store([])
            configure([store])
            #expect(try open(writer.uri).value("SELECT count(*) FROM sqlite_master") == "0")
        }

        @Test func temporaryTablesAndBigSortsWork() throws {
            let source = try Source(rows: 5000)
            configure([source.store])
            let replica = try open(source.uri)
            try replica.rows("PRAGMA temp_store=FILE; PRAGMA cache_size=10; CREATE TEMP TABLE copy AS SELECT * FROM t")
            #expect(try replica.rows("SELECT count(*), count(DISTINCT body) FROM copy") == [["5000", "5000"]])
            #expect(try replica.rows("SELECT k FROM t ORDER BY body DESC LIMIT 1").count == 1)
        }

        @Test func whatCannotBeOpenedFailsWithCantOpenAndTheLogSaysWhy() throws {
            let source = try Source()
            let store = DirectoryStore(path: source.scratch.file("store"), sync: false)
            try store.prepare()
            let name = source.writer.manifestName
            let manifest = try #require(source.store.body(.manifests, name))
            try store.put(PutRequest(.manifests, name, manifest))
            try source.scratch.write(Array("this is no manifest, but a text".utf8), to: "text")
            try source.scratch.write(Array(manifest.prefix(manifest.count / 2)), to: "half")
            let cases: [(name: String, reason: String)] = [
                ("verneuil://nowhere.example.com/srv/app.db", "there is no such object"),
                ("verneuil://db.example.com", "found no path"),
                (source.scratch.file("none"), "there is no such manifest file"),
                (source.scratch.file("text"), "manifest"),
                (source.scratch.file("half"), "manifest"),
                (source.path, "manifest"),
            ]
            for (name, reason) in cases {
                // SQLite's log has short lines: a message may take several.
                let output = try Helper.run("query", source.scratch.file("store"), name, "SELECT 1 FROM sqlite_master")
                    .replacingOccurrences(of: "\nlog \(SQLITE_CANTOPEN) verneuil_snapshot: ", with: "")
                #expect(output.contains("error \(SQLITE_CANTOPEN)"), "\(name): \(output)")
                #expect(output.contains(reason) && output.contains(name), "\(output)")
            }
            // The manifest is there, its chunks are not.
            let output = try Helper.run("query", source.scratch.file("store"), source.uri, "SELECT sum(length(body)) FROM t")
            #expect(output.contains("error \(SQLITE_IOERR | 1 << 8)") && output.contains("there is no such object"), "\(output)")
        }

        @Test func aSecondConnectionAsksNothingOfTheStore() throws {
            let source = try Source()
            configure([source.store])
            let first = try open(source.uri)
            // All of it is there then, and nothing is on its way.
            let content = try first.rows(Databases.checksum)
            #expect(content.first?.first == "1000")
            while source.store.takeMostInFlight() > 0 { usleep(50_000) }
            _ = source.store.takeLog()
            source.store.setFault { _ in .unavailable }
            // The best of five: other programs may be to blame for one.
            var (all, took) = ([SQLiteConnection](), Double.infinity)
            for _ in 0..<5 {
                let start = Date()
                all.append(try open(source.uri))
                took = min(took, Date().timeIntervalSince(start))
            }
            #expect(try all[0].rows(Databases.checksum) == content && first.rows(Databases.checksum) == content)
            #expect(source.store.takeLog() == [])
            #expect(took < 0.02, "opening took \(took) s")
        }

        @Test func theFirstConnectionAfterTheLastWasClosedFetchesAgain() throws {
            let source = try Source()
            configure([source.store])
            #expect(try open(source.uri).value("SELECT version FROM state") == "1")
            try source.commit("UPDATE state SET version = 2")
            #expect(try open(source.uri).value("SELECT version FROM state") == "2")
        }

        @Test func aSlowOpenHoldsUpNobodyElse() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            let slow = ManifestName.make(host: source.writer.host, path: "/srv/other.db")
            source.store.setFault { $0.key == slow ? .hang : nil }
            let opened = Flag()
            Thread.detachNewThread {
                _ = try? SnapshotVFSTests.open("verneuil://db.example.com/srv/other.db")
                opened.set()
            }
            while !source.store.takeLog().contains(where: { $0.contains("other") }) { usleep(1000) }
            #expect(try replica.value("SELECT count(*) FROM t") == "1000")
            #expect(try open(source.uri).value("SELECT count(*) FROM t") == "1000")
            #expect(!opened.isSet)
            source.store.release()
            opened.wait()
        }
    }

    @Suite struct Writing {
        @Test func everyWriteIsRefused() throws {
            let source = try Source()
            configure([source.store])
            for flags in [SQLITE_OPEN_READONLY, SQLITE_OPEN_READWRITE, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE] {
                let replica = try SQLiteConnection(source.uri, vfs: "verneuil_snapshot", flags: flags)
                for sql in [
                    "INSERT INTO t VALUES(0, 'x', 'y')", "UPDATE t SET k = 'z'", "DELETE FROM t", "CREATE TABLE u(x)",
                    "DROP TABLE t", "PRAGMA user_version=7", "VACUUM", "REINDEX",
                ] {
                    let failure = error { try replica.rows(sql) }
                    #expect(failure?.primary == SQLITE_READONLY, "\(sql): \(failure?.description ?? "no error")")
                }
                #expect(sqlite3_db_readonly(replica.handle, "main") == 1)
                #expect(try replica.value("PRAGMA journal_mode=WAL") != "wal")
                #expect(try replica.value("PRAGMA integrity_check") == "ok")
            }
        }

        @Test func aReservedLockIsAlwaysReportedAsTaken() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            var file: UnsafeMutablePointer<sqlite3_file>?
            #expect(sqlite3_file_control(replica.handle, "main", SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK)
            let opened = try #require(file)
            var reserved: Int32 = 0
            #expect(opened.pointee.pMethods.pointee.xCheckReservedLock(opened, &reserved) == SQLITE_OK)
            #expect(reserved == 1)
        }

        @Test func theVFSSaysItsName() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            var name: UnsafeMutablePointer<CChar>?
            #expect(sqlite3_file_control(replica.handle, "main", SQLITE_FCNTL_VFSNAME, &name) == SQLITE_OK)
            #expect(name.map { String(cString: $0) } == "verneuil_snapshot")
            sqlite3_free(name)
        }
    }
}
