import ArgumentParser
import VerneuilCore
import VerneuilSystem

struct FlushCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Uploads everything that is spooled.",
        discussion: """
            Succeeds when everything that was committed before is stored on every target. Databases may be in use meanwhile. One \
            that can't be stored keeps no other from it: each such one is named, with the reason, and the exit status is 1 until the \
            database is repaired, or its file is removed; its spool is then discarded.

            With --watch it goes on until it is told to stop (SIGTERM, SIGINT, SIGHUP), as a service for applications that \
            only run for a moment; it then uploads what is left, for at most --stop-timeout seconds. What is left after that stays \
            spooled; a warning says so, and the exit status is 0.

              verneuilctl --config /etc/verneuil.json flush /var/spool/verneuil
              verneuilctl --config /etc/verneuil.json flush --watch /var/spool/verneuil
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(help: ArgumentHelp("As replication_spooling_dir of the programs that write.", valueName: "spooling-dir"))
    var spoolingDirectory: String

    @Flag(help: "Keep the directory uploaded, until SIGTERM, SIGINT or SIGHUP.")
    var watch = false

    @Option(help: ArgumentHelp("With --watch: seconds between two looks at the directory (default: 1).", valueName: "seconds"))
    var interval: Double?

    @Option(help: ArgumentHelp("With --watch: seconds that the last upload may take (default: 20).", valueName: "seconds"))
    var stopTimeout: Double?

    func validate() throws {
        try Self.refuseEmpty(spoolingDirectory, "<spooling-dir>")
        if !watch, interval != nil || stopTimeout != nil {
            throw ValidationError("--interval and --stop-timeout go with --watch.")
        }
        guard (0.05...3600).contains(interval ?? 1) else { throw ValidationError("--interval is 0.05 to 3600 seconds.") }
        guard (0...86_400).contains(stopTimeout ?? 20) else { throw ValidationError("--stop-timeout is 0 to 86400 seconds.") }
    }

    func perform(_ context: Context) throws {
        var configuration = try context.configurationWithStores()
        let status = try Files.status(spoolingDirectory)
        // A service may be there before the first program that writes.
        if status?.isDirectory != true, status != nil || !watch {
            throw Failure("\(spoolingDirectory) is no directory: give the replication_spooling_dir of the programs that write")
        }
        try configuration.setSpoolingDirectory(spoolingDirectory)
        // Before the engine: it blocks signals for the threads that come.
        let watcher = watch ? SpoolWatcher(interval: interval ?? 1, stopTimeout: stopTimeout ?? 20) : nil
        let engine = try Engine(configuration)
        guard let replicator = engine.replicator else { return }
        defer { engine.finishCaches() }
        if let watcher { return try watcher.run(replicator) }
        let failed = replicator.flushAll()
        guard failed.isEmpty else {
            for failure in failed { Terminal.complain("\(failure.path): \(failure.reason)") }
            throw Failure("not everything in \(spoolingDirectory) is stored; what is left will be tried again by the next flush")
        }
    }
}
