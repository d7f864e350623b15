import ArgumentParser
import VerneuilCore
import VerneuilSystem

struct SyncCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "sync",
        abstract: "Stores a full snapshot of a database now, and prints its manifest's name.",
        discussion: """
            The database may be in use; what is stored is one committed state. Chunks that are stored already are \
            not sent again where the spooling directory knows of them.

              verneuilctl --config /etc/verneuil.json sync /srv/app/app.db
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(help: ArgumentHelp("The database's path.", valueName: "source"))
    var source: String

    @Flag(help: "First give it pages of 64 KiB, the size of a chunk, and vacuum it: fewer and smaller uploads from then on.")
    var optimize = false

    @Flag(
        help: "Overwrite the manifest even if another machine with this host name has written it, which then stops: see status.")
    var takeOver = false

    func validate() throws { try Self.refuseEmpty(source, "<source>") }

    func perform(_ context: Context) throws {
        var configuration = try context.configurationWithStores()
        let path = try DatabaseFile.check(source)
        // Without a spooling directory of its own, one for this command alone.
        var scratch: String?
        defer { if let scratch { try? Files.removeTree(scratch) } }
        if configuration.spoolingDirectory == nil {
            if let temporary = configuration.temporaryDirectory, try Files.status(temporary)?.isDirectory != true {
                throw Failure("tempdir \(temporary) is no directory: make it, or correct the configuration")
            }
            let directory = Files.temporaryName(beside: "\(configuration.temporaryDirectory ?? "/var/tmp")/verneuil-sync")
            try Files.makeDirectories(directory)
            scratch = directory
            try configuration.setSpoolingDirectory(directory)
        }
        if optimize { try DatabaseOptimizer.run(path) }
        let engine = try Engine(configuration)
        guard let replicator = engine.replicator else { return }
        defer { engine.finishCaches() }
        if let reason = replicator.sync(path: path, takeOver: takeOver) { throw Failure("\(source) is not stored: \(reason)") }
        try Terminal.print(DatabaseName(host: nil, path: path).manifestName)
    }
}
