import CSQLite
import CVerneuil
import FormatTestSupport
import Testing
import VFSTestSupport

// Every state that two connections can be in together, and every step that SQLite makes from there, through both VFSs,
// in one process and in two: what the system answers is compared with a model of SQLite's documentation
// (https://www.sqlite.org/lockingv3.html, section 3).

private let none = SQLITE_LOCK_NONE, shared = SQLITE_LOCK_SHARED, reserved = SQLITE_LOCK_RESERVED
private let pending = SQLITE_LOCK_PENDING, exclusive = SQLITE_LOCK_EXCLUSIVE

/// Something that holds locks, here or in another process.
protocol LockHolder {
    func lock(_ level: Int32) throws -> (code: Int32, level: Int32)
    func unlock(_ level: Int32) throws -> (code: Int32, level: Int32)
    func seesReserved() throws -> Bool
}

struct LocalHolder: LockHolder {
    let file: RawFile
    func lock(_ level: Int32) -> (code: Int32, level: Int32) {
        let code = file.lock(level)
        return (code, file.level)
    }
    func unlock(_ level: Int32) -> (code: Int32, level: Int32) {
        let code = file.unlock(level)
        return (code, file.level)
    }
    func seesReserved() throws -> Bool {
        let (code, reserved) = file.checkReserved()
        try #require(code == SQLITE_OK)
        return reserved
    }
}

struct RemoteHolder: LockHolder {
    let tool: ToolProcess
    let id: String

    init(tool: ToolProcess, id: String, vfs: String, path: String) throws {
        self.tool = tool
        self.id = id
        let answer = try tool.ask("open", id, vfs, path, "\(RawFile.defaultFlags)")
        try #require(answer[0] == "0")
    }
    private func numbers(_ words: [String]) throws -> (code: Int32, level: Int32) {
        (try #require(Int32(words[0])), try #require(Int32(words[1])))
    }
    func lock(_ level: Int32) throws -> (code: Int32, level: Int32) { try numbers(tool.ask("lock", id, "\(level)")) }
    func unlock(_ level: Int32) throws -> (code: Int32, level: Int32) { try numbers(tool.ask("unlock", id, "\(level)")) }
    func seesReserved() throws -> Bool {
        let (code, value) = try numbers(tool.ask("reserved", id))
        try #require(code == SQLITE_OK)
        return value == 1
    }
}

/// A step that SQLite's pager makes.
enum LockStep: Hashable, CustomStringConvertible {
    case lock(Int32)
    case unlock(Int32)

    var description: String {
        switch self {
        case .lock(let level): "lock \(level)"
        case .unlock(let level): "unlock \(level)"
        }
    }

    static let all: [LockStep] = [
        .lock(shared), .lock(reserved), .lock(exclusive), .unlock(shared), .unlock(none),
    ]
}

/// The levels of all connections, and what the documentation says of a step.
struct LockModel: Hashable {
    var levels: [Int32]

    /// nil for what SQLite never does.
    func after(_ step: LockStep, by who: Int) -> (code: Int32, model: LockModel)? {
        let own = levels[who]
        let others = levels.indices.filter { $0 != who }.map { levels[$0] }
        var next = self
        switch step {
        case .unlock(let level):
            next.levels[who] = min(own, level)
            return (SQLITE_OK, next)
        case .lock(let level) where level <= own:
            return (SQLITE_OK, self)
        case .lock(shared) where own == none:
            if others.contains(where: { $0 >= pending }) { return (SQLITE_BUSY, self) }
            next.levels[who] = shared
        case .lock(reserved) where own == shared:
            if others.contains(where: { $0 >= reserved }) { return (SQLITE_BUSY, self) }
            next.levels[who] = reserved
        case .lock(exclusive) where own == reserved || own == pending:
            if others.contains(where: { $0 >= shared }) {
                next.levels[who] = pending
                return (SQLITE_BUSY, next)
            }
            next.levels[who] = exclusive
        case .lock(exclusive) where own == shared:
            // For a hot journal. Where it fails, the pager drops all it has, and so do the tests: on the way there versions
            // of the unix VFS differ.
            if others.contains(where: { $0 >= shared }) {
                next.levels[who] = none
                return (SQLITE_BUSY, next)
            }
            next.levels[who] = exclusive
        default:
            return nil
        }
        return (SQLITE_OK, next)
    }

    func isReserved() -> Bool { levels.contains { $0 >= reserved } }
}

/// Makes one step for real and compares.
func perform(_ step: LockStep, by who: Int, _ holders: [any LockHolder], _ model: inout LockModel) throws {
    guard let (code, next) = model.after(step, by: who) else { return }
    let hot = step == .lock(exclusive) && model.levels[who] == shared
    var result = switch step {
    case .lock(let level): try holders[who].lock(level)
    case .unlock(let level): try holders[who].unlock(level)
    }
    if hot, result.code == SQLITE_BUSY { result.level = try holders[who].unlock(none).level }
    #expect(result.code == code, "\(step) by \(who) from \(model.levels)")
    #expect(result.level == next.levels[who], "\(step) by \(who) from \(model.levels)")
    model = next
}

func expectReserved(_ holders: [any LockHolder], _ model: LockModel) throws {
    // Exclusive by way of a hot journal is without RESERVED; who has no SHARED can't ask about it.
    if model.levels.contains(exclusive) { return }
    for (index, holder) in holders.enumerated() where model.levels[index] == shared {
        #expect(try holder.seesReserved() == model.isReserved(), "\(index) asks in \(model.levels)")
    }
}

struct Arrangement: CustomTestStringConvertible, Sendable {
    let first: String
    let second: String
    let processes: Int
    var testDescription: String { "\(first) and \(second) in \(processes == 1 ? "one process" : "two processes")" }

