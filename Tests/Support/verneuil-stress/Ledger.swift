import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilFormat
import VerneuilSystem

/// A database that tells of itself which commit it shows, and whether it shows it whole:
///
/// - accounts, between which money moves: their sum never changes;
/// - items, whose bytes follow from their id and the commit that wrote them; the meta row has a digest of all (id, commit) pairs;
/// - a chain: each commit's *tip* is a hash of the tip before, the commit's number, and a nonce of its own, so that a tip
///   names one attempt at one commit.
///
/// Beside it stands a log to which every writer appends its tip before COMMIT ("B") and after ("C"): what may have been
/// committed, and what surely was.
struct Ledger {
    var path: String
    let logPath: String

    init(_ path: String, in arena: Arena) {
        self.path = path
        logPath = arena.side(Files.lastComponent(of: path) + ".ledger")
    }

    static let accounts = 50
    static let money = 1000
    /// Links of the chain that are kept.
    static let memory = 4000

    struct State: Hashable, CustomStringConvertible {
        /// How many commits it is the result of.
        var commit: Int64
        /// Hexadecimal.
        var tip: String
        var description: String { "commit \(commit) (\(tip))" }
    }

    // MARK: - Writing

    func create(_ connection: Connection, items: Int) throws {
        let nonce = [UInt8](repeating: 0, count: 16)
        let tip = Ledger.tip(after: [], commit: 0, nonce: nonce)
        try append("B", State(commit: 0, tip: hexadecimal(tip)))
        try connection.rows("BEGIN IMMEDIATE")
        try connection.rows(
            """
            CREATE TABLE meta(id INTEGER PRIMARY KEY, n INT, tip BLOB, digest INT);
            CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT);
            CREATE TABLE item(id INTEGER PRIMARY KEY, n INT, data BLOB);
            CREATE INDEX item_n ON item(n);
            CREATE TABLE chain(n INTEGER PRIMARY KEY, nonce BLOB, tip BLOB);
            WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<\(Ledger.accounts))
            INSERT INTO account SELECT i, \(Ledger.money) FROM c
            """)
        try connection.rows("INSERT INTO chain VALUES(0, ?1, ?2)", [nonce, tip])
        var digest: Int64 = 0
        for id in 0..<items {
            digest ^= Ledger.mark(Int64(id), 0)
            try connection.rows("INSERT INTO item VALUES(\(id), 0, ?1)", [Ledger.bytes(Int64(id), 0)])
        }
        try connection.rows("INSERT INTO meta VALUES(1, 0, ?1, \(digest))", [tip])
        try connection.rows("COMMIT")
        try append("C", State(commit: 0, tip: hexadecimal(tip)))
    }

