import CSQLite
import CVerneuil
import Foundation
import ProductSupport
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Replication never stops without a word: each cause shows in the status within twice the threshold.
@Suite(.serialized) struct StatusTests {
    enum Cause: String, CaseIterable, Sendable {
        case expiredKey, wrongKey, noPermission, revokedBucket, serverDown, wedgedServer, throttledForEver, manifestsRefused
        case unknownIssuer, noSuchHost, oneTargetOfTwo, storeUnmounted, fenced, noTargets, noCopierRuns, stoppedCopier
        case walMode, strangersWrites, hotJournal, unwritableSpool, spoolReplaced, damagedControlPage, replacedDatabase
        case clockSetBack, clockSetForward
    }

    private static let threshold = 0.75

    private static func fault(_ cause: Cause) -> (@Sendable (RecordingStore.Request) -> RecordingStore.Fault?)? {
        func fail(_ kind: StoreError.Kind, _ reason: String) -> (@Sendable (RecordingStore.Request) -> RecordingStore.Fault?) {
            { _ in .fail(kind, reason) }
        }
        switch cause {
        case .expiredKey: return fail(.denied, "the store answered 400 ExpiredToken")
        case .wrongKey: return fail(.denied, "the store answered 403 SignatureDoesNotMatch")
        case .noPermission: return fail(.denied, "the store answered 403 AccessDenied")
        case .revokedBucket: return fail(.noSuchSpace, "there is no bucket")
        case .serverDown, .oneTargetOfTwo: return fail(.unavailable, "connection refused")
        case .wedgedServer: return { _ in .hang }
        case .throttledForEver: return fail(.unavailable, "the store answered 503 SlowDown")
        case .manifestsRefused: return { $0.space == .manifests ? .fail(.denied, "403") : nil }
        case .unknownIssuer: return fail(.invalid, "certificate verify failed")
        case .noSuchHost: return fail(.unavailable, "no address for s3.example")
        default: return nil
        }
    }

    /// Some at a time: each is looked at from its own beginning, and the time is spent in waiting.
    @Test(arguments: stride(from: 0, to: Cause.allCases.count, by: 5).map { Array(Cause.allCases[$0..<min($0 + 5, Cause.allCases.count)]) })
    func eachCauseOfAStopIsVisibleWithinTwiceTheThreshold(_ causes: [Cause]) throws {
        let stops = try causes.map(Stop.init)
        while stops.contains(where: { !$0.isOver }) {
            for stop in stops where !stop.isOver { stop.look() }
            usleep(10_000)
        }
        for stop in stops { stop.judge() }
    }

    /// One cause at work.
    private final class Stop {
        let cause: Cause
        private let store = RecordingStore()
        private let other = RecordingStore("other")
        private let disk = "/tmp/verneuil-status-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        private let file: ReplicatedFile
        private var db: SQLiteConnection?
        /// What is asked for its status.
        private var spool: SpoolDirectory
        private var unserved: ReplicatedFile?
        private var targets: [ReplicationTarget]?
        private var clock: Int64 = 0
        private var held: SpoolCopierSession?
        private var began = MonotonicTime.now
        private var report: SpoolReport
        /// nil: not yet.
        private var isVisible: Bool?
        var isOver: Bool { isVisible != nil }

        init(_ cause: Cause) throws {
            self.cause = cause
            let stores: [any ObjectStore]
            switch cause {
            case .oneTargetOfTwo: stores = [store, other]
            case .storeUnmounted: stores = [DirectoryStore(path: disk, sync: false)]
            default: stores = [store]
            }
            file = try ReplicatedFile(stores) { $0.identity = WriterIdentity(machine: String(repeating: "a", count: 32), boot: "1") }
            spool = file.replicator.spool
            report = file.report()
            db = try file.connect()
            try db?.rows("CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(100000))")
            #expect(try file.flush() == nil, "\(cause)")
            report = file.report()
            #expect(report.isFine(limit: threshold), "\(cause): \(report)")
            targets = file.replicator.targets
            store.set(fault(cause))
            try act()
        }

