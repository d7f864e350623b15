import ArgumentParser
import CSQLite
import CVerneuil
import FormatTestSupport
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Many processes commit to the same databases, with copiers in all of them: what is stored never goes back, and the work
/// of uploading is done once, not once for each process.
struct Many: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Many processes on one or many databases, copiers in all of them.")

    @OptionGroup var common: CommonOptions
    @Option(help: "How many processes commit.") var processes = 8
    @Option(help: "How many databases there are.") var databases = 1
    @Option(help: "For how long.") var seconds = 5.0

    /// Between two manifests of one database, in seconds.
    static let interval = 0.3

    func run() throws {
        try common.supervise("many") { arena, seed in
            var options = Arena.options()
            options.manifestInterval = Many.interval
            let replicator = Replicator(
                spool: arena.spool, targets: [ReplicationTarget(CountedStore(arena))], options: options,
                logger: StressLog.logger(arena))
            try VFSs.install(replicator)
            let ledgers = (0..<databases).map { Ledger(arena.database($0), in: arena) }
            for ledger in ledgers { try ledger.create(Connection(ledger.path, vfs: "unix"), items: 12) }
            try Files.makeDirectories(arena.side("manifests"))

            let began = MonotonicTime.now
            let children = try (0..<processes).map { index in
                try Child.start([
                    "many-player", "--arena", arena.root, "--seed", "\(seed &+ UInt64(index))", "--databases", "\(databases)",
                    "--seconds", "\(seconds)",
                ])
            }
            var figures = Figures()
            for child in children { figures.add(try child.figures()) }
            let elapsed = MonotonicTime.now.seconds(since: began)
            for ledger in ledgers {
                Watchdog.shared.pet()
                if let reason = replicator.flush(try arena.spooled(ledger.path), timeout: 60) { throw Finding("flush: \(reason)") }
                let image = try StoredImage.read(arena.store(0), arena.manifestName(ledger.path))
                guard let image, let file = try Files.read(ledger.path), difference(image.bytes, file) == nil else {
                    throw Finding("\(ledger.path) is not stored as it is")
                }
            }
            try judge(arena, elapsed, &figures)
            try StressLog.expectNoAlarm(arena)
            return figures
        }
    }

    private func judge(_ arena: Arena, _ elapsed: Double, _ figures: inout Figures) throws {
        let requests = try CountedStore.requests(arena)
        let chunks = requests.filter { $0.space == .chunks }
        let manifests = Dictionary(grouping: requests.filter { $0.space == .manifests }) { $0.key }
        figures.note("chunk-puts", chunks.count)
        figures.note("different-chunks", Set(chunks.map(\.key)).count)
        figures.note("manifest-puts", manifests.values.reduce(0) { $0 + $1.count })
        figures.note("uploaders", Set(requests.map(\.pid)).count)
        // A pass that is cut off may be made again. And all databases begin with the same content: what is sent for one is not
        // looked for when another is uploaded.
        let again = figures["chunk-puts"] - figures["different-chunks"] - cutOff(requests, &figures)
        guard again <= figures["chunk-puts"] / 20 + processes + (databases > 1 ? databases : 0) else {
            throw Finding("\(again) of \(figures["chunk-puts"]) chunks were sent more than once")
        }
        for (key, puts) in manifests {
            // P5: as many manifests as one process would send; each process may end with one of its own, and we with one.
            let most = Int(elapsed / Many.interval) + processes + 2
            guard puts.count <= most else {
                throw Finding("P5: \(puts.count) manifests of \(key) in \(Int(elapsed)) s, more than \(most)")
            }
            // P3
            let ordered = puts.sorted { $0.began < $1.began }
            var last: Ledger.State?
            for (i, put) in ordered.enumerated() {
                if i > 0, ordered[i - 1].ended > put.began { throw Finding("two processes sent \(key) at the same time") }
                guard let body = try Files.read(arena.side("manifests/\(put.began)")) else { continue }
                let image = try StoredImage(arena.store(0), manifest: body, key)
                let state = try Ledger.verify(image.bytes, scratch: arena.side("judge"))
                if let last, state.commit < last.commit { throw Finding("P3: \(key) showed \(last), and after that \(state)") }
                last = state
                figures.note("judged", 1)
            }
        }
    }
}

