import CVerneuil
import VerneuilCore
import VerneuilStore
import VerneuilSystem

/// Directories and files: what replication needs of them.
enum FileDoctor {
    // MARK: The spool

    static func examine(spoolOf configuration: Configuration) -> [DoctorCheck] {
        guard let root = configuration.spoolingDirectory else { return [] }
        var chart = DoctorChart("spooling directory \(root)")
        let wanted = configuration.spoolingDirectoryPermissions
        guard examineDirectory(root, &chart, willBeMade: "with the first commit") else { return chart.checks }
        if let status = try? Files.status(root) {
            let mode = status.mode & 0o7777
            if mode & ~wanted & 0o077 != 0 {
                chart.problem(
                    "permissions", "0\(String(mode, radix: 8)), more than the configured 0\(String(wanted, radix: 8))",
                    advice: "chmod 0\(String(wanted, radix: 8)) \(root): it holds copies of the databases' content.")
            } else {
                chart.ok("permissions", "0\(String(mode, radix: 8))")
            }
        }
        boots(root, &chart)
        fileSystem(root, &chart, isSpool: true)
        attributes(root, &chart)
        return chart.checks
    }

    /// What is spooled goes by the boot; another boot's is of no use.
    private static func boots(_ root: String, _ chart: inout DoctorChart) {
        let id = Host.bootID()
        if id == "unknown-boot" {
            return chart.problem(
                "boot id", "the kernel gives none",
                advice: "Mount /proc: without, what a crash has torn can't be told from what is whole.")
        }
        let others = ((try? Files.list(root)) ?? []).filter { $0.hasPrefix("verneuil-") }
        chart.ok(
            "boot id", others.isEmpty ? "known; nothing is spooled yet" : "known; \(others.count == 1 ? "one directory" : "\(others.count) directories, of which those of earlier boots are removed with the next use")")
    }

    // MARK: Other directories

    static func examine(temporaryDirectoryOf configuration: Configuration) -> [DoctorCheck] {
        guard let path = configuration.temporaryDirectory else { return [] }
        var chart = DoctorChart("temporary directory \(path)")
        if (try? Files.status(path)) ?? nil == nil {
            chart.problem("existence", "there is no such directory", advice: "Make it, or take \"tempdir\" out of the configuration.")
        } else if examineDirectory(path, &chart, willBeMade: "") {
            fileSystem(path, &chart, isSpool: false)
        }
        return chart.checks
    }

    static func examine(cachesOf configuration: Configuration) -> [DoctorCheck] {
        var checks: [DoctorCheck] = []
        for target in configuration.targets {
            switch target {
            case .local(let cache):
                var chart = DoctorChart("cache \(cache.directory)")
                _ = examineDirectory(cache.directory, &chart, willBeMade: "with its first chunk")
                checks += chart.checks
            case .readOnly(let cache):
                var chart = DoctorChart("cache \(cache.directory)")
                if vrn_access(cache.directory, R_OK | X_OK) == 0 {
                    chart.ok("reading", "possible")
                } else {
                    chart.problem("reading", "not possible, or it is not there", advice: "Make it readable, or take it out of the configuration.")
                }
                checks += chart.checks
            case .s3, .directory: break
            }
        }
        return checks
    }

    static func examine(_ store: DirectoryStore) -> [DoctorCheck] {
        var chart = DoctorChart(store.name)
        if let obstacle = (try? store.obstacle()) ?? nil {
            chart.problem("existence", obstacle, advice: "Mount the disk, or make \(store.path).")
            return chart.checks
        }
        guard examineDirectory(store.path, &chart, willBeMade: "with the first upload") else { return chart.checks }
        fileSystem(store.path, &chart, isSpool: false)
        for space in ObjectSpace.allCases {
            let directory = "\(store.path)/\(space.rawValue)"
            guard let status = try? Files.status(directory) else {
                chart.ok("\(space.rawValue)", "not there yet; made with the first upload")
                continue
            }
            guard status.isDirectory else {
                chart.problem("\(space.rawValue)", "is no directory", advice: "Move \(directory) out of the way.")
                continue
            }
            do throws(StoreError) {
                let body = Array("verneuilctl doctor was here; this file can be deleted.\n".utf8)
                try store.put(PutRequest(space, S3Doctor.probe, body))
                guard case .found(body, _) = try store.get(GetRequest(space, S3Doctor.probe, limit: 1 << 16)) else {
                    chart.problem("\(space.rawValue)", "what was written does not come back", advice: "Check the disk.")
                    continue
                }
                try? Files.remove("\(directory)/\(S3Doctor.probe)")
                chart.ok("\(space.rawValue): write, read, remove", "works")
            } catch {
                try? Files.remove("\(directory)/\(S3Doctor.probe)")
                chart.problem("\(space.rawValue): write", error.reason, advice: "Let this user write to \(directory).")
            }
        }
        return chart.checks
    }

    // MARK: Databases

