import CSQLite
import CVerneuil
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem

/// One kind of operation, in which a process dies at each of its file operations in turn.
struct CrashScenario {
    let name: String
    /// What the process that dies is like.
    var change: (inout ReplicationOptions) -> Void = { _ in }
    var targets = 1
    /// In a process of its own, which ends well.
    var setUp: (CrashStage) throws -> Void = { _ in }
    /// In the process that dies, before that is possible.
    var approach: (CrashStage) throws -> Void = { _ in }
    let operate: (CrashStage) throws -> Void

    private static func created(_ stage: CrashStage) throws {
        try stage.create()
        try stage.flush()
    }
    private static func open(_ stage: CrashStage) throws { _ = try stage.connection().rows("SELECT count(*) FROM item") }

    static var all: [CrashScenario] { commits + builders + copiers + ends + rarities }

    private static var commits: [CrashScenario] { [
        CrashScenario(name: "first-commit", operate: { try $0.create() }),
        CrashScenario(
            name: "first-commit-then-builder", change: { $0.commitBudget = 0.000_01 },
            operate: { stage in
                try stage.create(items: 150)
                try stage.wait(for: "whole") { try stage.arena.spooled(stage.ledger.path).control()?.isCurrentWhole ?? false }
            }),
        CrashScenario(
            name: "first-commit-after-reboot",
            setUp: { stage in
                let old = SpoolDirectory(stage.arena.spool.root, bootID: "an earlier boot")
                try old.prepare()
                try Files.makeDirectories("\(old.boot)/databases/#x.db/1-2/epoch.1")
                try Files.writeAtomically([1, 2, 3], to: "\(old.boot)/databases/#x.db/1-2/control")
                try Files.writeAtomically([1, 2, 3], to: "\(old.boot)/databases/#x.db/1-2/epoch.1/table")
            },
            operate: { stage in
                try stage.create()
                // By the background, for which no commit waits.
                let old = SpoolDirectory(stage.arena.spool.root, bootID: "an earlier boot").boot
                try stage.wait(for: "rid of the earlier boot's spool") { try Files.status(old) == nil }
            }),
        CrashScenario(name: "commit", setUp: created, approach: open, operate: { try $0.commit() }),
        CrashScenario(
            name: "commit-while-a-snapshot-waits",
            setUp: { stage in
                try created(stage)
                for _ in 0..<3 { try stage.commit() }
            }, approach: open, operate: { try $0.commit() }),
        CrashScenario(
            name: "ready-switch",
            setUp: { stage in
                try created(stage)
                for _ in 0..<3 { try stage.commit() }
                try stage.flush()
                try stage.commit()
            }, approach: open,
            operate: { stage in
                try stage.flush()
                try stage.commit()
                try stage.commit()
            }),
        CrashScenario(
            name: "new-epoch",
            setUp: { stage in
                try created(stage)
                try stage.strangerCommits()
            }, approach: open, operate: { try $0.commit() }),
    ] }

    private static var builders: [CrashScenario] { [
        CrashScenario(
            name: "builder-completes-an-epoch",
            setUp: { stage in
                try created(stage)
                try stage.commit()
                try stage.strangerCommits()
            }, approach: { $0.rest() },
            operate: { stage in
                // Several slices, with a transaction among them.
                try stage.commit()
                stage.rest()
                try stage.flush()
            }),
        CrashScenario(
            name: "builder-begins-an-epoch",
            setUp: { stage in
                try stage.create()
                try stage.connection().rows("CREATE TABLE padding(x); INSERT INTO padding VALUES(randomblob(1300000))")
                try stage.flush()
                try stage.strangerCommits()
                stage.rest()
            },
            operate: { stage in
                // In slices that are over before they begin: each goes on for a few chunks.
                while try SpoolBuilder(stage.arena.spooled(stage.ledger.path)).run(
                    deadline: MonotonicTime.now, isStored: { _, _ in false }) == .more
                {}
            }),
        CrashScenario(
            name: "commit-enters-a-builders-epoch",
            setUp: { stage in
                try created(stage)
                try stage.strangerCommits()
                stage.rest()
                try stage.flush()
            }, approach: open, operate: { try $0.commit() }),
    ] }

    private static var copiers: [CrashScenario] { [
        CrashScenario(name: "first-upload", setUp: { try $0.create() }, operate: { try $0.flush() }),
        CrashScenario(
            name: "upload",
            setUp: { stage in
                try created(stage)
                try stage.commit()
            }, operate: { try $0.flush() }),
        CrashScenario(
            name: "upload-with-a-base-chunk", change: { $0.commitBudget = 5 },
            setUp: { stage in
                let connection = try stage.connection()
                try stage.create()
                try connection.rows("CREATE TABLE padding(x); INSERT INTO padding VALUES(randomblob(21000000))")
            }, operate: { try $0.flush() }),
        CrashScenario(
            name: "upload-to-two-targets", targets: 2,
            setUp: { try $0.create() },
            operate: { stage in
                try stage.flush()
                try stage.commit()
                try stage.flush()
            }),
    ] }