    /// One commit, of several kinds.
    ///
    /// - Parameter beforeCommit: is called when all that's left to do is COMMIT.
    @discardableResult
    func commit(
        _ connection: Connection, _ random: inout SeededGenerator, items: ClosedRange<Int> = 1...4,
        beforeCommit: () -> Void = {}
    ) throws -> State {
        try connection.rows("BEGIN IMMEDIATE")
        let meta = try connection.rows("SELECT n, hex(tip), digest FROM meta").first ?? []
        guard meta.count == 3, let last = Int64(meta[0]), var digest = Int64(meta[2]) else {
            throw Finding("\(path) has no ledger any more")
        }
        let n = last + 1
        let nonce = random.bytes(16) + [UInt8](unsafeUninitializedCapacity: 4) { buffer, count in
            // Another process with the same seed must not make the same tip.
            count = max(0, vrn_getrandom(buffer.baseAddress, 4))
        }
        let tip = Ledger.tip(after: unhexadecimal(meta[1]), commit: n, nonce: nonce)
        for _ in 0..<3 {
            let amount = Int.random(in: 1...50, using: &random)
            let from = Int.random(in: 1...Ledger.accounts, using: &random)
            let to = Int.random(in: 1...Ledger.accounts, using: &random)
            try connection.rows(
                "UPDATE account SET balance=balance-\(amount) WHERE id=\(from); UPDATE account SET balance=balance+\(amount) WHERE id=\(to)")
        }
        let count = Int(try connection.number("SELECT count(*) FROM item"))
        for _ in 0..<Int.random(in: items, using: &random) {
            let id = Int64.random(in: 0..<Int64(max(1, count + count / 4)), using: &random)
            let old = try connection.rows("SELECT n FROM item WHERE id=\(id)").first.flatMap { Int64($0[0]) }
            if let old { digest ^= Ledger.mark(id, old) }
            if old != nil && Int.random(in: 0..<10, using: &random) == 0 && count > 4 {
                try connection.rows("DELETE FROM item WHERE id=\(id)")
            } else {
                digest ^= Ledger.mark(id, n)
                try connection.rows("INSERT OR REPLACE INTO item VALUES(\(id), \(n), ?1)", [Ledger.bytes(id, n)])
            }
        }
        try connection.rows("INSERT INTO chain VALUES(\(n), ?1, ?2)", [nonce, tip])
        try connection.rows("DELETE FROM chain WHERE n<\(n - Int64(Ledger.memory))")
        try connection.rows("UPDATE meta SET n=\(n), tip=?1, digest=\(digest)", [tip])
        let state = State(commit: n, tip: hexadecimal(tip))
        beforeCommit()
        try append("B", state)
        try connection.rows("COMMIT")
        try append("C", state)
        return state
    }

    private func append(_ kind: String, _ state: State) throws {
        let fd = vrn_open(logPath, O_WRONLY | O_CREAT | O_APPEND, 0o644)
        let log = Descriptor(owning: try SystemError.check(fd, "open", logPath), path: logPath)
        let line = Array("\(kind) \(state.commit) \(state.tip)\n".utf8)
        let n = line.withUnsafeBytes { vrn_write(log.fd, $0.baseAddress, $0.count) }
        guard n == line.count else { throw SystemError("write", logPath, ENOSPC) }
    }

    private static func tip(after last: [UInt8], commit: Int64, nonce: [UInt8]) -> [UInt8] {
        let print = FingerprintKey.chunk.fingerprint(last + Array("\(commit)".utf8) + nonce)
        return withUnsafeBytes(of: (print.primary, print.secondary)) { Array($0) }
    }

    /// What item `id` holds since commit `n`.
    private static func bytes(_ id: Int64, _ n: Int64) -> [UInt8] {
        var random = SeededGenerator(seed: UInt64(bitPattern: id &* 1_000_003 &+ n))
        let size = Int.random(in: 0..<4, using: &random) == 0 ? 20_000 : 1500
        return random.bytes(Int.random(in: 0...size, using: &random))
    }

    private static func mark(_ id: Int64, _ n: Int64) -> Int64 {
        var random = SeededGenerator(seed: UInt64(bitPattern: n &* 7_919_993 &+ id))
        return Int64(bitPattern: random.next() >> 1)
    }

    // MARK: - Judging

