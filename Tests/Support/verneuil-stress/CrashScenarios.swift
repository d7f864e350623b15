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

    static var all: [CrashScenario] { commits + builders + copiers + ends }

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
            operate: { try $0.create() }),
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
                try created(stage)
                try stage.strangerCommits()
                stage.rest()
            },
            operate: { stage in
                while try SpoolBuilder(stage.arena.spooled(stage.ledger.path)).run(
                    deadline: MonotonicTime.now.advanced(seconds: 0.000_1), isStored: { _, _ in false }) == .more
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
            name: "distrust", setUp: created,
            operate: { stage in
                let database = try stage.arena.spooled(stage.ledger.path)
                database.forgetStoredChunks()
                _ = try database.distrust()
                stage.rest()
                try stage.flush()
            }),
    ] }
}