    private static var ends: [CrashScenario] { [
        CrashScenario(
            name: "shrink",
            setUp: { stage in
                try stage.create()
                try stage.connection().rows("CREATE TABLE padding(x); INSERT INTO padding VALUES(randomblob(900000))")
                try stage.flush()
                try stage.commit()
            }, approach: open,
            operate: { stage in
                try stage.connection().rows("DROP TABLE padding; VACUUM")
                try stage.flush()
                try stage.connection().rows("VACUUM")
            }),
        CrashScenario(
            name: "hot-journal",
            setUp: { stage in
                try created(stage)
                stage.close()
                let path = stage.ledger.path
                // In the middle of a transaction whose pages are in the file already.
                let child = try Child.start([
                    "foreign-hand", "crash", "--arena", stage.arena.root, "--path", path, "--seed", "1",
                ])
                _ = child.text()
                _ = child.wait()
                guard try Files.status(path + "-journal") != nil else { throw Finding("the crash left no journal") }
            },
            operate: { stage in
                try stage.connection().rows("SELECT count(*) FROM item")
                try stage.commit()
                try stage.flush()
            }),
        CrashScenario(
            name: "exclusive-mode", setUp: created,
            operate: { stage in
                try stage.connection().rows("PRAGMA locking_mode=EXCLUSIVE")
                for _ in 0..<3 { try stage.commit() }
                try stage.connection().rows("PRAGMA locking_mode=NORMAL; SELECT count(*) FROM item")
                try stage.commit()
            }),
        CrashScenario(
            name: "epochs-are-given-up",
            setUp: { stage in
                try created(stage)
                try stage.commit()
                for _ in 0..<3 {
                    try stage.strangerCommits()
                    try stage.commit()
                }
            }, approach: open,
            operate: { stage in
                for _ in 0..<2 {
                    try stage.strangerCommits()
                    try stage.commit()
                }
                try stage.flush()
            }),
        CrashScenario(
            name: "epochs-are-too-large-to-remove", change: { $0.removedWithinCommit = 60_000 },
            setUp: { stage in
                try created(stage)
                // A spool that is full, and a snapshot that waits in it.
                for _ in 0..<12 { try stage.commit() }
                try stage.strangerCommits()
            }, approach: open,
            operate: { stage in
                for _ in 0..<6 { try stage.commit() }
                stage.rest()
                try stage.flush()
            }),
        CrashScenario(
            name: "distrust", setUp: created,
            operate: { stage in
                let database = try stage.arena.spooled(stage.ledger.path)
                database.forgetStoredChunks()
                _ = try database.distrust()
                stage.rest()
                try stage.flush()
            }),
    ] }
    /// What replication does once in a while.
    private static var rarities: [CrashScenario] { [
        CrashScenario(
            name: "shrink-before-it-is-stored",
            setUp: { stage in
                try created(stage)
                try stage.connection().rows("CREATE TABLE padding(x); INSERT INTO padding VALUES(randomblob(900000))")
                // The long one waits, ready.
                try stage.commit()
                try stage.commit()
            }, approach: open,
            operate: { stage in
                try stage.connection().rows("DROP TABLE padding; VACUUM")
                for _ in 0..<3 { try stage.commit() }
                try stage.connection().rows("CREATE TABLE padding(x); INSERT INTO padding VALUES(randomblob(300000))")
                try stage.flush()
            }),
        CrashScenario(
            name: "retired-and-back",
            setUp: created,
            operate: { stage in
                let path = stage.ledger.path
                try Files.rename(path, to: path + away)
                if let failure = stage.replicator.flushAll(timeout: 20).first { throw Finding("flush of all: \(failure.reason)") }
                try Files.rename(path + away, to: path)
                try stage.commit()
                try stage.flush()
            }),
        CrashScenario(
            name: "take-over",
            setUp: created,
            operate: { stage in
                if let reason = stage.replicator.sync(path: stage.ledger.path, timeout: 60, takeOver: true) { throw Finding("sync: \(reason)") }
            }),
        CrashScenario(
            name: "builder-is-disturbed",
            setUp: { stage in
                try created(stage)
                try stage.strangerCommits()
                stage.rest()
            },
            operate: { stage in
                let builder = try SpoolBuilder(stage.arena.spooled(stage.ledger.path))
                var isFirst = true
                var failure: (any Error)?
                let outcome = try builder.run(deadline: nil) { _, _ in
                    if isFirst { do { try stage.strangerCommits() } catch { failure = error } }
                    isFirst = false
                    return false
                }
                if let failure { throw failure }
                guard outcome == .unsettled else { throw Finding("the builder made \(outcome) of a file that was written") }
            }),
        CrashScenario(
            name: "damaged-control-page",
            setUp: { stage in
                try created(stage)
                // What is stored is of a later epoch than a new page would begin with.
                for _ in 0..<3 {
                    try stage.strangerCommits()
                    try stage.commit()
                    try stage.flush()
                }
                let control = try Descriptor("\(stage.arena.spooled(stage.ledger.path).directory)/control", O_RDWR)
                try control.write([0xFF, 0xFE], at: 40)
            }, approach: { $0.rest() },
            operate: { stage in
                try stage.commit()
                try stage.flush()
            }),
        CrashScenario(
            name: "sweep",
            setUp: { stage in
                try created(stage)
                stage.rest()
                // What processes that died have left: no process has a number above PID_MAX_LIMIT, 4194304.
                let spool = stage.arena.spool
                let database = try stage.arena.spooled(stage.ledger.path)
                let dead = ".tmp.4194305.1"
                for name in ["\(dead)", "target.x.new"] { try Files.writeAtomically([1], to: "\(database.directory)/\(name)") }
                try Files.writeAtomically([1], to: "\(spool.boot)/manifests/\(dead)")
                try Files.makeDirectories("\(Files.directory(of: database.directory))/\(dead)/epoch.1")
                let later = "\(database.directory)/epoch.\((try database.control()?.current.point.epoch ?? 0) + 900)"
                try Files.makeDirectories(later)
                for name in ["table", "pool"] { try Files.writeAtomically([1], to: "\(later)/\(name)") }
            },
            operate: { stage in
                if let failure = stage.replicator.flushAll(timeout: 20).first { throw Finding("flush of all: \(failure.reason)") }
            }),
    ] }

    /// Where a database is for a while, under another name.
    static let away = ".away"
}
