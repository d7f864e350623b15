import ArgumentParser
import Logging
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
            RestoreCommand.self, ManifestCommand.self, ManifestNameCommand.self, FlushCommand.self, SyncCommand.self,
            StatusCommand.self, ShellCommand.self, VerifyCommand.self,
            DoctorCommand.self, ManualCommand.self,
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

/// Which replica: by its manifest, or by the database that it is made from.
struct ReplicaOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "The manifest: a file, file://…, http(s)://…, s3://bucket.region[.endpoint]/key or verneuil://host/path.",
            valueName: "manifest"))
    var manifest: String?

    @Option(help: ArgumentHelp("The machine that replicates the database (default: this one).", valueName: "host"))
    var hostname: String?

    @Option(help: ArgumentHelp("The database's path on that machine, in place of --manifest.", valueName: "path"))
    var sourcePath: String?

    func validate() throws { try Self.check(manifest, hostname, sourcePath) }

    fileprivate static func check(_ manifest: String?, _ hostname: String?, _ sourcePath: String?) throws {
        try refuseEmpty(manifest, "--manifest")
        try refuseEmpty(hostname, "--hostname")
        try refuseEmpty(sourcePath, "--source-path")
        switch (manifest, sourcePath) {
        case (nil, nil): throw ValidationError("Which database? Give --source-path, or --manifest.")
        case (.some, .some): throw ValidationError("--manifest and --source-path exclude each other.")
        default: break
        }
        if manifest != nil, hostname != nil { throw ValidationError("--hostname goes with --source-path.") }
    }

    func reference() throws -> ManifestReference { try Self.reference(manifest, hostname, sourcePath) }

    fileprivate static func reference(_ manifest: String?, _ hostname: String?, _ path: String?) throws -> ManifestReference {
        if let manifest { return try ManifestReference(manifest) }
        return .stored(DatabaseName(host: hostname, path: path ?? ""))
    }
}

/// The same for a command that can do without.
struct OptionalReplicaOptions: ParsableArguments {
    @Option(help: ArgumentHelp("As in restore.", valueName: "manifest"))
    var manifest: String?

    @Option(help: ArgumentHelp("The machine that replicates the database (default: this one).", valueName: "host"))
    var hostname: String?

    @Option(help: ArgumentHelp("The database's path on that machine, in place of --manifest.", valueName: "path"))
    var sourcePath: String?

    var isGiven: Bool { manifest != nil || hostname != nil || sourcePath != nil }

    func check() throws { try ReplicaOptions.check(manifest, hostname, sourcePath) }

    func reference() throws -> ManifestReference { try ReplicaOptions.reference(manifest, hostname, sourcePath) }
}
