import ArgumentParser
import Logging
import Verneuil
import VerneuilCore

struct Verneuilctl: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verneuilctl",
        abstract: "Restores, inspects and uploads replicated SQLite databases.",
        discussion: """
            Stores and caches come from the configuration: a JSON object in the environment variable VERNEUIL_CONFIG, \
            or @ and the path of a file that holds one. For example

              export VERNEUIL_CONFIG=@/etc/verneuil.json
              verneuilctl restore --source-path /srv/app/app.db --out /srv/app/restored.db
            """,
        version: Version.description,
        subcommands: [
            ManifestNameCommand.self,
        ])

    @OptionGroup var global: GlobalOptions
}

/// Options that stand before or after the command's name.
struct GlobalOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Configuration, in place of VERNEUIL_CONFIG: a file's path, or JSON text.", valueName: "file-or-json"))
    var config: String?

    @Option(
        name: .customLong("log"),
        help: ArgumentHelp(
            "Least severe messages to show on standard error (default: VERNEUIL_LOG, else warning).",
            valueName: "level"))
    var logLevel: Logger.Level?

    /// These, and what they leave open from `outer`.
    func over(_ outer: GlobalOptions) -> GlobalOptions {
        var merged = self
        merged.config = config ?? outer.config
        merged.logLevel = logLevel ?? outer.logLevel
        return merged
    }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// A subcommand.
protocol Tool: ParsableCommand {
    var root: Verneuilctl { get }
    var global: GlobalOptions { get }
    func perform(_ context: Context) throws
}

/// Which database a manifest describes.
struct SourceOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The machine that replicates the database (default: this one).", valueName: "host"))
    var hostname: String?

    @Option(help: ArgumentHelp("The database's path on that machine.", valueName: "path"))
    var sourcePath: String?
}

/// What the commands share: the configuration, and the stores that it names.
final class Context {
    let options: GlobalOptions

    init(_ options: GlobalOptions) throws {
        self.options = options
        LogOutput.bootstrap(level: options.logLevel)
    }

    /// The configuration that was asked for, with its warnings logged.
    lazy var configuration: Result<Configuration, ConfigurationError> = Result {
        () throws(ConfigurationError) in
        let configuration: Configuration
        if let text = options.config {
            let isText = text.utf8.first == UInt8(ascii: "{") || text.utf8.first == UInt8(ascii: "@")
            configuration = try Configuration(specification: isText ? text : "@\(text)", source: "--config")
        } else {
            configuration = try .fromEnvironment()
        }
        return configuration
    }
}
