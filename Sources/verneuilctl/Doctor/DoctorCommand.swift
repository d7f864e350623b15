import ArgumentParser
import VerneuilCore
import VerneuilS3
import VerneuilStore
import VerneuilSystem

struct DoctorCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Checks that replication can work here: configuration, stores, permissions, directories.",
        discussion: """
            Says what it checked, what it found, and what to do. In each bucket or store directory it writes an object \
            \"verneuil-doctor\" and removes it again. Exit status 0: no problem was found. 1: there is one.

              verneuilctl --config /etc/verneuil.json doctor
              verneuilctl --config /etc/verneuil.json doctor --json /srv/app/app.db
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(help: ArgumentHelp("Databases to look at as well: journal mode, file system, permissions.", valueName: "database"))
    var databases: [String] = []

    @Flag(help: "Print a JSON object: outcome, and the checks.")
    var json = false

    func perform(_ context: Context) throws {
        let configuration = try context.configuration()
        var checks = ConfigurationDoctor.examine(configuration)
        checks += FileDoctor.examine(spoolOf: configuration)
        checks += FileDoctor.examine(temporaryDirectoryOf: configuration)
        let engine = try Engine(configuration)
        for store in engine.stores {
            switch store {
            case let s3 as S3Store: checks += S3Doctor(s3, configuration).examine()
            case let directory as DirectoryStore: checks += FileDoctor.examine(directory)
            default: break
            }
        }
        checks += FileDoctor.examine(cachesOf: configuration)
        for database in databases { checks += FileDoctor.examine(database: database) }

        let hasProblem = checks.contains { $0.outcome == .problem }
        if json {
            let outcome = hasProblem ? "problem" : checks.contains { $0.outcome == .unknown } ? "unknown" : "ok"
            try Terminal.print(
                JSON.object(["outcome": .string(outcome), "checks": .array(checks.map(\.json))]).text)
        } else {
            var subject = ""
            for check in checks {
                if check.subject != subject { try Terminal.print(check.subject) }
                subject = check.subject
                let mark = check.outcome == .ok ? "ok     " : check.outcome == .problem ? "PROBLEM" : "unknown"
                try Terminal.print("  \(mark)  \(check.check): \(check.found)")
                if let advice = check.advice { try Terminal.print("           \(advice)") }
            }
            let problems = checks.count { $0.outcome == .problem }
            try Terminal.print(problems == 0 ? "No problem found." : problems == 1 ? "1 problem." : "\(problems) problems.")
        }
        if hasProblem { throw ExitCode(1) }
    }
}

/// The configuration itself, and what identifies this machine.
enum ConfigurationDoctor {
    static func examine(_ configuration: Configuration) -> [DoctorCheck] {
        var chart = DoctorChart("configuration")
        for warning in configuration.warnings { chart.problem("keys", warning, advice: "Correct the configuration.") }
        if configuration.warnings.isEmpty { chart.ok("syntax and keys", "as they should be") }
        let stores = configuration.targets.count(where: \.isStore)
        if stores == 0, configuration.spoolingDirectory != nil {
            // The first of the warnings.
        } else if stores == 0 {
            chart.problem(
                "stores", "replication_targets has no \"s3\" and no \"directory\"",
                advice: "Add one: without, nothing is uploaded, and nothing can be read.")
        } else {
            chart.ok("stores", "\(stores)")
        }
        if configuration.spoolingDirectory == nil {
            chart.ok(
                "replication", "off: there is no replication_spooling_dir",
                advice: "Fine for a machine that only reads. Where databases are written, set it.")
        } else {
            chart.ok("replication", "on")
        }
        var host = DoctorChart("this machine")
        if Host.name() == Host.unknownName || Host.name().isEmpty {
            host.problem(
                "host name", "/etc/hostname can't be read, or is empty",
                advice: "Write a name that no other machine has to it: manifests are named after it.")
        } else {
            host.ok("host name", Host.name())
        }
        return chart.checks + host.checks
    }
}
