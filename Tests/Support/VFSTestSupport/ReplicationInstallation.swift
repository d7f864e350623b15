import CVerneuil
import Logging
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem
import VerneuilVFS

/// The `verneuil` VFS in a test's process, replicating to a spooling directory that nobody empties. Full snapshots are made
/// within the commit, and each snapshot is compared with the database: a difference ends the process.
public enum ReplicationInstallation {
    public private(set) nonisolated(unsafe) static var spool: SpoolDirectory?

    /// SQLite's result code.
    public static func install(spool path: String) -> Int32 {
        precondition(LinuxVFSInstallation.isDone)
        let spool = SpoolDirectory(path)
        self.spool = spool
        var options = ReplicationOptions()
        options.commitBudget = 60
        options.isParanoid = true
        ReplicatedVFS.replicator = Replicator(
            spool: spool, targets: [], options: options, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        return ReplicatedVFS.register(makeDefault: false)
    }

    /// Forgets all databases, so that what comes next begins like the first time. None may be open.
    static func empty() throws(SystemError) {
        guard let spool else { return }
        for name in (try? Files.list("\(spool.boot)/databases")) ?? [] {
            try Files.removeTree("\(spool.boot)/databases/\(name)")
        }
    }

    /// Commits to the database at `path` once more; then its newest snapshot must be that, whole and byte by byte.
    /// Answers `ok`, or what is wrong.
    static func goesOn(_ path: String) -> String {
        guard let spool else { return "no spool" }
        let writer = Connection(path, vfs: "verneuil")
        let written = writer.execute("PRAGMA user_version=4711").code
        writer.close()
        guard written == 0 else { return "a commit after it fails with \(written)" }
        var last = "nothing"
        for _ in 0..<100 {
            do {
                guard let canonical = Files.canonical(path), let status = try Files.status(canonical) else { return "no file" }
                let database = SpoolDatabase(spool, path: canonical, device: status.device, inode: status.inode)
                let verdict = try SpoolBuilder(database).audit(samples: nil) { _ in 0 }
                if verdict == .sound { return "ok" }
                last = "\(verdict)"
            } catch {
                last = "\(error)"
            }
            _ = usleep(50_000)
        }
        return "not replicated any more: \(last)"
    }
}
