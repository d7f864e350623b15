import ArgumentParser
import VerneuilCore
import VerneuilSystem

struct FlushCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Uploads everything that is spooled.",
        discussion: """
            Succeeds when everything that was committed before is stored on every target. Databases may be in use meanwhile.

              verneuilctl --config /etc/verneuil.json flush /var/spool/verneuil
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(help: ArgumentHelp("As replication_spooling_dir of the programs that write.", valueName: "spooling-dir"))
    var spoolingDirectory: String

    func perform(_ context: Context) throws {
        var configuration = try context.configurationWithStores()
        if try Files.status(spoolingDirectory)?.isDirectory != true {
            throw Failure("\(spoolingDirectory) is no directory: give the replication_spooling_dir of the programs that write")
        }
        try configuration.setSpoolingDirectory(spoolingDirectory)
        guard let replicator = try Engine(configuration).replicator else { return }
        let failed = replicator.flushAll()
        guard failed.isEmpty else {
            for failure in failed { Terminal.complain("\(failure.path): \(failure.reason)") }
            throw Failure("not everything in \(spoolingDirectory) is stored; what is left will be tried again by the next flush")
        }
    }
}