    static let all: [Arrangement] = [1, 2].flatMap { processes in
        ["linux", "unix"].flatMap { first in
            ["linux", "unix"].map { Arrangement(first: first, second: $0, processes: processes) }
        }
    }
}

@Suite struct LockTable {
    @Test(arguments: Arrangement.all)
    func `Every step from every pair of states is as documented`(_ arrangement: Arrangement) throws {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let holders: [any LockHolder]
        let first = LocalHolder(file: try RawFile(vfs: arrangement.first, path: path))
        if arrangement.processes == 1 {
            holders = [first, LocalHolder(file: try RawFile(vfs: arrangement.second, path: path))]
        } else {
            holders = [first, try RemoteHolder(tool: ToolProcess(), id: "b", vfs: arrangement.second, path: path)]
        }

        // Breadth first over the model's states; the way to each is replayed for each step from it.
        let start = LockModel(levels: [none, none])
        var ways: [LockModel: [(LockStep, Int)]] = [start: []]
        var queue = [start]
        var steps = 0
        while !queue.isEmpty {
            let state = queue.removeFirst()
            let way = ways[state] ?? []
            for who in 0...1 {
                for step in LockStep.all {
                    guard let (_, next) = state.after(step, by: who) else { continue }
                    for holder in holders { _ = try holder.unlock(none) }
                    var model = start
                    for (step, who) in way { try perform(step, by: who, holders, &model) }
                    #expect(model == state)
                    try expectReserved(holders, model)
                    try perform(step, by: who, holders, &model)
                    try expectReserved(holders, model)
                    steps += 1
                    if ways[next] == nil {
                        ways[next] = way + [(step, who)]
                        queue.append(next)
                    }
                }
            }
        }
        // Four of NONE and SHARED; each side RESERVED or PENDING beside NONE or SHARED, eight; each side EXCLUSIVE alone.
        #expect(ways.count == 14)
        #expect(steps > 80)
    }

    @Test func `Four connections through two VFSs in two processes agree with the model for thousands of random steps`()
        throws
    {
        let scratch = try ScratchDirectory("locks")
        let path = scratch.file("a.db")
        let tool = try ToolProcess()
        let holders: [any LockHolder] = [
            LocalHolder(file: try RawFile(vfs: "linux", path: path)),
            LocalHolder(file: try RawFile(vfs: "unix", path: path)),
            try RemoteHolder(tool: tool, id: "c", vfs: "linux", path: path),
            try RemoteHolder(tool: tool, id: "d", vfs: "unix", path: path),
        ]
        var random = SeededGenerator(for: "random locks")
        var model = LockModel(levels: [none, none, none, none])
        for _ in 0..<5000 {
            guard let step = LockStep.all.randomElement(using: &random) else { break }
            try perform(step, by: Int.random(in: 0..<4, using: &random), holders, &model)
            try expectReserved(holders, model)
        }
    }

    @Test func `Steps that SQLite never makes are refused and change nothing`() throws {
        let scratch = try ScratchDirectory("locks")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        for level in [reserved, pending, exclusive] {
            #expect(file.lock(level) == SQLITE_MISUSE)
            #expect(file.level == none)
        }
        #expect(file.lock(shared) == SQLITE_OK)
        #expect(file.lock(pending) == SQLITE_MISUSE)
        #expect(file.level == shared)
        #expect(file.lock(reserved) == SQLITE_OK)
        #expect(file.lock(pending) == SQLITE_OK)
        #expect(file.lock(exclusive) == SQLITE_OK)
        #expect(file.unlock(reserved) == SQLITE_MISUSE)
        #expect(file.level == exclusive)
    }

    @Test func `Rolling back a hot journal fails while another reads and leaves SHARED`() throws {
        let scratch = try ScratchDirectory("locks")
        let first = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        let second = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        #expect(first.lock(shared) == SQLITE_OK)
        #expect(second.lock(shared) == SQLITE_OK)
        #expect(first.lock(exclusive) == SQLITE_BUSY)
        #expect(first.level == shared)
        // No PENDING is left behind: a third may come.
        #expect(try RawFile(vfs: "linux", path: scratch.file("a.db")).lock(shared) == SQLITE_OK)
        #expect(second.unlock(none) == SQLITE_OK)
        #expect(first.lock(exclusive) == SQLITE_OK)
        // Without RESERVED, so that the journal still looks hot to others.
        #expect(second.checkReserved() == (SQLITE_OK, false))
    }

    @Test func `Going down from EXCLUSIVE lets readers in at once and writers too`() throws {
        let scratch = try ScratchDirectory("locks")
        let writer = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        let other = try RawFile(vfs: "unix", path: scratch.file("a.db"))
        for level in [shared, reserved, exclusive] { #expect(writer.lock(level) == SQLITE_OK) }
        #expect(other.lock(shared) == SQLITE_BUSY)
        #expect(writer.unlock(shared) == SQLITE_OK)
        #expect(other.lock(shared) == SQLITE_OK)
        #expect(other.lock(reserved) == SQLITE_OK)
        #expect(other.lock(exclusive) == SQLITE_BUSY)
        #expect(writer.unlock(none) == SQLITE_OK)
        #expect(other.lock(exclusive) == SQLITE_OK)
    }
}
