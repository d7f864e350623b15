import Logging
import VerneuilCore
import VerneuilReplica

/// What the commands share: the configuration, and the stores that it names.
struct Context {
    private let options: GlobalOptions

    init(_ options: GlobalOptions) {
        self.options = options
        LogOutput.bootstrap(level: options.logLevel)
    }

    /// The configuration that was asked for.
    func configuration() throws -> Configuration {
        let configuration: Configuration
        if let text = options.config {
            configuration = try Configuration(specification: Self.specification(text), source: "--config")
        } else {
            configuration = try .fromEnvironment()
        }
        let logger = Logger(label: "verneuil.configuration")
        for warning in configuration.warnings { logger.warning("\(warning)") }
        return configuration
    }

    /// `--config` also takes a file's path without the @.
    static func specification(_ text: String) -> String {
        text.utf8.first == UInt8(ascii: "{") || text.utf8.first == UInt8(ascii: "@") ? text : "@\(text)"
    }

    /// The same for a command that can't do without a store.
    func configurationWithStores() throws -> Configuration {
        let configuration = try configuration()
        guard configuration.targets.contains(where: \.isStore) else {
            throw Failure(
                "no store is configured: set VERNEUIL_CONFIG, or give --config, with an \"s3\" or \"directory\" target "
                    + "in replication_targets")
        }
        return configuration
    }
}
