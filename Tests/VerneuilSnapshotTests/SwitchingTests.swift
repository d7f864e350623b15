import CSQLite
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilReplica

extension SnapshotVFSTests {
    /// A connection that moves to another snapshot sees all of the new one and nothing of the old.
    @Suite struct Switching {
        @Test func aLongTransactionSeesOneStateWhileTenRefreshesPassBy() throws {
            let source = try Source(rows: 20_000)
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            try replica.rows("PRAGMA cache_size=5; BEGIN")
            let before = try replica.rows(Databases.checksum)
            for i in 2..<12 {
                try source.commit("UPDATE state SET version = \(i); UPDATE t SET body = randomblob(500) WHERE id % 10 = \(i - 2)")
                try other.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(try other.value("SELECT version FROM state") == "\(i)")
            }
            #expect(try replica.rows(Databases.checksum) == before)
            #expect(try replica.value("SELECT version FROM state") == "1")
            #expect(try replica.value("PRAGMA integrity_check") == "ok")
            try replica.rows("COMMIT; PRAGMA verneuil_snapshot_refresh")
            #expect(try replica.value("SELECT version FROM state") == "11")
            #expect(try replica.rows(Databases.checksum) == SQLiteConnection(source.path).rows(Databases.checksum))
        }

        @Test func aStatementThatIsBeingReadKeepsItsSnapshot() throws {
            let source = try Source(rows: 3000)
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            var statement: OpaquePointer?
            #expect(sqlite3_prepare_v2(replica.handle, "SELECT body FROM t ORDER BY id", -1, &statement, nil) == SQLITE_OK)
            #expect(sqlite3_step(statement) == SQLITE_ROW)
            try source.commit("UPDATE t SET body = 'new'")
            try other.rows("PRAGMA verneuil_snapshot_refresh(2)")
            try replica.rows("PRAGMA verneuil_snapshot_refresh")
            var (old, new) = (1, 0)
            while sqlite3_step(statement) == SQLITE_ROW {
                if sqlite3_column_bytes(statement, 0) == 500 { old += 1 } else { new += 1 }
            }
            sqlite3_finalize(statement)
            #expect((old, new) == (3000, 0))
            #expect(try replica.value("SELECT count(*) FROM t WHERE body = 'new'") == "0")
            try replica.rows("PRAGMA verneuil_snapshot_refresh")
            #expect(try replica.value("SELECT count(*) FROM t WHERE body = 'new'") == "3000")
        }

        /// Bytes 24 to 43 of the header: change counter, size, free list, schema cookie.
        private func header(_ path: String) throws -> [UInt8] { Array(try Databases.bytes(path)[24..<44]) }

        /// Databases made alike, with other content.
        private func makeTwin(_ path: String, _ sql: String) throws {
            try SQLiteConnection(path).rows("PRAGMA page_size=4096; \(sql)")
        }

        @Test func aReplacedDatabaseWithTheSameChangeCounterIsNoticed() throws {
            let scratch = try Scratch()
            let store = MemoryStore()
            let writer = StoreWriter(path: "/srv/replaced.db", stores: [store])
            // As many commits, pages and schema changes; other rows.
            for word in ["one", "two"] {
                try makeTwin(scratch.file(word), "CREATE TABLE t(x); INSERT INTO t VALUES('\(word)')")
            }
            #expect(try header(scratch.file("one")) == header(scratch.file("two")))
            try writer.store(scratch.bytes("one"))
            configure([store])
            let replica = try open(writer.uri)
            for round in 0..<6 {
                let word = round % 2 == 0 ? "one" : "two"
                try writer.store(scratch.bytes(word))
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(try replica.rows("SELECT x FROM t") == [[word]])
                #expect(try replica.value("PRAGMA integrity_check") == "ok")
            }
        }

        @Test func aReplacedDatabaseWithTheSameCookieAndAnotherSchemaIsNoticed() throws {
            let scratch = try Scratch()
            let store = MemoryStore()
            let writer = StoreWriter(path: "/srv/replaced.db", stores: [store])
            // The same cookie and counter; the tables' roots are swapped, so that a plan for
            // one reads the other's rows.
            try makeTwin(scratch.file("ab"), "CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES('in a'); INSERT INTO b VALUES('in b')")
            try makeTwin(scratch.file("ba"), "CREATE TABLE b(x); CREATE TABLE a(x); INSERT INTO b VALUES('in b'); INSERT INTO a VALUES('in a')")
            try makeTwin(scratch.file("cd"), "CREATE TABLE c(x); CREATE TABLE a(y, x); INSERT INTO c VALUES('in c'); INSERT INTO a VALUES(1, 'in a')")
            #expect(try header(scratch.file("ab")) == header(scratch.file("ba")))
            #expect(try header(scratch.file("ab")) == header(scratch.file("cd")))
            try writer.store(scratch.bytes("ab"))
            configure([store])
            let replica = try open(writer.uri)
            // A statement that outlives the switches.
            var statement: OpaquePointer?
            #expect(sqlite3_prepare_v2(replica.handle, "SELECT x FROM a", -1, &statement, nil) == SQLITE_OK)
            defer { sqlite3_finalize(statement) }
            for name in ["ab", "ba", "ab", "cd", "ba", "cd", "cd", "ab"] {
                try writer.store(scratch.bytes(name))
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(sqlite3_step(statement) == SQLITE_ROW)
                #expect(String(cString: sqlite3_column_text(statement, 0)) == "in a", "after moving to \(name)")
                sqlite3_reset(statement)
                #expect(try replica.rows("SELECT x FROM a") == [["in a"]])
                #expect(try replica.value("PRAGMA integrity_check") == "ok")
            }
        }

