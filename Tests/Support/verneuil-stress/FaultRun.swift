import CSQLite
import CVerneuil
import VFSTestSupport
import VerneuilSystem

/// One run of a fixed application, in a process of its own.
struct FaultRun {
    let arena: Arena
    let mode: FaultMode
    let vfs: String
    let seed: UInt64

    private enum Step {
        case sql(String)
        case flush, stranger
        /// Time for the background.
        case pause
    }

    private static let fill =
        "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<60) INSERT INTO t(x) SELECT printf('%.3000c', char(97+i%26)) FROM n"

    private var steps: [Step] {
        let first: [Step] = [
            .sql("CREATE TABLE t(id INTEGER PRIMARY KEY, x)"), .sql(Self.fill), .flush,
            .sql("UPDATE t SET x='one' WHERE id=50"), .sql("BEGIN; INSERT INTO t(x) VALUES('gone'); ROLLBACK"), .flush,
        ]
        let last: [Step] = [
            .sql("INSERT INTO t(x) VALUES('two')"), .sql("SELECT count(*), sum(length(x)), max(id) FROM t"),
            .sql("DELETE FROM t WHERE id>20"), .sql("VACUUM"), .flush, .sql("INSERT INTO t(x) VALUES('three')"),
            .sql("PRAGMA integrity_check"),
        ]
        switch mode {
        case .all, .lasting: return first + last
        case .stranger: return first + [.stranger] + last
        case .background:
            return (first + [.stranger] + last).flatMap { step -> [Step] in
                if case .flush = step { return [.pause] }
                return [step]
            }
        }
    }

    /// Answers the epoch at the end, how many files are open, and what each step came to; leaves a list of the calls.
    func observe() throws -> String {
        let stage = try start()
        let connection = try stage.connection(vfs)
        FaultIO.configure("\(mode.scope(arena));log=\(Self.callsPath(arena))")
        let answers = try play(connection).answers
        FaultIO.configure("")
        let epoch = vfs == "linux" ? 0 : try epoch(stage)
        return (["\(epoch)", "\(openDescriptors(under: arena.root).count)"] + answers).joined(separator: "\n")
    }

    /// - Parameter call: what fails, as a rule: threads in the background make it another call now and then.
    /// - Returns: false where it was a call of SQLite's own, of whose failure the application is rightly told.
    func judge(_ plan: String, _ call: String, against reference: FaultReference) throws -> Bool {
        let stage = try start()
        let connection = try stage.connection(vfs)
        FaultIO.configure("\(mode.scope(arena));\(plan);log=\(Self.callsPath(arena))")
        let played = try play(connection)
        FaultIO.configure("")

        for (i, (mine, expected)) in zip(played.answers, reference.answers).enumerated() where mine != expected {
            if mode == .all, let acted = try Self.calls(arena, thatFailed: true).first, acted != call,
                acted.contains(" /db/"), !acted.contains("xattr")
            {
                return false
            }
            throw Finding("the application sees it: step \(i) answers \(mine) instead of \(expected)")
        }
        // The cause is gone: all is stored, without a restart, with a commit and without.
        try compare(connection, "afterwards")
        try connection.rows("INSERT INTO t(x) VALUES('four')")
        try compare(connection, "after another commit")

        let log = String(decoding: try Files.read("\(arena.root)/log/\(getpid())") ?? [], as: UTF8.self)
        let complaints = log.split(separator: "\n").filter { $0.contains(" warning ") || $0.contains(" error ") }
        let epoch = "\(try epoch(stage))"
        // Where a stranger writes, it is chance whether the builder's thread or the next commit begins the epoch.
        let isFullSnapshotNew = epoch != reference.epoch && (mode == .all || mode == .lasting)
        let mattered = played.flushes.contains("0") || isFullSnapshotNew
        if mattered && complaints.isEmpty {
            throw Finding("nobody is told: flushes \(played.flushes), epoch \(epoch) instead of \(reference.epoch); log:\n\(log)")
        }
        if mode == .all || mode == .lasting {
            // The builder's thread may be at work for a moment.
            for _ in 0..<50 where openDescriptors(under: arena.root).count > reference.descriptors { usleep(10_000) }
            let left = openDescriptors(under: arena.root)
            guard left.count <= reference.descriptors else {
                throw Finding("descriptors are left open: \(left.count) instead of \(reference.descriptors): \(left)")
            }
        }
        return true
    }

    /// Its number without when the control page was made.
    private func epoch(_ stage: CrashStage) throws -> UInt64 {
        try (stage.arena.spooled(stage.ledger.path).control()?.current.point.epoch ?? 0) & 0xFFFF
    }

    private func start() throws -> CrashStage {
        try CrashStage(arena, seed: seed) { options in
            options.isParanoid = false
            if mode == .background { options.workers = 2 }
        }
    }

    /// - Returns: of each step what SQLite answers, without flushes, whose answers come apart.
    private func play(_ connection: Connection) throws -> (answers: [String], flushes: [String]) {
        var answers: [String] = []
        var flushes: [String] = []
        for step in steps {
            switch step {
            case .sql(let sql):
                do throws(SQLiteError) {
                    answers.append(try connection.rows(sql).map { $0.joined(separator: ",") }.joined(separator: ";"))
                } catch {
                    connection.rollBack()
                    answers.append("\(error)".replacing("\n", with: " "))
                }
            case .flush: flushes.append(try connection.value("PRAGMA verneuil_flush_replication_data"))
            case .stranger:
                try Connection(connection.name, vfs: "unix").rows("INSERT INTO t(x) VALUES('a stranger''s')")
                usleep(25_000)
            case .pause: usleep(60_000)
            }
        }
        return (answers, flushes)
    }

    private func compare(_ connection: Connection, _ when: String) throws {
        let answer = try connection.value("PRAGMA verneuil_flush_replication_data")
        guard answer == "1" else {
            let log = String(decoding: try Files.read("\(arena.root)/log/\(getpid())") ?? [], as: UTF8.self)
            throw Finding("flush \(when) answers \(answer); log:\n\(log)")
        }
        guard let file = try Files.read(connection.name),
            let image = try StoredImage.read(arena.store(0), arena.manifestName(connection.name))
        else { throw Finding("\(when) nothing is stored") }
        if let difference = difference(image.bytes, file) { throw Finding("\(when) what is stored differs: \(difference)") }
    }

    private static func callsPath(_ arena: Arena) -> String { arena.side("calls") }

    /// The calls that were seen, in order: name, path, details; what is random in names left out.
    ///
    /// - Parameter thatFailed: only those that were made to fail.
    static func calls(_ arena: Arena, thatFailed: Bool = false) throws -> [String] {
        let lines = String(decoding: try Files.read(callsPath(arena)) ?? [], as: UTF8.self).split(separator: "\n")
        return lines.filter { !thatFailed || $0.hasSuffix(" !") }.map { line in
            var words = line.split(separator: " ").dropFirst().map { String($0) }
            if words.last == "!" { words.removeLast() }
            if let last = words.last, last.first == "E" { words.removeLast() }
            words = words.dropLast().map { $0.replacing(arena.root, with: "") }
            // When the control page was made is in the upper bits of an epoch's number.
            words = words.map { $0.replacing(#/epoch\.(\d+)/#) { "epoch.\((UInt64($0.output.1) ?? 0) & 0xFFFF)" } }
            return words.joined(separator: " ")
        }
    }
}
