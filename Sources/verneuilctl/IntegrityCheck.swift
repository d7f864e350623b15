import CVerneuil
import Verneuil
import VerneuilReplica
import VerneuilSystem
import VerneuilVerify

extension IntegrityCheck {
    /// Restores to a temporary file, and has SQLite look at that.
    /// - Returns: nil where it is fine.
    ///
    /// The copy is this user's alone, and is gone whatever ends the program but SIGKILL.
    /// - Parameter signals: blocked since before any thread was started.
    static func run(_ restore: Restore, directory: String?, _ signals: StopSignals) throws -> Verification.Finding? {
        let own = Files.temporaryName(beside: "\(directory ?? "/var/tmp")/verify")
        try Files.makeDirectories(own)
        defer { try? Files.removeTree(own) }
        // The restore goes on meanwhile, and may make a file once more.
        try signals.beforeTheEnd { for _ in 0..<10 where (try? Files.removeTree(own)) == nil { Threads.pause(microseconds: 1000) } }
        let path = "\(own)/db"
        _ = try restore.write(to: path)
        guard let complaints = complaints(about: path) else { return nil }
        return .init(
            .bad, "the restored database", expected: "\"ok\" from PRAGMA integrity_check", found: complaints)
    }
}