        @Test func aDatabaseThatWentBackIsNoticedThoughNothingRanInBetween() throws {
            let scratch = try Scratch()
            let store = MemoryStore()
            let writer = StoreWriter(path: "/srv/back.db", stores: [store])
            try makeTwin(scratch.file("1"), "CREATE TABLE a(x); INSERT INTO a VALUES('first')")
            try makeTwin(scratch.file("2"), "CREATE TABLE z(x); DROP TABLE z; CREATE TABLE b(x); CREATE TABLE a(x); INSERT INTO a VALUES('second')")
            try makeTwin(scratch.file("3"), "CREATE TABLE b(x); INSERT INTO b VALUES('third')")
            try writer.store(scratch.bytes("1"))
            configure([store])
            let (replica, other) = (try open(writer.uri), try open(writer.uri))
            #expect(try replica.rows("SELECT x FROM a") == [["first"]])
            for (name, sql, expected) in [("2", "SELECT x FROM a", "second"), ("3", "SELECT x FROM b", "third"), ("1", "SELECT x FROM a", "first")] {
                try writer.store(scratch.bytes(name))
                try other.rows("PRAGMA verneuil_snapshot_refresh(2)")
                try replica.rows("PRAGMA verneuil_snapshot_refresh")
                if name != "3" { #expect(try other.rows(sql) == [[expected]]) }
            }
            #expect(try replica.rows("SELECT x FROM a") == [["first"]])
        }

        @Test func anUntouchedReplicaShowsEveryByteAsItIsStored() throws {
            let source = try Source(rows: 500)
            configure([source.store])
            let replica = try open(source.uri)
            for i in 2..<8 {
                try source.commit("UPDATE state SET version = \(i); CREATE TABLE extra\(i)(x)")
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(try replica.value("SELECT version FROM state") == "\(i)")
            }
            try source.commit("UPDATE t SET k = 'x' WHERE id = 7")
            try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
            var file: UnsafeMutablePointer<sqlite3_file>?
            #expect(sqlite3_file_control(replica.handle, "main", SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK)
            let opened = try #require(file)
            #expect(try replica.value("SELECT count(*) FROM t WHERE k = 'x'") == "1")
            let original = try source.scratch.bytes("db")
            for (start, count) in [(0, 4096), (0, 100), (24, 16), (40, 4), (65_530, 20)] {
                var bytes = [UInt8](repeating: 0, count: count)
                #expect(opened.pointee.pMethods.pointee.xRead(opened, &bytes, Int32(count), Int64(start)) == SQLITE_OK)
                #expect(bytes == Array(original[start..<start + count]))
            }
            #expect(try replica.value("PRAGMA schema_version") == SQLiteConnection(source.path).value("PRAGMA schema_version"))
        }

        @Test func theSchemaIsNotReadAgainForOrdinaryCommits() throws {
            let source = try Source(rows: 500)
            // A schema of many pages, with statements longer than a page.
            let columns = (0..<600).map { "column_number_\($0) INTEGER" }.joined(separator: ", ")
            try source.commit((0..<40).map { "CREATE TABLE wide\($0)(\(columns));" }.joined())
            configure([source.store], policy: .eager)
            let replica = try open(source.uri)
            let cookie = try replica.value("PRAGMA schema_version")
            for i in 2..<6 {
                try source.commit("UPDATE state SET version = \(i)")
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(try replica.value("SELECT version FROM state") == "\(i)")
                #expect(try replica.value("PRAGMA schema_version") == cookie)
            }
        }

        @Test func pageSizeAndLengthMayChange() throws {
            let source = try Source(rows: 500)
            configure([source.store])
            let replica = try open(source.uri)
            for (pageSize, rows) in [(1024, 3000), (65536, 10), (512, 700), (4096, 0)] {
                let name = "db\(pageSize)"
                try Databases.make(source.scratch.file(name), rows: rows, pageSize: pageSize, version: pageSize)
                try source.writer.store(source.scratch.bytes(name))
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
                #expect(try replica.value("SELECT version FROM state") == "\(pageSize)")
                #expect(try replica.rows(Databases.checksum) == SQLiteConnection(source.scratch.file(name)).rows(Databases.checksum))
                #expect(try replica.value("PRAGMA page_size") == "\(pageSize)")
            }
            try source.writer.store([])
            try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
            #expect(try replica.value("SELECT count(*) FROM sqlite_master") == "0")
        }

        @Test(arguments: ["immutable=1", "nolock=1"])
        func aConnectionWhoseTransactionsCannotBeSeenNeverSwitches(parameter: String) throws {
            let source = try Source(rows: 500)
            configure([source.store])
            let replica = try SQLiteConnection("file:\(source.uri)?vfs=verneuil_snapshot&\(parameter)", flags: SQLITE_OPEN_READONLY)
            let other = try open(source.uri)
            #expect(try replica.value("SELECT version FROM state") == "1")
            try source.commit("UPDATE state SET version = 2")
            try other.rows("PRAGMA verneuil_snapshot_refresh(2)")
            try replica.rows("PRAGMA verneuil_snapshot_refresh")
            #expect(try replica.value("SELECT version FROM state") == "1")
            #expect(error { try replica.rows("PRAGMA verneuil_snapshot_refresh(2)") }?.code == SQLITE_LOCKED)
        }

        @Test func pagesAreServedFromTheMappingAcrossSwitches() throws {
            let source = try Source(rows: 5000)
            configure([source.store])
            let replica = try open(source.uri)
            #expect(try replica.value("PRAGMA mmap_size=1000000000") == "1000000000")
            for i in 2..<8 {
                #expect(try replica.rows(Databases.checksum) == SQLiteConnection(source.path).rows(Databases.checksum))
                #expect(try replica.value("PRAGMA integrity_check") == "ok")
                try source.commit("UPDATE state SET version = \(i); UPDATE t SET body = randomblob(300) WHERE id % 5 = \(i % 5)")
                try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
            }
        }

        /// Issue 6.8: constant commits, readers that refresh all the time, chunks that go
        /// and come back. Every query sees one committed state, and none goes back.
        @Test func readersOfADatabaseInUseSeeCommittedStatesInOrder() throws {
            let seconds = Double(ProcessInfo.processInfo.environment["VERNEUIL_TEST_SECONDS"] ?? "") ?? 5
            let scratch = try Scratch()
            let store = MemoryStore()
            store.setDelay(0.002)
            let writer = StoreWriter(path: "/srv/ledger.db", stores: [store])
            let db = try SQLiteConnection(scratch.file("db"))
            // The accounts always sum up to 100,000; the version counts commits.
            try db.rows(
                """
                PRAGMA synchronous=OFF; CREATE TABLE state(version INTEGER); INSERT INTO state VALUES(0);
                CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER, padding BLOB);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
                INSERT INTO accounts SELECT i, 100, randomblob(900) FROM n
                """)
            try writer.store(scratch.bytes("db"))
            configure([store])
            let stop = Flag()
            let (queries, switches, faults) = (Counter(), Counter(), Counter())
            let finished = Counter()
            let uri = writer.uri
            for reader in 0..<8 {
                Thread.detachNewThread {
                    defer { finished.add() }
                    do {
                        var last = -1
                        var replica = try SnapshotVFSTests.open(uri)
                        try replica.rows("PRAGMA cache_size=20; PRAGMA mmap_size=\(reader % 2 * 1_000_000_000)")
                        var round = 0
                        while !stop.isSet {
                            round += 1
                            if round % 7 == 0 {
                                try replica.rows("PRAGMA verneuil_snapshot_refresh(1)")
                                switches.add()
                            }
                            if round % 200 == 0 { replica = try SnapshotVFSTests.open(uri) }
                            let row = try replica.rows(
                                "SELECT (SELECT version FROM state), sum(balance), count(*), sum(length(padding)) FROM accounts")[0]
                            guard row[1...] == ["100000", "1000", "900000"], let version = Int(row[0]), version >= last else {
                                print("reader \(reader) after version \(last): \(row)")
                                faults.add()
                                return
                            }
                            last = version
                            queries.add()
                        }
                    } catch {
                        print("reader \(reader): \(error)")
                        faults.add()
                    }
                }
            }
            var random = SeededGenerator(for: "ledger")
            let end = Date().addingTimeInterval(seconds)
            var version = 0
            while Date() < end {
                version += 1
                let (from, to) = (Int.random(in: 1...1000, using: &random), Int.random(in: 1...1000, using: &random))
                try db.rows(
                    """
                    BEGIN; UPDATE state SET version = \(version);
                    UPDATE accounts SET balance = balance - 7, padding = randomblob(900) WHERE id = \(from);
                    UPDATE accounts SET balance = balance + 7 WHERE id = \(to); COMMIT
                    """)
                try writer.store(scratch.bytes("db"), ctime: (Int64(version), 0))
            }
            stop.set()
            while finished.value < 8 { usleep(10_000) }
            print("ledger: \(version) commits, \(queries.value) queries, \(switches.value) refreshes")
            #expect(faults.value == 0)
            #expect(queries.value > 50 && switches.value > 10)
        }
    }
}
