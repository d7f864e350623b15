import ArgumentParser
import VerneuilCore

struct ManifestNameCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "manifest-name",
        abstract: "Prints the name of the object that holds a database's manifest.",
        discussion: """
            Where the file exists here, relative paths and symbolic links are resolved as the writer does.

              verneuilctl manifest-name --hostname db1.example.com /srv/app/app.db
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(help: ArgumentHelp("The database's path.", valueName: "source"))
    var source: String

    @Option(help: ArgumentHelp("The machine that replicates it (default: this one).", valueName: "host"))
    var hostname: String?

    @Flag(help: "Print a JSON object: host, path, manifest_name.")
    var json = false

    func validate() throws {
        try Self.refuseEmpty(source, "<source>")
        try Self.refuseEmpty(hostname, "--hostname")
    }

    func perform(_ context: Context) throws {
        // Nothing of it is needed here, but whoever scripts this hears of a bad one with the first command (docs/CONFIGURATION.md).
        _ = try context.configuration()
        let name = DatabaseName(host: hostname, path: source)
        try Terminal.print(
            json
                ? JSON.object([
                    "host": .string(name.host), "path": .string(name.path), "manifest_name": .string(name.manifestName),
                ]).text
                : name.manifestName)
    }
}
