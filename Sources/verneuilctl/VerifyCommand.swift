import ArgumentParser
import Verneuil
import VerneuilCore
import VerneuilReplica
import VerneuilStore
import VerneuilSystem
import VerneuilVerify

struct VerifyCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Finds out whether what is stored is good.",
        discussion: """
            Looks at each store of the configuration by itself. Without options, that the manifest is whole and that every \
            chunk is there. Exit status 0: all is good. 1: something is bad; it says which object, what is expected and what \
            was found. 3: nothing bad was seen, but it can't be told (no answer, no permission; with --all also: a store has no \
            database, or lacks one that another store has).

              verneuilctl verify --source-path /srv/app/app.db
              verneuilctl verify --all --deep
              verneuilctl verify --source-path app.db --against app.db --integrity-check
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions
    @OptionGroup(visibility: .default) var replica: OptionalReplicaOptions

    @Flag(help: "Verify every database of the manifest buckets.")
    var all = false

    @Flag(help: "Fetch every chunk and check its fingerprint.")
    var deep = false

    @Option(help: ArgumentHelp("Compare with the live database; it may be in use.", valueName: "file"))
    var against: String?

    @Flag(help: "Restore to a temporary file, and have SQLite check that.")
    var integrityCheck = false

    @Flag(help: "Print a JSON object: outcome, and for each database and store what was found.")
    var json = false

    func validate() throws {
        if all, replica.isGiven { throw ValidationError("--all takes no single database.") }
        if !all { try replica.check() }
        if all, against != nil || integrityCheck {
            throw ValidationError("--against and --integrity-check go with one database, not with --all.")
        }
    }

    func perform(_ context: Context) throws {
        let signals = integrityCheck ? StopSignals() : nil
        let engine = try Engine(try context.configurationWithStores())
        let bar = ProgressBar("verifying", unit: deep ? .bytes : .objects)
        var options = VerificationOptions()
        options.deep = deep
        options.against = against
        options.progress = { done, total in bar.show(done, of: total) }
        if let spool = engine.replicator?.spool { options.lastUploaded = { spool.tap($0) } }

        var results: [Verification] = []
        var failures: [(store: String, finding: Verification.Finding)] = []
        for store in engine.stores {
            let verifier = Verifier(store)
            if all {
                let before = results.count
                let failure = verifier.verifyAll(options: options) { results.append($0) }
                if let failure {
                    failures.append((store.name, failure))
                } else if results.count == before {
                    failures.append(
                        (store.name, .init(.unknown, "list of manifests", expected: "a database", found: "none: it is lost, or was never stored here")))
                }
            } else {
                results.append(try verify(verifier, engine, options, signals))
            }
        }
        bar.finish()
        if all { results += missing(results, in: engine.stores.map(\.name).filter { store in !failures.contains { $0.store == store } }) }

        let outcome = max(
            results.map(\.outcome).max() ?? .good, failures.map(\.finding.outcome).max() ?? .good)
        if json {
            try Terminal.print(describe(outcome, results, failures).text)
        } else {
            for result in results { try show(result) }
            for failure in failures { try Terminal.print("can't tell  \(failure.store)\n  \(failure.finding)") }
        }
        switch outcome {
        case .good: return
        case .bad: throw ExitCode(1)
        case .unknown: throw ExitCode(3)
        }
    }

    /// What one store has and another lacks.
    private func missing(_ results: [Verification], in stores: [String]) -> [Verification] {
        var holders: [String: Set<String>] = [:]
        for result in results { holders[result.name, default: []].insert(result.store) }
        return holders.sorted { $0.key < $1.key }.flatMap { name, holders in
            stores.filter { !holders.contains($0) }.map { store in
                var verification = Verification(name: name, store: store)
                verification.add(
                    .init(
                        .unknown, "manifest \(name)", expected: "to be here as it is in \(holders.sorted().joined(separator: ", "))",
                        found: "no such object: it is lost, or was never stored here"))
                return verification
            }
        }
    }

    private func verify(
        _ verifier: Verifier, _ engine: Engine, _ options: VerificationOptions, _ signals: StopSignals?
    ) throws -> Verification {
        let reference = try replica.reference()
        var result: Verification
        switch reference {
        case .stored(let database): result = verifier.verify(name: database.manifestName, options: options)
        case .file, .url, .object:
            result = verifier.verify(
                manifest: try engine.manifest(reference), named: reference.description, options: options)
        }
        if let signals, result.outcome == .good {
            let restore = try engine.restore(reference, from: verifier.store)
            if let finding = try IntegrityCheck.run(restore, directory: engine.configuration.temporaryDirectory, signals) {
                result.add(finding)
            }
        }
        return result
    }

    // MARK: output

    private func show(_ result: Verification) throws {
        let word = result.outcome == .good ? "good" : result.outcome == .bad ? "bad" : "can't tell"
        let size = result.length.map { result.objects == 0 ? ", \($0) bytes, all in the manifest" : ", \($0) bytes in \(result.objects) chunks" } ?? ""
        try Terminal.print("\(word)  \(ReadableName.of(result.name)) in \(result.store)\(size)")
        for finding in result.findings { try Terminal.print("  \(finding)") }
        let more = result.findingCount - result.findings.count
        if more > 0 { try Terminal.print("  and \(more) more") }
    }

    private func describe(
        _ outcome: Verification.Outcome, _ results: [Verification],
        _ failures: [(store: String, finding: Verification.Finding)]
    ) -> JSON {
        .object([
            "outcome": .string(outcome.rawValue),
            "databases": .array(
                results.map { result in
                    .object([
                        "name": .string(ReadableName.of(result.name)),
                        "manifest": .string(result.name),
                        "store": .string(result.store),
                        "outcome": .string(result.outcome.rawValue),
                        "length": result.length.map { .number($0) } ?? .null,
                        "ctime": .number(result.ctime),
                        "chunks": .number(result.objects),
                        "finding_count": .number(result.findingCount),
                        "findings": .array(result.findings.map(describe)),
                    ])
                }),
            "failures": .array(
                failures.map { .object(["store": .string($0.store), "finding": describe($0.finding)]) }),
        ])
    }

    private func describe(_ finding: Verification.Finding) -> JSON {
        .object([
            "outcome": .string(finding.outcome.rawValue), "object": .string(finding.object),
            "expected": .string(finding.expected), "found": .string(finding.found),
        ])
    }
}
