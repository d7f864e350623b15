import CSQLite
import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem
import VerneuilVFS

/// Issue 6.8: replicas of a database in use, whose source commits all the time,
/// through the whole of it: VFS, spool, copiers, store, a cache that loses and
/// spoils its files at random. Every query's result is a committed state, and
/// versions never go back.
///
/// A minute, or VERNEUIL_TEST_SECONDS; 5 seconds with scripts/test --quick.
@Suite(.serialized) struct LedgerTests {
    /// What was committed, and what went wrong; shared by all threads.
    private final class Ledger: @unchecked Sendable {
        static let accounts = 3000
        private let lock = Lock()
        private var states: [Int: String] = [:]
        private var faults: [String] = []
        private var seen: Set<Int> = []
        let (queries, refreshes, deleted, spoiled) = (Counter(), Counter(), Counter(), Counter())
        let stop = Flag()
        let finished = Counter()

        /// Before the commit: readers may see it at once.
        func record(_ version: Int, _ state: String) { lock.withLock { states[version] = state } }
        func check(_ version: Int, _ state: String, after last: Int, _ reader: Int) -> Bool {
            lock.withLock {
                seen.insert(version)
                if version >= last, states[version] == state { return true }
                faults.append("reader \(reader) after \(last): \(version), \(state), committed was \(states[version] ?? "nothing")")
                return false
            }
        }
        func fail(_ text: String) { lock.withLock { faults.append(text) } }
        var result: (faults: [String], versions: Int) { lock.withLock { (faults, seen.count) } }
    }

    @Test func readersOfADatabaseInUseSeeCommittedStatesInOrder() throws {
        let environment = ProcessInfo.processInfo.environment
        let seconds = Double(environment["VERNEUIL_TEST_SECONDS"] ?? "") ?? (environment["VERNEUIL_TEST_QUICK"] == nil ? 60 : 5)
        let scratch = try Scratch()
        let directory = scratch.file("cache")
        // Less than the database has chunks, so that eviction goes on besides.
        let cache = CacheDirectory(local: directory, shards: 4, capacity: 60, appendInstanceID: false)
        let source = try ReplicatedDatabase(caches: [cache]) {
            $0.isParanoid = false
            ($0.manifestInterval, $0.passInterval) = (0.1, 0.05)
        }
        let db = try source.connect()
        try db.rows(
            """
            PRAGMA synchronous=OFF; CREATE TABLE state(version INTEGER); INSERT INTO state VALUES(0);
            CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER, padding BLOB); CREATE INDEX rich ON accounts(balance);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(Ledger.accounts))
            INSERT INTO accounts SELECT i, 100, randomblob(1500) FROM n
            """)
        var balances = [Int](repeating: 100, count: Ledger.accounts + 1)
        var digest = balances.indices.reduce(0) { $0 + $1 * 100 }
        let ledger = Ledger()
        func state() -> String { "\(Ledger.accounts * 100)|\(digest)|\(Ledger.accounts)|\(digest)" }
        ledger.record(0, state())
        #expect(try db.value("PRAGMA verneuil_flush_replication_data") == "1")
        func configure() {
            let replicas = ReplicaEnvironment(
                caches: [cache], stores: [DirectoryStore(path: source.store, sync: false)], policy: .partial(min: 1, max: 1),
                tempDirectory: scratch.path, autoRefreshInterval: 0.1)
            #expect(SnapshotVFS.register(environment: replicas) == SQLITE_OK)
        }
        configure()

        let uri = "verneuil://\(ReplicatedDatabase.host)\(source.path)"
        for reader in 0..<8 {
            Thread.detachNewThread {
                defer { ledger.finished.add() }
                do { try Self.read(uri, reader, ledger) } catch { ledger.fail("reader \(reader): \(error)") }
            }
        }
        var random = SeededGenerator(for: "ledger")
        let seed = random.next()
        Thread.detachNewThread {
            defer { ledger.finished.add() }
            Self.spoil(directory, ledger, seed)
        }

        let end = Date().addingTimeInterval(seconds)
        var (version, configured) = (0, Date())
        while Date() < end {
            version += 1
            let (from, to) = (Int.random(in: 1...Ledger.accounts, using: &random), Int.random(in: 1...Ledger.accounts, using: &random))
            let amount = Int.random(in: 1...50, using: &random)
            balances[from] -= amount
            balances[to] += amount
            digest += amount * (to - from)
            ledger.record(version, state())
            try db.rows(
                """
                BEGIN; UPDATE state SET version = \(version);
                UPDATE accounts SET balance = balance - \(amount), padding = randomblob(1500) WHERE id = \(from);
                UPDATE accounts SET balance = balance + \(amount) WHERE id = \(to); COMMIT
                """)
            usleep(2000)
            // What a process that starts would have: connections opened from now on find nothing loaded.
            if Date().timeIntervalSince(configured) > 1 {
                configure()
                configured = Date()
            }
        }
        ledger.stop.set()
        while ledger.finished.value < 9 { usleep(10_000) }
        let (faults, versions) = ledger.result
        print(
            "ledger: \(version) commits, \(versions) of them seen in \(ledger.queries.value) queries, \(ledger.refreshes.value) refreshes; \(ledger.deleted.value) cached chunks deleted, \(ledger.spoiled.value) spoiled"
        )
        #expect(faults.isEmpty)
        #expect(versions >= Int(seconds) && ledger.queries.value > 50 && ledger.refreshes.value > 10 * Int(seconds))
        #expect(ledger.deleted.value > Int(seconds) && ledger.spoiled.value > Int(seconds))
        // And what is stored in the end is the database.
        try source.check(db)
    }

