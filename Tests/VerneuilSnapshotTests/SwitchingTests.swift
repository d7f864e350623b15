import CSQLite
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilReplica
import VerneuilSystem

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

        /// Issue 6.4: the mapping itself, one for all connections, read-only, of a file.
        @Test func pagesAreServedWithoutACopy() throws {
            let source = try Source(rows: 5000)
            configure([source.store], policy: .eager)
            let replicas = try (0..<2).map { _ in try open(source.uri) }
            var pages: [[UnsafeMutableRawPointer]] = []
            for replica in replicas {
                #expect(try replica.value("PRAGMA mmap_size=1000000000") == "1000000000")
                #expect(try replica.value("SELECT count(*) FROM t") == "5000")
                var file: UnsafeMutablePointer<sqlite3_file>?
                #expect(sqlite3_file_control(replica.handle, "main", SQLITE_FCNTL_FILE_POINTER, &file) == SQLITE_OK)
                let opened = try #require(file)
                let methods = opened.pointee.pMethods.pointee
                pages.append(
                    try (0..<64).map { i in
                        var page: UnsafeMutableRawPointer?
                        #expect(methods.xFetch(opened, Int64(i) * 4096, 4096, &page) == SQLITE_OK)
                        #expect(methods.xUnfetch(opened, Int64(i) * 4096, page) == SQLITE_OK)
                        return try #require(page)
                    })
            }
            #expect(pages[0] == pages[1])
            // Within a chunk, pages follow each other as in the file.
            for i in 0..<64 where i % 16 > 0 { #expect(pages[0][i] == pages[0][i - 1] + 4096) }
            let original = try source.scratch.bytes("db")
            // Foundation reads a file of unknown length in part only, where there are many mappings (sanitizers').
            let maps = String(decoding: try #require(try Files.read("/proc/self/maps")), as: UTF8.self).split(separator: "\n")
            for (i, page) in pages[0].enumerated() {
                #expect(UnsafeRawBufferPointer(start: page, count: 4096).elementsEqual(original[i * 4096..<(i + 1) * 4096]))
                let mapping = maps.first { line in
                    let range = line.prefix { $0 != " " }.split(separator: "-").compactMap { UInt(String($0), radix: 16) }
                    return range.count == 2 && range[0] <= UInt(bitPattern: page) && UInt(bitPattern: page) < range[1]
                }
                // Shared, of a file that was never linked.
                #expect(mapping?.contains(" r--s ") == true && mapping?.hasSuffix("(deleted)") == true, "\(mapping ?? "no mapping")")
            }
            // Pages stay as long as a connection uses the snapshot.
            withExtendedLifetime(replicas) {}
        }
    }
}