    static func examine(database path: String) -> [DoctorCheck] {
        var chart = DoctorChart("database \(path)")
        guard let status = try? Files.status(path) else {
            chart.problem("existence", "there is no such file, or it can't be looked at", advice: "Check the path.")
            return chart.checks
        }
        guard status.isRegularFile else {
            chart.problem("existence", "is no file", advice: "Check the path.")
            return chart.checks
        }
        if vrn_access(path, R_OK | W_OK) == 0 {
            chart.ok("access", "readable and writable")
        } else {
            chart.problem("access", "this user can't read and write it", advice: "Run doctor as the user of the application, or give it access.")
        }
        let header = (try? Files.read(path, prefix: 100)) ?? []
        if header.isEmpty {
            chart.ok("journal mode", "the file is empty yet")
        } else if !header.starts(with: "SQLite format 3\0".utf8) {
            chart.problem("format", "is no SQLite database", advice: "Check the path.")
        } else if header.count >= 20, header[18] == 2 || header[19] == 2 {
            chart.problem(
                "journal mode", "WAL, which can't be replicated: it won't open with the verneuil VFS",
                advice: "sqlite3 \(path) 'PRAGMA journal_mode=DELETE'")
        } else {
            chart.ok("journal mode", "a rollback journal")
            let pageSize = header.count >= 18 ? Int(header[16]) << 8 | Int(header[17]) : 0
            chart.ok("page size", pageSize == 1 ? "65536" : "\(pageSize)")
        }
        let directory = Files.directory(of: Files.canonical(path) ?? path)
        fileSystem(directory, &chart, isSpool: false, isDatabase: true)
        attributes(directory, &chart)
        return chart.checks
    }

    // MARK: Parts

    /// false where it isn't there, or is of no use.
    private static func examineDirectory(_ path: String, _ chart: inout DoctorChart, willBeMade when: String) -> Bool {
        guard let status = (try? Files.status(path)) ?? nil else {
            var parent = Files.directory(of: path)
            while (try? Files.status(parent)) ?? nil == nil, parent != "/", parent != "." { parent = Files.directory(of: parent) }
            if (try? Files.status(parent))??.isDirectory == true, vrn_access(parent, W_OK | X_OK) == 0 {
                chart.ok("existence", "not there yet; made \(when)")
            } else {
                chart.problem(
                    "existence", "not there, and this user can't make it in \(parent)",
                    advice: "Make it, and let the users of the applications write to it.")
            }
            return false
        }
        guard status.isDirectory else {
            chart.problem("existence", "is no directory", advice: "Move it out of the way, or configure another.")
            return false
        }
        let probe = Files.temporaryName(beside: "\(path)/doctor")
        defer { try? Files.remove(probe) }
        do throws(SystemError) {
            let file = try Descriptor(probe, O_WRONLY | O_CREAT | O_EXCL)
            try file.write([1], at: 0)
            try file.close()
            chart.ok("writing", "works")
            return true
        } catch {
            let isFull = error.code == ENOSPC || error.code == EDQUOT
            chart.problem("writing", "\(error)", advice: isFull ? "Free some space there, or configure another directory." : "Let this user write to it: chown, or chmod.")
            return false
        }
    }

    private static func fileSystem(_ path: String, _ chart: inout DoctorChart, isSpool: Bool, isDatabase: Bool = false) {
        let type = FileSystemType(of: path)
        let name = type?.name ?? "of a kind that is not known"
        if let type, type.isRemote, isSpool || isDatabase {
            chart.problem(
                "file system", name,
                advice: isSpool
                    ? "Put the spooling directory on a local disk: its locks and renames must be exact, and it is written at each commit."
                    : "Put the database on a local disk: SQLite's locks can't be trusted there.")
        } else if let type, type.isMemory, isSpool {
            chart.ok("file system", name, advice: "It takes up to 4 times the databases' size of memory.")
        } else {
            chart.ok("file system", name)
        }
        guard let space = type?.freeBytes else { return }
        if space < 64 << 20 {
            chart.problem("free space", "\(space >> 20) MiB", advice: "Make room: up to 4 times the databases' size may be spooled.")
        } else {
            chart.ok("free space", "\(space >> 20) MiB")
        }
    }

    private static func attributes(_ directory: String, _ chart: inout DoctorChart) {
        let probe = Files.temporaryName(beside: "\(directory)/doctor")
        defer { try? Files.remove(probe) }
        do throws(SystemError) {
            let file = try Descriptor(probe, O_WRONLY | O_CREAT | O_EXCL)
            let code = [UInt8](repeating: 0x30, count: 36).withUnsafeBytes {
                vrn_fsetxattr(file.fd, "user.verneuil.version_id", $0.baseAddress, $0.count)
            }
            if code == 0 {
                chart.ok("extended attributes", "work")
            } else {
                chart.unknown(
                    "extended attributes", "don't work here (\(String(cString: strerror(-code))))",
                    advice: "Databases on this file system get a full snapshot wherever SQLite's change counter doesn't prove what happened.")
            }
        } catch {
            chart.unknown("extended attributes", "\(error)")
        }
    }
}
