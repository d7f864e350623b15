import VerneuilSystem
import VerneuilVFS

// Settings in a database's file name (docs/CONFIGURATION.md), for this connection and over
// the process's configuration:
//
//   verneuil_spooling_dir              as replication_spooling_dir
//   verneuil_spooling_dir_permissions  as replication_spooling_dir_permissions
//   verneuil_target                    in place of the process's stores; its caches stay
//
// Stricter than JSON is: a name or key that nobody knows is an error and no
// warning, since the database would go to the process's targets, which is
// where it was not wanted.

extension Configuration {
    /// This configuration, changed as a file name's parameters ask for.
    package func changed(
        by parameters: ConnectionParameters, for purpose: ConnectionSettings.Purpose
    ) throws(ConfigurationError) -> Configuration {
        var changed = self
        changed.warnings = []
        var seen: Set<String> = []
        for parameter in parameters.all {
            let (name, value) = (parameter.name, parameter.value)
            func failure(_ reason: String) -> ConfigurationError {
                ConfigurationError(source: "file name", key: name, reason: reason)
            }
            guard seen.insert(name).inserted else {
                throw failure("given twice; several targets are one JSON array of them")
            }
            if value.isEmpty { throw failure("found nothing, expected a value") }
            switch name {
            case ConnectionParameters.spoolingDirectory:
                changed.spoolingDirectory = absolutePath(value)
            case ConnectionParameters.permissions:
                guard let bits = UInt32(value) else { throw failure("found no number, expected permission bits as a decimal number") }
                do throws(ConfigurationError) { try changed.setSpoolingDirectoryPermissions(bits) } catch {
                    throw failure(error.reason)
                }
            case ConnectionParameters.target:
                changed.targets = try Self.targets(value) + targets.filter { !$0.isStore }
            default:
                if looksSecret(name) { throw failure(credentialsHint) }
                let near = nearest(to: name, among: ConnectionParameters.names).map { "; did you mean \($0)?" } ?? ""
                throw failure("unknown parameter\(near)")
            }
        }
        switch purpose {
        case .replication:
            if changed.spoolingDirectory == nil {
                throw ConfigurationError(
                    source: "file name", key: ConnectionParameters.target,
                    reason: "there is no spooling directory: give \(ConnectionParameters.spoolingDirectory) as well")
            }
            if !changed.targets.contains(where: \.isStore) {
                throw ConfigurationError(
                    source: "file name", key: ConnectionParameters.spoolingDirectory,
                    reason: "there is no target that stores anything: give \(ConnectionParameters.target) as well")
            }
        case .reading:
            // What this machine uploaded last, to other targets, is not what these have.
            if seen.contains(ConnectionParameters.target), !seen.contains(ConnectionParameters.spoolingDirectory) {
                changed.spoolingDirectory = nil
            }
        }
        return changed
    }

    /// `directory:/PATH`, `s3:REGION/CHUNK_BUCKET/MANIFEST_BUCKET`, one target as in
    /// `replication_targets`, or an array of any of these.
    private static func targets(_ text: String) throws(ConfigurationError) -> [Target] {
        let key = ConnectionParameters.target
        guard let first = text.utf8.first, first == UInt8(ascii: "{") || first == UInt8(ascii: "[") else {
            return [try target(JSON(.string(text)), key)]
        }
        let json: JSON
        do throws(JSONError) { json = try JSON(parsing: Array(text.utf8)) } catch {
            throw ConfigurationError(source: "file name", key: key, reason: "not JSON, at byte \(error.offset): \(error.reason)")
        }
        guard case .array(let elements) = json.value else { return [try target(json, key)] }
        var targets: [Target] = []
        for (i, element) in elements.enumerated() { targets.append(try target(element, "\(key)[\(i)]")) }
        return targets
    }

    private static func target(_ json: JSON, _ path: String) throws(ConfigurationError) -> Target {
        let long: JSON
        if case .string(let text) = json.value {
            guard let expanded = expanded(text) else {
                throw ConfigurationError(
                    source: "file name", key: path,
                    reason: "expected directory:/PATH, s3:REGION/CHUNK_BUCKET/MANIFEST_BUCKET, or JSON as in replication_targets")
            }
            long = expanded
        } else {
            long = json
        }
        // No text: its places would be those of decoded text that nobody sees.
        let context = ConfigurationReader.Context(source: "file name", text: [])
        do throws(ConfigurationError) {
            let target = try Target(long, path: path, context)
            if let warning = context.warnings.first {
                if case .object(let kinds) = long.value, case .object(let members)? = kinds.first?.value.value,
                    members.contains(where: { looksSecret($0.key) })
                {
                    throw ConfigurationError(source: "file name", key: path, reason: credentialsHint)
                }
                throw ConfigurationError(
                    source: "file name", key: path, reason: String(warning.drop { $0 != ":" }.drop { !$0.isLetter }).replacing(", ignored", with: ""))
            }
            return target
        } catch {
            // A URL may have a password in it, which a message must not repeat.
            let reason = error.key.hasSuffix(".endpoint") ? "expected a URL such as \"https://s3.example.com\", without a path" : error.reason
            throw ConfigurationError(source: error.source, key: error.key, reason: reason)
        }
    }

    private static func expanded(_ text: String) -> JSON? {
        if text.hasPrefix("directory:") {
            let path = String(text.dropFirst("directory:".count))
            return path.hasPrefix("/") ? .object(["directory": .object(["path": .string(path)])]) : nil
        }
        guard text.hasPrefix("s3:"), !text.hasPrefix("s3://") else { return nil }
        let parts = text.dropFirst("s3:".count).split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 3 else { return nil }
        return .object([
            "s3": .object([
                "region": .string(String(parts[0])), "chunk_bucket": .string(String(parts[1])),
                "manifest_bucket": .string(String(parts[2])),
            ])
        ])
    }
}

private let credentialsHint =
    "credentials don't belong in a file's name, which ends in logs and lists of processes: they come from the environment, "
    + "AWS's files or the machine's role"

private func looksSecret(_ name: String) -> Bool {
    let name = name.lowercased()
    return ["secret", "password", "token", "access_key", "credential"].contains { name.contains($0) }
}
