import CVerneuil
import VerneuilReplica
import VerneuilSystem

/// The pragmas of a replica. SQLite hands them over when a statement
/// is compiled.
extension SnapshotConnection {
    /// What a pragma comes to.
    private enum Outcome {
        case answer(String)
        case failure(Int32, String)
        /// Not one of ours.
        case unknown
    }

    /// - Parameter arguments: SQLite's: [0] is for the answer or an error's text,
    ///   [1] is the pragma's name, [2] its argument or NULL.
    func pragma(
        _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>,
        for file: UnsafeMutablePointer<vrn_snapshot_file>
    ) -> Int32 {
        guard let name = arguments[1], strncasecmp(name, "verneuil_snapshot_", 18) == 0 else { return SQLITE_NOTFOUND }
        let argument = arguments[2].map { String(cString: $0).lowercased() }
        switch run(String(cString: name + 18).lowercased(), argument, for: file) {
        case .answer(let text):
            arguments[0] = vrn_sqlite3_strdup(text)
            return SQLITE_OK
        case .failure(let code, let text):
            arguments[0] = vrn_sqlite3_strdup(text)
            return code
        case .unknown:
            return SQLITE_NOTFOUND
        }
    }

    private func run(
        _ name: String, _ argument: String?, for file: UnsafeMutablePointer<vrn_snapshot_file>
    ) -> Outcome {
        guard file.pointee.pid == getpid() else {
            return .failure(SQLITE_MISUSE, "a connection that was opened before fork(2) can't be used after it")
        }
        switch name {
        case "ctime": return .answer(Self.text(snapshot.ctime))
        case "updated": return .answer(Self.text(snapshot.updated))
        case "async_reload":
            if switchToNewest(for: file) { return .answer("1") }
            replica.scheduleRefresh()
            return .answer("0")
        case "refresh": return refresh(argument, for: file)
        case "auto_refresh":
            let old = autoRefresh ? "1" : "0"
            if let argument {
                guard let new = Self.boolean(argument) else {
                    return .failure(SQLITE_ERROR, "verneuil_snapshot_auto_refresh takes a boolean, not '\(argument)'")
                }
                autoRefresh = new
            }
            return .answer(old)
        default: return .unknown
        }
    }

    private func refresh(_ argument: String?, for file: UnsafeMutablePointer<vrn_snapshot_file>) -> Outcome {
        do throws(ReplicaError) {
            switch argument {
            case nil, "0": break
            case "1": _ = try replica.refreshUnlessUnderWay()
            case "2", "force":
                guard file.pointee.lock == SQLITE_LOCK_NONE, !isFrozen else {
                    let reason = isFrozen ? "on an immutable database" : "inside a transaction"
                    return .failure(SQLITE_LOCKED, "a replica can't be refreshed \(reason)")
                }
                _ = try replica.refresh()
            case let other?:
                return .failure(SQLITE_ERROR, "verneuil_snapshot_refresh takes 0, 1, 2 or force, not '\(other)'")
            }
        } catch {
            return .failure(SQLITE_IOERR, "\(self.name): \(error)")
        }
        _ = switchToNewest(for: file)
        return .answer(Self.text(snapshot.updated))
    }

    /// `seconds.nanoseconds`, nine digits after the point.
    private static func text(_ time: FileTime) -> String {
        let fraction = String(time.nanoseconds)
        return "\(time.seconds).\(String(repeating: "0", count: max(0, 9 - fraction.count)))\(fraction)"
    }

    /// As SQLite reads one.
    private static func boolean(_ text: String) -> Bool? {
        switch text {
        case "1", "on", "yes", "true": true
        case "0", "off", "no", "false": false
        default: nil
        }
    }
}