        private func act() throws {
            var commits = true
            switch cause {
            case .storeUnmounted: try Files.rename(disk, to: disk + ".gone")
            case .fenced:
                let winner = try ReplicatedFile([store], sharing: file, spool: "other") {
                    $0.identity = WriterIdentity(machine: String(repeating: "a", count: 32), boot: "2")
                }
                #expect(try winner.flush() == nil)
            case .noTargets: targets = []
            case .noCopierRuns:
                // Who commits has no target, and who has one doesn't know of this spool.
                let unserved = try ReplicatedFile([], sharing: file, spool: "unserved")
                self.unserved = unserved
                spool = unserved.replicator.spool
                db = try unserved.connect()
            case .stoppedCopier:
                #expect(eventually { held = (try? SpoolCopierSession.open(file.spooled)) ?? nil; return held != nil })
            case .walMode:
                db = nil
                let unix = try SQLiteConnection(file.path, vfs: "unix")
                #expect(try unix.value("PRAGMA journal_mode=WAL") == "wal")
                commits = false
            case .strangersWrites:
                db = nil
                try SQLiteConnection(file.path, vfs: "unix").rows("INSERT INTO t VALUES('a stranger')")
                commits = false
            case .hotJournal:
                db = nil
                try Files.writeAtomically([0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7] + [UInt8](repeating: 1, count: 600), to: file.path + "-journal")
                commits = false
            case .unwritableSpool:
                try Files.rename(spool.boot, to: spool.boot + ".away")
                try Files.writeAtomically([1], to: spool.boot)
            case .spoolReplaced:
                // Where nothing stands in its place, it is made anew: EmptiedSpoolTests.
                try Files.rename(spool.root, to: spool.root + ".away")
                try Files.writeAtomically([1], to: spool.root)
            case .damagedControlPage:
                db = nil
                try Files.writeAtomically([UInt8](repeating: 7, count: 4096), to: "\(file.spooled.directory)/control")
                commits = false
            case .replacedDatabase:
                db = nil
                // Or the next scan would remove the old one's spool.
                #expect(eventually { held = (try? SpoolCopierSession.open(file.spooled)) ?? nil; return held != nil })
                try Files.writeAtomically(try #require(try Files.read(file.path)), to: file.path)
                commits = false
            case .clockSetBack: clock = -3600
            case .clockSetForward: clock = 3600
            default: break
            }
            if cause == .clockSetBack || cause == .clockSetForward { store.set { _ in .hang } }
            began = .now
            if commits { try (db ?? file.connect()).rows("INSERT INTO t VALUES('after')") }
        }

        func look() {
            let isLate = MonotonicTime.now.seconds(since: began) >= 2 * threshold
            let now = wallClock()
            report = SpoolReport(
                spool, targets: targets, now: UInt64(now.seconds + clock) * 1_000_000_000 + UInt64(now.nanoseconds))
            if !report.isFine(limit: threshold) { isVisible = true } else if isLate { isVisible = false }
        }

        func judge() {
            #expect(isVisible == true, "\(cause): \(MonotonicTime.now.seconds(since: began)) s, \(report)")
            if let expected = words[cause] { #expect("\(report)".contains(expected), "\(cause): \(report)") }
            // An hour later by its clock, all that is missing has been missing for an hour.
            if cause == .clockSetForward { #expect(report.lag >= 3600, "\(report)") }
        }

        deinit {
            store.set(nil)
            store.release()
            for path in [disk, disk + ".gone"] { try? Files.removeTree(path) }
        }
    }

    private static let words: [Cause: String] = [
        .expiredKey: "ExpiredToken", .wrongKey: "SignatureDoesNotMatch", .noPermission: "AccessDenied", .revokedBucket: "no bucket",
        .serverDown: "connection refused", .throttledForEver: "SlowDown", .unknownIssuer: "certificate", .noSuchHost: "s3.example",
        .storeUnmounted: "not mounted", .fenced: "fenced", .noTargets: "no replication target", .walMode: "WAL mode",
        .hotJournal: "hot journal", .damagedControlPage: "control page", .replacedDatabase: "another file", .clockSetBack: "clock",
    ]

    // MARK: - verneuilctl status

    private struct Shown {
        var status: Int32
        var json: [String: Any]
        var databases: [[String: Any]] { json["databases"] as? [[String: Any]] ?? [] }
        var targets: [[String: Any]] { databases.first?["targets"] as? [[String: Any]] ?? [] }
    }

    private func show(_ here: Workspace, _ config: String, _ arguments: String...) throws -> Shown {
        let program = try Program.run(
            [Products.verneuilctl(), "status", "--json"] + arguments, environment: ["VERNEUIL_CONFIG": config], directory: here.path)
        let object = try JSONSerialization.jsonObject(with: Data(program.output)) as? [String: Any]
        return Shown(status: program.status, json: try #require(object, "\(program)"))
    }

    @Test func theToolReadsTheSpoolWithoutAnyRunningProcess() throws {
        let here = try Workspace()
        let config = here.configuration(spool: true)
        let wrote = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t(data); INSERT INTO t VALUES(randomblob(1000000));",
            "PRAGMA verneuil_flush_replication_data", config: config)
        #expect(wrote.status == 0, "\(wrote)")
        let fine = try show(here, config)
        #expect(fine.status == 0, "\(fine)")
        #expect(fine.databases.first?["path"] as? String == here.file("app.db"))
        #expect(fine.databases.first?["bytes"] as? Int == (try here.bytes("app.db").count))
        #expect(fine.targets.count == 1 && fine.targets.first?["last_success"] is String)
        #expect(((fine.targets.first?["uploaded"] as? [String: Any])?["chunks"] as? Int ?? 0) >= 15)
        let text = try here.verneuilctl("status", here.file("spool"), config: "")
        #expect(text.status == 0 && text.text.contains("has everything") && text.text.contains("app.db"), "\(text)")

        // The server is gone; the process that committed has ended, and nobody runs.
        let unreachable = """
            {"replication_spooling_dir": "\(here.file("spool"))", "replication_targets": [{"directory": {"path": "\(here.file("file"))/x"}}]}
            """
        try here.write([1], to: "file")
        let late = try here.extended("file:app.db?vfs=verneuil", "INSERT INTO t VALUES(randomblob(200000))", config: unreachable)
        #expect(late.status == 0, "\(late)")
        usleep(1_100_000)
        let lagging = try show(here, config, "--max-lag", "1")
        #expect(lagging.status == 1)
        #expect((lagging.json["lag_seconds"] as? Double ?? 0) >= 1)
        #expect(((lagging.targets.first?["pending"] as? [String: Any])?["chunks"] as? Int ?? 0) >= 2)
        #expect(try show(here, config, "--max-lag", "1000").status == 0)
        // The configuration's own target has never been seen.
        let other = try show(here, unreachable, "--max-lag", "1")
        #expect(other.status == 1 && other.targets.first?["last_success"] is NSNull)

        #expect(try here.verneuilctl("flush", here.file("spool"), config: config).status == 0)
        #expect(try show(here, config, "--max-lag", "0").status == 0)

        #expect(try here.verneuilctl("status", here.file("spool"), "--max-lag", "much", config: "").status == 2)
        #expect(try here.verneuilctl("status", here.file("nowhere"), config: "").status == 1)
        #expect(try here.verneuilctl("status", config: "").status == 1)
    }
}
