import CSQLite
import CVerneuil
import VerneuilReplica
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Compares what should be equal.
struct Judge {
    let arena: Arena
    let stores: [DirectoryStore]
    var figures: Figures
    private var replicas: [String: Connection] = [:]

    init(arena: Arena, stores: [DirectoryStore], figures: Figures) {
        self.arena = arena
        self.stores = stores
        self.figures = figures
    }

    /// Database = staged. (Where other processes write as well, `ReplicationOptions.isParanoid` does it, inside the
    /// commit; here there is nothing to be learned then.)
    mutating func audit(_ path: String, after commit: Int) throws {
        switch try SpoolBuilder(arena.spooled(path)).audit(samples: nil, random: { _ in 0 }) {
        case .sound: figures.note("audits", 1)
        case .unsettled: figures.note("unsettled", 1)
        case .wrong(let index):
            throw Finding("chunk \(index) of \(path) is not staged as it is in the database, after commit \(commit)")
        }
    }

    /// Database = stored on every target = what a replica reads. Nobody can write meanwhile.
    mutating func compare(_ path: String, keepsReplica: Bool) throws {
        guard let connection = try Judge.startReading(path) else {
            figures.note("skipped", 1)
            return
        }
        let answer = try connection.value("PRAGMA verneuil_flush_replication_data")
        guard answer == "1" else { throw Finding("flush of \(path) answered \(answer)") }
        figures.note("flushes", 1)
        guard let file = try Files.read(path) else { throw Finding("\(path) is gone") }
        let name = arena.manifestName(path)
        for store in stores {
            guard let image = try StoredImage.read(store, name) else {
                throw Finding("\(path) was flushed, but \(store.name) has no manifest")
            }
            if let difference = difference(image.bytes, file) {
                throw Finding("\(store.name) against \(path): \(difference)")
            }
            figures.note("restores", 1)
        }
        let replica: Connection
        if let kept = replicas[path] {
            replica = kept
            try replica.rows("PRAGMA verneuil_snapshot_refresh(2)")
        } else {
            replica = try Connection("file:verneuil://\(path)", vfs: "verneuil_snapshot")
        }
        try replica.rows("BEGIN; SELECT count(*) FROM sqlite_schema")
        var read = try replica.fileBytes()
        replica.rollBack()
        if replicas[path] != nil && read.count >= 44 && file.count >= 44 {
            // The schema cookie: a connection that moved to another database's content is shown a higher one (SnapshotHeader.swift).
            read.replaceSubrange(40..<44, with: file[40..<44])
        }
        if let difference = difference(read, file) { throw Finding("the replica against \(path): \(difference)") }
        figures.note("replicas", 1)
        replicas[path] = keepsReplica ? replica : nil
        connection.rollBack()
    }

    /// A connection in a read transaction; nil where a writer keeps everybody out.
    private static func startReading(_ path: String) throws -> Connection? {
        do throws(SQLiteError) {
            let connection = try Connection(path, vfs: "verneuil")
            connection.waitForLocks(milliseconds: 100)
            try connection.rows("BEGIN; SELECT count(*) FROM sqlite_schema")
            return connection
        } catch {
            if error.primary == SQLITE_BUSY { return nil }
            throw error
        }
    }
}