    /// The state that an open database shows; throws where it shows none, or parts of several.
    static func verify(_ connection: Connection) throws -> State {
        let name = connection.name
        try connection.rows("BEGIN")
        defer { connection.rollBack() }
        let integrity = try connection.rows("PRAGMA integrity_check")
        guard integrity == [["ok"]] else { throw Finding("\(name) is damaged: \(integrity.prefix(3))") }
        let meta = try connection.rows("SELECT n, hex(tip), digest FROM meta")
        guard meta.count == 1, let n = Int64(meta[0][0]), let digest = Int64(meta[0][2]) else {
            throw Finding("\(name) has no ledger: \(meta)")
        }
        let sum = try connection.number("SELECT sum(balance) FROM account")
        guard sum == accounts * money else { throw Finding("\(name): accounts sum to \(sum) at commit \(n)") }

        var last: (n: Int64, tip: String)?
        for row in try connection.rows("SELECT n, hex(nonce), hex(tip) FROM chain ORDER BY n") {
            guard let number = Int64(row[0]) else { throw Finding("\(name): chain has \(row)") }
            if let last {
                guard number == last.n + 1 else { throw Finding("\(name): the chain has a gap after \(last.n)") }
                let tip = tip(after: unhexadecimal(last.tip), commit: number, nonce: unhexadecimal(row[1]))
                guard hexadecimal(tip) == row[2] else { throw Finding("\(name): the chain is broken at \(number)") }
            }
            last = (number, row[2])
        }
        guard let last, last.n == n, last.tip == meta[0][1] else {
            throw Finding("\(name): the chain ends at \(String(describing: last)), meta says \(meta[0])")
        }
        var found: Int64 = 0
        for row in try connection.rows("SELECT id, n, hex(data) FROM item") {
            guard let id = Int64(row[0]), let written = Int64(row[1]), row[2] == hexadecimal(bytes(id, written)) else {
                throw Finding("\(name): item \(row[0]) of commit \(row[1]) has other bytes than it was given")
            }
            found ^= mark(id, written)
        }
        guard found == digest else { throw Finding("\(name): items are of other commits than meta says, at \(n)") }
        return State(commit: n, tip: meta[0][1])
    }

    /// The state that a database file's bytes show.
    static func verify(_ bytes: [UInt8], scratch: String) throws -> State {
        let file = try Descriptor(scratch, O_WRONLY | O_CREAT | O_TRUNC)
        try file.write(bytes, at: 0)
        try file.close()
        return try verify(Connection("file:\(scratch)?immutable=1", vfs: "unix", flags: SQLITE_OPEN_READONLY | SQLITE_OPEN_URI))
    }
}

/// What the log beside a ledger says, read as it grows.
struct LedgerLog {
    private let path: String
    private var offset: Int64 = 0
    private var rest: [UInt8] = []
    /// All that were ever attempted.
    private(set) var attempted: Set<Ledger.State> = []
    /// The newest one that was surely committed.
    private(set) var committed: Int64 = -1
    /// How many lines say so.
    private(set) var commits = 0

    init(_ ledger: Ledger) { path = ledger.logPath }

    mutating func update() throws {
        guard let status = try Files.status(path), status.size > offset else { return }
        let file = try Descriptor(path, O_RDONLY)
        let bytes = try file.read(count: Int(status.size - offset), at: offset)
        offset += Int64(bytes.count)
        rest += bytes
        while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
            let words = String(decoding: rest[..<end], as: UTF8.self).split(separator: " ")
            rest.removeSubrange(...end)
            guard words.count == 3, let n = Int64(words[1]) else { throw Finding("\(path) has a line of \(words)") }
            if words[0] == "B" {
                attempted.insert(Ledger.State(commit: n, tip: String(words[2])))
            } else {
                committed = max(committed, n)
                commits += 1
            }
        }
    }
}

private let digits = Array("0123456789ABCDEF".utf8)

func hexadecimal(_ bytes: [UInt8]) -> String {
    String(unsafeUninitializedCapacity: 2 * bytes.count) { buffer in
        for (i, byte) in bytes.enumerated() {
            buffer[2 * i] = digits[Int(byte >> 4)]
            buffer[2 * i + 1] = digits[Int(byte & 15)]
        }
        return 2 * bytes.count
    }
}

func unhexadecimal(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    var high: UInt8?
    for digit in text.utf8 {
        let value = digit <= UInt8(ascii: "9") ? digit &- UInt8(ascii: "0") : (digit | 32) &- UInt8(ascii: "a") &+ 10
        if let h = high {
            bytes.append(h << 4 | value & 15)
            high = nil
        } else {
            high = value & 15
        }
    }
    return bytes
}
