import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilSystem

/// A seeded random application: connections to a set of databases, opened, used in every way that changes a file
/// or holds a lock, and closed, also in the middle of a transaction.
///
/// What it meets of other players (SQLITE_BUSY, a table that is gone) is part of the game. Any other error is a finding.
final class Player {
    let arena: Arena
    let databases: Int
    var random: SeededGenerator
    /// Whether other processes play as well: then locks are not kept for long.
    let isAlone: Bool
    /// What was done, by kind: `Coverage.kinds`.
    private(set) var coverage = Figures()
    private var seats: [Seat] = []
    /// Grow no larger than this, in bytes.
    private let sizeLimit: Int64
    /// Whether SQLite has the defect that `SQLiteDefect` tells of: what leads to it isn't played.
    var avoidsDefect = false
    /// By which the databases are opened.
    private let vfs: String
    /// Is given each statement before it is run, with the number of the connection.
    var trace: ((Int, String) -> Void)?
    private var connections = 0

    private final class Seat {
        let connection: Connection
        var databases: [Int]
        /// journal_mode=OFF: there is no way back. What is rolled back, be it a statement that failed, leaves a damaged
        /// database, so nothing may get in this seat's way.
        var hasNoJournal: Bool { journal == "off" }
        /// As the last journal_mode pragma was answered.
        var journal = "delete"
        var isExclusive = false
        /// PRAGMA secure_delete=1, which keeps `SQLiteDefect` away.
        var deletesSecurely = false
        /// Steps that an open read transaction stays.
        var reads = 0
        init(_ connection: Connection, _ database: Int) {
            self.connection = connection
            databases = [database]
        }
        var schemas: [String] { databases.indices.map { $0 == 0 ? "main" : "other\($0)" } }
    }

    init(arena: Arena, databases: Int, seed: UInt64, isAlone: Bool, sizeLimit: Int64, vfs: String = "verneuil") {
        self.arena = arena
        self.vfs = vfs
        self.databases = databases
        self.isAlone = isAlone
        self.sizeLimit = sizeLimit
        random = SeededGenerator(seed: seed)
    }

    /// Closes what is open.
    func leave() {
        for seat in seats { leave(seat) }
        seats = []
    }

    private func leave(_ seat: Seat) { coverage.note("spilled-pages", seat.connection.spilledPages) }

    private func note(_ kind: String) { coverage.note(kind, 1) }