    private static func read(_ uri: String, _ reader: Int, _ ledger: Ledger) throws {
        func open() throws -> SQLiteConnection {
            let replica = try SQLiteConnection(uri, vfs: "verneuil_snapshot", flags: SQLITE_OPEN_READONLY)
            try replica.rows("PRAGMA cache_size=20; PRAGMA mmap_size=\(reader % 2 * 1_000_000_000)")
            if reader % 4 == 3 { try replica.rows("PRAGMA verneuil_snapshot_auto_refresh(1)") }
            return replica
        }
        var replica = try open()
        var (last, rounds) = (-1, 0)
        while !ledger.stop.isSet {
            rounds += 1
            if rounds % 15 == 0 {
                // Another connection may know less, where it has another configuration.
                (replica, last) = (try open(), -1)
            }
            switch reader % 4 {
            case 0, 1: try replica.rows("PRAGMA verneuil_snapshot_refresh(1)")
            case 2: try replica.rows("PRAGMA verneuil_snapshot_async_reload")
            default: break
            }
            ledger.refreshes.add()
            let next = Date().addingTimeInterval(0.1)
            repeat {
                // The table and the index, in one transaction.
                let row = try replica.rows(
                    """
                    SELECT version, (SELECT sum(balance) FROM accounts), (SELECT sum(id * balance) FROM accounts NOT INDEXED),
                     (SELECT count(*) FROM accounts WHERE length(padding) = 1500), (SELECT sum(balance * id) FROM accounts INDEXED BY rich) FROM state
                    """)[0]
                guard let version = Int(row[0]), ledger.check(version, row[1...].joined(separator: "|"), after: last, reader) else { return }
                last = version
                ledger.queries.add()
                usleep(5000)
            } while Date() < next && !ledger.stop.isSet
        }
    }

    /// Deletes, truncates and overwrites files of the cache while others use them.
    private static func spoil(_ directory: String, _ ledger: Ledger, _ seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        while !ledger.stop.isSet {
            usleep(5000)
            let shard = "\(directory)/\(Int.random(in: 0..<4, using: &random))"
            let files = ((try? FileManager.default.contentsOfDirectory(atPath: shard)) ?? []).filter { !$0.hasPrefix(".") }
            guard let name = files.randomElement(using: &random) else { continue }
            let path = "\(shard)/\(name)"
            switch Int.random(in: 0..<4, using: &random) {
            case 0, 1:
                if unlink(path) == 0 { ledger.deleted.add() }
            case 2:
                if truncate(path, off_t.random(in: 0..<65_536, using: &random)) == 0 { ledger.spoiled.add() }
            default:
                // In place: whoever has the file open sees it.
                guard let file = FileHandle(forUpdatingAtPath: path) else { continue }
                try? file.seek(toOffset: UInt64.random(in: 0..<60_000, using: &random))
                try? file.write(contentsOf: Data("not what was here".utf8))
                ledger.spoiled.add()
            }
        }
    }
}
