import ArgumentParser
import CVerneuil
import Verneuil
import VerneuilCore
import VerneuilReplica
import VerneuilSystem

struct RestoreCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Writes a replicated database to a file, or to standard output.",
        discussion: """
            Every byte is verified, and the file takes its name when it is whole and on disk. An interrupted restore \
            leaves FILE.partial, which the next one goes on from. A database or an empty file that stands at FILE is replaced \
            unless it is seen to be in use, anything else only with --force.

            To restore over a database, stop the application first: a program that has it open without a transaction is not \
            seen, and goes on writing to the file that was replaced.

              verneuilctl restore --hostname db1.example.com --source-path /srv/app/app.db --out /srv/app/restored.db
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions
    @OptionGroup var replica: ReplicaOptions

    @Option(name: .shortAndLong, help: ArgumentHelp("The file to write (default: standard output).", valueName: "file"))
    var out: String?

    @Option(help: ArgumentHelp("An older copy of the database: what is in there is not fetched.", valueName: "file"))
    var base: String?

    @Flag(help: "Replace a database that is in use, or that has a journal beside it, or a file that is no database.")
    var force = false

    @Flag(inversion: .prefixedNo, help: "Read the finished file again before it takes its name.")
    var verify = true

    @Flag(help: "Have SQLite check the database before it takes its name (PRAGMA integrity_check).")
    var integrityCheck = false

    @Flag(help: "Print a JSON object: length, and where its bytes came from.")
    var json = false

    func validate() throws {
        try Self.refuseEmpty(out, "--out")
        try Self.refuseEmpty(base, "--base")
        if out == nil, base != nil || force || json || integrityCheck {
            throw ValidationError("--base, --force, --integrity-check and --json go with --out.")
        }
    }

    func perform(_ context: Context) throws {
        let engine = try Engine(try context.configuration())
        if out == nil, Terminal.outputIsTerminal {
            throw Failure("a database is binary: send it to a file with --out, or to a pipe")
        }
        if let base, try Files.status(base)?.isRegularFile != true {
            throw Failure("--base \(base): there is no such file; leave the option away, or give an older copy of the database")
        }
        let restore = try engine.restore(try replica.reference())
        let bar = ProgressBar("restoring")
        guard let out else {
            _ = try restore.stream(progress: bar.show) { piece throws(ReplicaError) in
                do throws(SystemError) { try Terminal.write(piece) } catch { throw .system(error) }
            }
            return bar.finish()
        }
        var options = Restore.Options()
        options.base = base
        options.force = force
        options.verify = verify
        options.progress = bar.show
        if integrityCheck { options.inspect = IntegrityCheck.inspect }
        let report: Restore.Report
        do {
            report = try restore.write(to: out, options: options)
        } catch {
            bar.finish()
            throw error
        }
        bar.finish()
        if json { try Terminal.print(describe(report).text) }
    }

    private func describe(_ report: Restore.Report) -> JSON {
        .object([
            "length": .number(report.length), "fetched": .number(report.fetched), "bundled": .number(report.bundled),
            "from_base": .number(report.fromBase), "resumed": .number(report.resumed), "zero": .number(report.zero),
        ])
    }
}