    func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }
    func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &random) }
    private func pick<T>(_ list: [T]) -> T { list[Int.random(in: 0..<list.count, using: &random)] }

    /// One thing that an application does. Answers the databases to which something may have been committed.
    func step() throws -> (commits: Int, databases: [Int]) {
        for seat in seats where seat.reads > 0 {
            seat.reads -= 1
            if seat.reads == 0 { seat.connection.rollBack() }
        }
        if seats.isEmpty || (seats.count < 4 && chance(6)) {
            try takeSeat()
            return (0, [])
        }
        if chance(5) {
            leave(seats.remove(at: number(0...seats.count - 1)))
            return (0, [])
        }
        let seat = pick(seats)
        if seat.reads > 0 {
            _ = try tolerant(seat) { try seat.connection.rows("SELECT count(*) FROM sqlite_schema") }
            return (0, [])
        }
        let before = seat.connection.commits
        switch number(0...99) {
        case 0..<45: try transaction(seat)
        case 45..<65 where !seat.hasNoJournal: try tolerant(seat) { try statement(seat, in: "main") }
        case 45..<65: try transaction(seat)
        case 65..<71: try startReading(seat)
        case 71..<76: try changeJournal(seat)
        case 76..<82: try attachOrDetach(seat)
        case 82..<86: try vacuum(seat)
        case 86..<89: try incrementalVacuum(seat)
        case 89..<92: try changeLocking(seat)
        case 92..<94: try restoreInPlace(seat)
        case 94..<96: try tolerant(seat) { try seat.connection.rows("PRAGMA user_version=\(number(0...1000))") }
        case 96..<98: try tune(seat)
        default: try shrink(seat)
        }
        let commits = seat.connection.commits - before
        if commits > 0 { coverage.note("journal-\(seat.journal)", commits) }
        return (commits, seat.databases)
    }

    /// Codes that come of others being at work, or of the random order of things.
    private func isPartOfTheGame(_ error: SQLiteError) -> Bool {
        [SQLITE_BUSY, SQLITE_LOCKED, SQLITE_SCHEMA, SQLITE_ERROR, SQLITE_CONSTRAINT, SQLITE_FULL, SQLITE_TOOBIG]
            .contains(error.primary)
    }

    /// False where it failed, but in a way that is part of the game.
    @discardableResult
    private func tolerant(_ seat: Seat, _ body: () throws -> Void) throws -> Bool {
        do {
            try body()
            return true
        } catch let error as SQLiteError {
            guard isPartOfTheGame(error) else { throw error }
            return false
        }
    }

    // MARK: - Connections

    private func open(_ index: Int) throws -> Connection {
        let connection = try Connection(arena.database(index), vfs: vfs)
        connections += 1
        if let trace {
            let number = connections
            trace(number, "open \(index)")
            connection.trace = { trace(number, $0) }
        }
        return connection
    }

    private func takeSeat() throws {
        let index = number(0...databases - 1)
        let connection = try open(index)
        connection.waitForLocks(milliseconds: isAlone ? 0 : 10)
        let seat = Seat(connection, index)
        if chance(50) { connection.setGrowth(bytes: Int32(pick([1024, 16_384, 65_536, 200_000]))) }
        try tolerant(seat) {
            // Those that count only for a new database, then those of the connection.
            try connection.rows("PRAGMA page_size=\(pick([512, 1024, 4096, 4096, 8192, 65_536]))")
            try connection.rows("PRAGMA auto_vacuum=\(number(0...2))")
        }
        try tune(seat)
        seats.append(seat)
        try changeJournal(seat)
    }

    private func tune(_ seat: Seat) throws {
        try tolerant(seat) {
            try seat.connection.rows("PRAGMA cache_size=\(pick([1, 2, 5, 10, 100, -2000]))")
            try seat.connection.rows("PRAGMA synchronous=\(pick([0, 0, 1, 2, 3]))")
            let secureDelete = pick([0, 1, 2])
            seat.deletesSecurely = false
            try seat.connection.rows("PRAGMA secure_delete=\(secureDelete)")
            seat.deletesSecurely = secureDelete == 1
            try seat.connection.rows("PRAGMA cache_spill=\(chance(80) ? "ON" : "OFF")")
        }
    }

    private func changeJournal(_ seat: Seat) throws {
        let mode = pick(["delete", "delete", "truncate", "truncate", "persist", "persist", "memory", "off"])
        try tolerant(seat) { seat.journal = try seat.connection.value("PRAGMA journal_mode=\(mode)") }
        // One that replication's VFS can't offer: the answer is the mode in force. (Who holds the lock for good needs no
        // shared memory, and gets it.)
        if chance(10) && !seat.isExclusive && vfs == "verneuil" {
            try tolerant(seat) {
                let answer = try seat.connection.value("PRAGMA journal_mode=WAL")
                if answer == "wal" { throw Finding("journal_mode=WAL was granted") }
            }
        }
    }

    private func changeLocking(_ seat: Seat) throws {
        seat.isExclusive = !seat.isExclusive && (isAlone || chance(20))
        try tolerant(seat) {
            try seat.connection.rows("PRAGMA locking_mode=\(seat.isExclusive ? "EXCLUSIVE" : "NORMAL")")
            // Takes effect with the next access.
            try seat.connection.rows("SELECT count(*) FROM sqlite_schema")
        }
    }

    private func attachOrDetach(_ seat: Seat) throws {
        if seat.databases.count > 1 && chance(50) {
            if try tolerant(seat, { try seat.connection.rows("DETACH \(seat.schemas.last ?? "")") }) {
                seat.databases.removeLast()
            }
            return
        }
        let index = number(0...databases - 1)
        if seat.databases.contains(index) || seat.databases.count >= 4 { return }
        let schema = "other\(seat.databases.count)"
        if try tolerant(seat, { try seat.connection.rows("ATTACH '\(arena.database(index))' AS \(schema)") }) {
            seat.databases.append(index)
        }
    }

    // MARK: - Transactions

    private func transaction(_ seat: Seat) throws {
        let connection = seat.connection
        guard
            try tolerant(seat, {
                try connection.rows("BEGIN \(seat.hasNoJournal ? "EXCLUSIVE" : pick(["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]))")
            })
        else { return }
        var savepoints: [Int] = []
        var written: Set<String> = []
        let canRollBack = !seat.hasNoJournal
        for _ in 0..<number(1...6) {
            if canRollBack && chance(15) {
                savepoints.append(savepoints.count)
                try connection.rows("SAVEPOINT s\(savepoints.count)")
                note("savepoints")
            }
            let schema = pick(seat.schemas)
            let isFine = try tolerant(seat) { try statement(seat, in: schema, isInSavepoint: !savepoints.isEmpty) }
            if isFine { written.insert(schema) }
            if !isFine && !connection.isInTransaction { return }
            if !savepoints.isEmpty && chance(30) {
                let word = chance(50) ? "RELEASE" : "ROLLBACK TO"
                _ = try tolerant(seat) { try connection.rows("\(word) s\(savepoints.count)") }
                if word == "RELEASE" { savepoints.removeLast() } else { note("savepoints-rolled-back") }
            }
        }
        if canRollBack && chance(2) {
            // The application forgets it, in the middle of its transaction.
            note("abandoned")
            leave(seat)
            seats.removeAll { $0 === seat }
            return
        }
        if canRollBack && chance(15) {
            connection.rollBack()
            note("rollbacks")
            return
        }
        // SQLite takes a super-journal where several files have a journal on disk.
        if written.count > 1 && ["delete", "truncate", "persist"].contains(seat.journal) { note("several-files") }
        for _ in 0..<20 where connection.isInTransaction {
            if try tolerant(seat, { try connection.rows("COMMIT") }) { break }
            // A reader in one of our own seats is in the way, and won't go while we wait.
            for other in seats where other.reads > 0 {
                other.reads = 0
                other.connection.rollBack()
            }
        }
        connection.rollBack()
    }

    /// One that changes something.
    private func statement(_ seat: Seat, in schema: String, isInSavepoint: Bool = false) throws {
        let connection = seat.connection
        let table = "\(schema).t\(number(0...3))"
        let kind = number(0...99)
        if kind < 8 && !(isInSavepoint && avoidsDefect && !seat.deletesSecurely) {
            try connection.rows("DROP TABLE IF EXISTS \(table)")
            return
        }
        try connection.rows("CREATE TABLE IF NOT EXISTS \(table)(k INTEGER PRIMARY KEY, a BLOB, b TEXT, c INT)")
        if try connection.number("SELECT page_count*page_size FROM pragma_page_count('\(schema)'), pragma_page_size('\(schema)')")
            > sizeLimit
        {
            try connection.rows("DELETE FROM \(table)")
            return
        }
        switch kind {
        case 8..<30:
            let bytes = random.bytes(number(0...400))
            try connection.rows("INSERT INTO \(table)(a,b,c) VALUES(?1,hex(?1),\(number(0...9)))", [bytes])
        case 30..<45:
            let bytes = random.bytes(number(10...900))
            try connection.rows(
                """
                WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<\(number(1...150)))
                INSERT INTO \(table)(a,b,c) SELECT ?1||i, i, i%10 FROM n
                """, [bytes])
        case 45..<52:
            try connection.rows("INSERT INTO \(table)(a) VALUES(?1)", [random.bytes(number(1000...300_000))])
        case 52..<55:
            try connection.rows("INSERT INTO \(table)(a) VALUES(zeroblob(\(number(60_000...400_000))))")
        case 55..<75:
            let bytes = random.bytes(number(0...700))
            try connection.rows("UPDATE \(table) SET a=?1 WHERE k%\(number(1...40))=0", [bytes])
        case 75..<85:
            try connection.rows("DELETE FROM \(table) WHERE c=\(number(0...9)) OR k%\(number(2...9))=0")
        case 85..<90:
            let name = table.split(separator: ".")[1]
            try connection.rows("CREATE INDEX IF NOT EXISTS \(schema).x\(name) ON \(name)(b, c)")
        case 90..<94 where !seat.hasNoJournal:
            // Fails half-way through, by the primary key.
            try connection.rows("UPDATE \(table) SET k=k+1")
        default:
            try connection.rows(
                "CREATE TEMP TABLE IF NOT EXISTS scratch(x); INSERT INTO scratch SELECT a FROM \(table); UPDATE \(table) SET b='x' WHERE k<\(number(1...20)); DELETE FROM scratch"
            )
        }
    }

    private func startReading(_ seat: Seat) throws {
        try tolerant(seat) {
            try seat.connection.rows("BEGIN")
            try seat.connection.rows("SELECT count(*) FROM sqlite_schema")
            seat.reads = number(1...4)
        }
        if seat.reads == 0 { seat.connection.rollBack() }
    }

    private func vacuum(_ seat: Seat) throws {
        try tolerant(seat) {
            let before = try seat.connection.value("PRAGMA page_size")
            if chance(40) { try seat.connection.rows("PRAGMA page_size=\(pick([512, 1024, 2048, 4096, 32_768, 65_536]))") }
            if chance(30) { try seat.connection.rows("PRAGMA auto_vacuum=\(number(0...2))") }
            try seat.connection.rows("VACUUM")
            note("vacuums")
            if try seat.connection.value("PRAGMA page_size") != before { note("page-size-changes") }
        }
    }

    private func incrementalVacuum(_ seat: Seat) throws {
        try tolerant(seat) {
            let before = try seat.connection.number("PRAGMA page_count")
            try seat.connection.rows("PRAGMA incremental_vacuum(\(number(1...200)))")
            if try seat.connection.number("PRAGMA page_count") < before { note("incremental-vacuums") }
        }
    }

    private func shrink(_ seat: Seat) throws {
        try tolerant(seat) {
            let before = try seat.connection.number("PRAGMA page_count")
            try seat.connection.rows("DELETE FROM main.t\(number(0...3))")
            if chance(50) { try seat.connection.rows("VACUUM") }
            if try seat.connection.number("PRAGMA page_count") < before { note("truncations") }
            if try seat.connection.value("PRAGMA auto_vacuum") == "1" { note("auto-vacuum") }
        }
    }

    /// Another database's content over this one's, in place.
    private func restoreInPlace(_ seat: Seat) throws {
        let index = number(0...databases - 1)
        if index == seat.databases[0] || seat.hasNoJournal { return }
        try tolerant(seat) {
            let source = try open(index)
            try seat.connection.copyAll(from: source)
            note("restores-in-place")
        }
    }
}

/// What a run must have done to say anything.
enum Coverage {
    static let kinds = [
        "journal-delete", "journal-truncate", "journal-persist", "journal-memory", "journal-off", "savepoints",
        "savepoints-rolled-back", "rollbacks", "abandoned", "spilled-pages", "several-files", "vacuums", "page-size-changes",
        "incremental-vacuums", "auto-vacuum", "truncations", "restores-in-place",
    ]
}
