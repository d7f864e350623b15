import CVerneuil
import VerneuilFormat
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem
import VerneuilVFS

/// The engines of connections whose file names have settings of their own
/// (Configuration+Connection.swift). Connections with equal settings share one; it
/// stays as long as the process does, like the process's own.
///
/// Safe from any thread.
final class ConnectionEngines: @unchecked Sendable {
    /// A forked child has its own: the parent's lock may be held by a thread that the child hasn't got.
    private static let processLocal = ProcessLocal<ConnectionEngines>()
    static var shared: ConnectionEngines { processLocal.value { ConnectionEngines() } }

    /// Each has a copier's and a builder's thread once it has something to do.
    static let most = 256

    private let lock = Lock()
    private var engines: [Configuration: Engine] = [:]
    /// Who replicates a database that was opened with settings of its own, last.
    private var byPath: [String: Engine] = [:]

    func answer(
        to parameters: ConnectionParameters, for purpose: ConnectionSettings.Purpose, path: String
    ) -> Result<ConnectionSettings.Answer, ConnectionRefusal> {
        Result { () throws(ConnectionRefusal) in
            let engine: Engine
            do throws(ConfigurationError) { engine = try self.engine(parameters, purpose) } catch {
                throw ConnectionRefusal(error.description)
            }
            if purpose == .replication { lock.withLock { byPath[path] = engine } }
            return ConnectionSettings.Answer(replicator: engine.replicator, replicas: engine.registry)
        }
    }

    func engine(
        _ parameters: ConnectionParameters, _ purpose: ConnectionSettings.Purpose
    ) throws(ConfigurationError) -> Engine {
        let process = Engine.current
        let wanted = try (process?.configuration ?? Configuration()).changed(by: parameters, for: purpose)
        if let process, wanted == process.configuration { return process }
        return try lock.withLock { () throws(ConfigurationError) in
            if let known = engines[wanted] { return known }
            try checkSpool(wanted, others: engines.values.map(\.configuration) + [process?.configuration].compactMap { $0 })
            if engines.count >= Self.most {
                throw ConfigurationError(
                    source: "file name", reason: "this process has connections with \(Self.most) different settings already; let databases share them")
            }
            let made = try Engine(wanted)
            engines[wanted] = made
            return made
        }
    }

    /// Everything in a spooling directory goes to the same targets, whoever spooled it (SPOOL.md).
    private func checkSpool(_ wanted: Configuration, others: [Configuration]) throws(ConfigurationError) {
        guard let directory = wanted.spoolingDirectory else { return }
        let place = Files.canonical(directory) ?? directory
        for other in others {
            guard let theirs = other.spoolingDirectory, Files.canonical(theirs) ?? theirs == place,
                Set(other.targets.filter(\.isStore)) != Set(wanted.targets.filter(\.isStore))
            else { continue }
            throw ConfigurationError(
                source: "file name", key: ConnectionParameters.target,
                reason: "the spooling directory \(directory) is in use for other targets in this process; "
                    + "give this database its own with \(ConnectionParameters.spoolingDirectory)")
        }
    }

    func engine(forPath path: String) -> Engine? { lock.withLock { byPath[path] } }

    var all: [Engine] { lock.withLock { Array(engines.values) } }
}

extension Engine {
    /// The process's own, and those that connections named.
    public static var all: [Engine] { [current].compactMap { $0 } + ConnectionEngines.shared.all }

    /// Who replicates an open database, by its file name as SQLite has it
    /// (`sqlite3_db_filename`): with its parameters behind it. nil: nobody.
    /// - Throws: where the parameters can't be used: no connection through the `verneuil` VFS has such a name.
    public static func responsible(forFileName filename: UnsafePointer<CChar>) throws(ConfigurationError) -> Engine? {
        guard let parameters = ConnectionParameters(filename) else { return current }
        return try ConnectionEngines.shared.engine(parameters, .replication)
    }

    /// Who may have something spooled of the database at a canonical path: the
    /// engine that a connection of this process named, and the process's own.
    public static func responsible(forPath path: String, device: UInt64, inode: UInt64) -> [Engine] {
        let named = ConnectionEngines.shared.engine(forPath: path)
        guard let current, current !== named, let replicator = current.replicator else { return named.map { [$0] } ?? [] }
        guard let named else { return [current] }
        let database = SpoolDatabase(replicator.spool, path: path, device: device, inode: inode)
        let isSpooled = ((try? database.control()) ?? nil) != nil
        return isSpooled ? [named, current] : [named]
    }
}