extension Many {
    /// Chunks that were sent again because the process that sent them before was ending, and cut off its pass: what that
    /// process remembered went with it, and no manifest of its own came after, with which the list of what is stored is written.
    private func cutOff(_ requests: [CountedStore.Request], _ figures: inout Figures) -> Int {
        var lastManifest: [pid_t: UInt64] = [:]
        for put in requests where put.space == .manifests { lastManifest[put.pid] = max(lastManifest[put.pid] ?? 0, put.began) }
        var last: [String: CountedStore.Request] = [:]
        var count = 0
        for put in requests.sorted(by: { $0.began < $1.began }) where put.space == .chunks {
            if let before = last[put.key], before.pid != put.pid,
                before.isEnding || (lastManifest[before.pid] ?? 0) < before.began
            {
                count += 1
            }
            last[put.key] = put
        }
        figures.note("cut-off", count)
        return count
    }
}

struct ManyPlayer: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "many-player", shouldDisplay: false)
    @Option var arena: String
    @Option var seed: UInt64
    @Option var databases: Int
    @Option var seconds: Double

    func run() throws {
        let arena = Arena(root: self.arena)
        var random = SeededGenerator(seed: seed)
        var options = Arena.options()
        options.manifestInterval = Many.interval
        options.isParanoid = false
        try VFSs.install(
            Replicator(
                spool: arena.spool, targets: [ReplicationTarget(CountedStore(arena))], options: options,
                logger: StressLog.logger(arena)))
        var connections: [Int: Connection] = [:]
        var figures = Figures()
        let end = MonotonicTime.now.advanced(seconds: seconds)
        while MonotonicTime.now < end {
            let index = Int.random(in: 0..<databases, using: &random)
            let ledger = Ledger(arena.database(index), in: arena)
            let connection = try connections[index] ?? Connection(ledger.path, vfs: "verneuil")
            connections[index] = connection
            connection.waitForLocks(milliseconds: 30_000)
            do throws(any Error) {
                try ledger.commit(connection, &random)
                figures.note("commits", 1)
            } catch {
                guard let error = error as? SQLiteError, error.primary == SQLITE_BUSY else { throw error }
                connection.rollBack()
            }
            usleep(UInt32.random(in: 0...4000, using: &random))
        }
        CountedStore.noteEnd()
        Child.report(figures)
    }
}

/// The arena's first store, which writes down what it is asked for.
final class CountedStore: ObjectStore {
    private let arena: Arena
    private let store: DirectoryStore
    private let log: String

    init(_ arena: Arena) {
        self.arena = arena
        store = arena.store(0)
        log = arena.side("requests")
    }

    struct Request {
        var space: ObjectSpace
        var key: String
        var pid: pid_t
        /// Nanoseconds of the monotonic clock, which all processes share.
        var began: UInt64
        var ended: UInt64
        /// Its process was ending when it was answered.
        var isEnding: Bool
    }

    private static let endLock = Lock()
    private nonisolated(unsafe) static var hasEnded = false
    /// This process has committed all that it will, and ends.
    static func noteEnd() { endLock.withLock { hasEnded = true } }

    var name: String { store.name }

    func get(_ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void) {
        store.get(request, completion: completion)
    }
    func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency, completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) {
        store.touch(space, key, urgency: urgency, completion: completion)
    }
    func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) {
        store.list(space, prefix: prefix, after: after, urgency: urgency, completion: completion)
    }
    func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) { store.prepare(completion: completion) }

    func put(_ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void) {
        let began = MonotonicTime.now.nanoseconds
        if request.space == .manifests {
            try? Files.writeAtomically(request.body, to: arena.side("manifests/\(began)"))
        }
        store.put(request) { [log] result in
            let ended = MonotonicTime.now.nanoseconds
            let line = Array("\(request.space.rawValue) \(request.key) \(getpid()) \(began) \(ended) \(Self.endLock.withLock { Self.hasEnded } ? 1 : 0)\n".utf8)
            let fd = vrn_open(log, O_WRONLY | O_CREAT | O_APPEND, 0o644)
            _ = vrn_write(fd, line, line.count)
            _ = vrn_close(fd)
            completion(result)
        }
    }

    static func requests(_ arena: Arena) throws -> [Request] {
        try String(decoding: Files.read(arena.side("requests")) ?? [], as: UTF8.self).split(separator: "\n").map { line in
            let words = line.split(separator: " ")
            guard words.count == 6, let space = ObjectSpace(rawValue: String(words[0])), let pid = pid_t(words[2]),
                let began = UInt64(words[3]), let ended = UInt64(words[4])
            else { throw Finding("what is \(line)?") }
            return Request(space: space, key: String(words[1]), pid: pid, began: began, ended: ended, isEnding: words[5] == "1")
        }
    }
}
