import ArgumentParser
import CVerneuil
import VerneuilCore
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

struct StatusCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "status",
        abstract: "Shows how far replication is, from the spooling directory alone.",
        discussion: """
            No process has to run, nothing is written and no store is asked. With a configuration, its targets are those that must \
            have everything; without, all that were ever written about since this machine started. docs/REPLICATION.md says what \
            each warning means.

            The exit status is 0 if all is well, 1 if a lag is above --max-lag or something has stopped, 2 for a wrong command line.

              verneuilctl status /var/spool/verneuil --max-lag 60
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(
        help: ArgumentHelp(
            "As replication_spooling_dir of the programs that write (default: as configured).", valueName: "spooling-dir"))
    var spoolingDirectory: String?

    @Flag(help: "As JSON.")
    var json = false

    @Flag(help: "Again every two seconds, until interrupted.")
    var watch = false

    @Option(help: ArgumentHelp("The most seconds that a commit may wait for the last target.", valueName: "seconds"))
    var maxLag = 120.0

    func validate() throws {
        try Self.refuseEmpty(spoolingDirectory, "<spooling-dir>")
        guard maxLag >= 0 else { throw ValidationError("--max-lag is a number of seconds, 0 or more.") }
    }

    func perform(_ context: Context) throws {
        let configuration = try context.configuration()
        guard let directory = spoolingDirectory ?? configuration.spoolingDirectory else {
            throw Failure("which spooling directory? Name it, or set replication_spooling_dir in VERNEUIL_CONFIG or --config")
        }
        let isConfigured = configuration.spoolingDirectory != nil || !configuration.targets.isEmpty
        let targets = isConfigured ? try Engine(configuration).stores.map { ReplicationTarget($0) } : nil
        let spool = SpoolDirectory(Files.canonical(directory) ?? directory)
        while true {
            let report = SpoolReport(spool, targets: targets)
            let text = json ? report.json.text : report.text(limit: maxLag)
            // A screen of its own for each look.
            try Terminal.print(watch && !json && Terminal.outputIsTerminal ? "\u{1B}[H\u{1B}[J" + text : text)
            guard watch else {
                if !report.isFine(limit: maxLag) { throw ExitCode(1) }
                return
            }
            usleep(2_000_000)
        }
    }
}

// MARK: - For people

extension SpoolReport {
    fileprivate func text(limit: Double) -> String {
        var lines = problems.map { "PROBLEM: \($0)" }
        if problems.isEmpty && databases.isEmpty { lines.append("\(directory): nothing is spooled") }
        for database in databases {
            lines.append(database.path)
            lines.append("  " + database.summary)
            lines += database.problems.map { "  PROBLEM: \($0)" }
            if let since = database.unspooledSince {
                lines.append("  NOT SPOOLED: the database was changed at \(moment(since)), and nobody has spooled that")
            }
            for target in database.targets {
                lines.append("  \(target.name)")
                lines += target.lines(limit: limit).map { "    \($0)" }
                lines += target.problems.map { "    PROBLEM: \($0)" }
            }
        }
        return lines.joined(separator: "\n")
    }
}

extension DatabaseReport {
    fileprivate var summary: String {
        let size = bytes.map { humanSize($0) } ?? "no file"
        let staged = stagedChunks.map { "\($0) chunks staged" } ?? "no whole snapshot staged"
        return "\(size), \(staged), \(transactions) commits since boot; spool \(humanSize(UInt64(max(0, spoolBytes)))) "
            + "of at most \(humanSize(UInt64(max(0, spoolBound))))"
    }

}

extension TargetReport {
    fileprivate func lines(limit: Double) -> [String] {
        var lines: [String] = []
        if let lag {
            lines.append(
                "\(lag > limit ? "LAGS" : "behind") by \(Int(lag)) s: \(pendingChunks) chunks (\(humanSize(pendingBytes))) and the manifest to upload"
            )
        } else {
            lines.append("has everything")
        }
        if let progress { lines.append("uploading: \(progress.done) of \(progress.total) chunks") }
        lines.append(
            "uploaded since boot: \(uploadedChunks) chunks, \(humanSize(UInt64(max(0, uploadedBytes)))); last success: \(lastSuccess == 0 ? "never" : moment(lastSuccess))"
        )
        if !error.isEmpty {
            lines.append("last error: \(moment(lastError))\(failures > 0 ? ", \(failures) failures since the last success" : ""): \(error)")
        }
        if isUnguarded { lines.append("note: this store can't tell two machines of one name apart") }
        return lines
    }
}

/// "2026-01-31T12:00:00.000Z"
private func moment(_ nanoseconds: UInt64) -> String {
    FileTime(seconds: Int64(nanoseconds / 1_000_000_000), nanoseconds: Int64(nanoseconds % 1_000_000_000)).rfc3339
}

/// "1.5 MiB"
private func humanSize(_ bytes: UInt64) -> String {
    var value = Double(bytes)
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024 { return unit == "B" ? "\(bytes) B" : "\((value * 10).rounded() / 10) \(unit)" }
        value /= 1024
    }
    return "\((value * 10).rounded() / 10) TiB"
}

// MARK: - For programs

extension SpoolReport {
    fileprivate var json: JSON {
        .object([
            "spooling_directory": .string(directory), "lag_seconds": .seconds(lag), "problems": .array(problems.map { .string($0) }),
            "databases": .array(databases.map(\.json)),
        ])
    }
}

extension DatabaseReport {
    fileprivate var json: JSON {
        .object([
            "path": .string(path), "bytes": .optional(bytes), "lag_seconds": lag.map { .seconds($0) } ?? .number(0),
            "transactions": .number(transactions), "unspooled_since": unspooledSince.map { .string(moment($0)) } ?? .null,
            "staged": .object(["chunks": .optional(stagedChunks), "bytes": .optional(stagedBytes)]),
            "spool": .object(["bytes": .number(spoolBytes), "bound": .number(spoolBound)]),
            "problems": .array(problems.map { .string($0) }), "targets": .array(targets.map(\.json)),
        ])
    }
}

extension TargetReport {
    fileprivate var json: JSON {
        .object([
            "identifier": .string(identifier), "name": .string(name), "lag_seconds": lag.map { .seconds($0) } ?? .number(0),
            "pending": .object(["chunks": .number(pendingChunks), "bytes": .number(pendingBytes)]),
            "uploaded": .object(["chunks": .number(uploadedChunks), "bytes": .number(uploadedBytes)]),
            "progress": progress.map { .object(["done": .number($0.done), "total": .number($0.total)]) } ?? .null,
            "last_success": lastSuccess == 0 ? .null : .string(moment(lastSuccess)),
            "last_error": error.isEmpty ? .null : .object(["time": .string(moment(lastError)), "reason": .string(error)]),
            "failures": .number(failures), "unguarded": .bool(isUnguarded), "problems": .array(problems.map { .string($0) }),
        ])
    }
}

extension JSON {
    /// With milliseconds.
    fileprivate static func seconds(_ value: Double) -> JSON {
        let milliseconds = Int64((value * 1000).rounded())
        let rest = String(milliseconds % 1000)
        return JSON(.number("\(milliseconds / 1000).\(String(repeating: "0", count: 3 - rest.count))\(rest)"))
    }
    fileprivate static func optional<T: BinaryInteger>(_ value: T?) -> JSON { value.map { .number($0) } ?? .null }
}
