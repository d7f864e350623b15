import CVerneuil
import VerneuilSpool
import VerneuilSystem

/// What a spool takes on disk, and what stands in it that shouldn't.
enum SpoolUse {
    /// Beyond four times the database (P4), for each database: the control page, lists, the last manifest, and that the
    /// last chunk's places take whole pages.
    static let constant: Int64 = 256 << 10

    /// Bytes that everything below `path` takes; a file with several names counts once.
    static func allocated(_ path: String) -> Int64 {
        var seen: Set<UInt64> = []
        func total(_ path: String) -> Int64 {
            guard let status = (try? Files.status(path, followLinks: false)) ?? nil else { return 0 }
            if !status.isDirectory { return seen.insert(status.inode).inserted ? status.allocated : 0 }
            return ((try? Files.list(path)) ?? []).reduce(0) { $0 + total("\(path)/\($1)") }
        }
        return total(path)
    }

    /// Throws where the spool is larger than it may be for databases of `bytes` together.
    static func check(_ arena: Arena, databases: Int = 1, bytes: Int64) throws {
        let used = allocated(arena.spool.root)
        let bound = 4 * bytes + Int64(databases) * constant
        if used > bound {
            throw Finding("P4: the spool takes \(used) bytes, more than \(bound), for \(bytes) bytes of databases:\n\(listing(arena))")
        }
    }

    /// Everything there is, by name and size.
    static func listing(_ arena: Arena) -> String {
        var lines: [String] = []
        func list(_ path: String) {
            guard let status = (try? Files.status(path, followLinks: false)) ?? nil else { return }
            if !status.isDirectory { lines.append("\(status.allocated)\t\(path.dropFirst(arena.spool.root.count))") }
            for name in ((try? Files.list(path)) ?? []).sorted() where status.isDirectory { list("\(path)/\(name)") }
        }
        list(arena.spool.root)
        return lines.joined(separator: "\n")
    }

    /// What nobody needs when all is stored and nobody is at work: temporary files, and epochs to which nobody can come
    /// back. (The one that a builder has begun stands beside the one before it until a transaction enters it.)
    static func debris(_ arena: Arena) throws -> [String] {
        var found: [String] = []
        for database in try arena.spool.databases() {
            guard let records = try database.control() else { continue }
            var needed = [records.producer.staged.epoch]
            if records.hasProposal { needed.append(records.builder.epoch) }
            for name in try Files.list(database.directory) where name.hasPrefix("epoch.") {
                if !needed.contains(where: { name == "epoch.\($0)" }) { found.append("\(database.directory)/\(name)") }
            }
        }
        func walk(_ path: String) throws {
            for name in try Files.list(path) {
                if name.hasPrefix(".") || name.hasSuffix(".new") || name == "base.progress" { found.append("\(path)/\(name)") }
                if let status = try Files.status("\(path)/\(name)", followLinks: false), status.isDirectory {
                    try walk("\(path)/\(name)")
                }
            }
        }
        try walk(arena.spool.root)
        return found
    }
}
