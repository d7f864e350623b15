import VerneuilSystem

/// A profile of the shared files (~/.aws/credentials and ~/.aws/config, or
/// where AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE say): its keys, its
/// credential_process, or its web identity. AWS_PROFILE names it, else it is
/// "default". Both files are read anew each time, so that rotated keys are found.
public struct SharedFileCredentials: CredentialProvider {
    private let environment: Environment
    private let region: String?

    public init(_ environment: Environment, region: String? = nil) {
        self.environment = environment
        self.region = region
    }

    public var name: String { "the shared files" }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        let wanted = environment["AWS_PROFILE"]
        let profile = wanted ?? "default"
        var seen: [String] = []
        var settings: [String: String] = [:]
        var keys: S3Credentials?
        // The credentials file wins where both have keys.
        for file in files() {
            let bytes: [UInt8]?
            do throws(SystemError) { bytes = try Files.read(file.path, limit: 1 << 20) } catch {
                throw .failed("\(error)")
            }
            guard let bytes else {
                seen.append("there is no \(file.path)")
                continue
            }
            let sections = Self.parse(String(decoding: bytes, as: UTF8.self))
            guard let section = file.sections(of: profile).compactMap({ sections[$0] }).first else {
                seen.append("\(file.path) has no profile \"\(profile)\"")
                continue
            }
            if keys == nil { keys = try self.keys(in: section, of: file.path, profile) }
            settings.merge(section) { first, _ in first }
        }
        if let keys { return keys }
        if let command = settings["credential_process"] {
            return try ProcessCredentials(command: command).load(context)
        }
        if let file = settings["web_identity_token_file"], let role = settings["role_arn"] {
            return try WebIdentityCredentials(
                environment, region: settings["region"] ?? region, tokenFile: file, role: role,
                session: settings["role_session_name"]
            ).load(context)
        }
        for unsupported in ["role_arn", "sso_session", "sso_start_url", "login_session"]
        where settings[unsupported] != nil {
            throw .failed(
                "profile \"\(profile)\" uses \(unsupported), which is not supported here: give it a credential_process, "
                    + "such as \"aws configure export-credentials --profile \(profile)\"")
        }
        if !settings.isEmpty { seen.append("profile \"\(profile)\" has no credentials") }
        let reason = seen.isEmpty ? "HOME is not set" : seen.joined(separator: ", ")
        if let wanted { throw .failed("AWS_PROFILE is \"\(wanted)\", but \(reason)") }
        throw .absent(reason)
    }

    private struct File {
        var path: String
        var isConfig: Bool
        /// The config file says "profile x", but "default".
        func sections(of profile: String) -> [String] {
            guard isConfig else { return [profile] }
            return profile == "default" ? ["default", "profile default"] : ["profile \(profile)"]
        }
    }

    private func files() -> [File] {
        let home = environment["HOME"]
        func path(_ variable: String, _ name: String) -> String? {
            guard let path = environment[variable] else { return home.map { "\($0)/.aws/\(name)" } }
            if path.hasPrefix("~/"), let home { return home + path.dropFirst() }
            return path
        }
        return [
            path("AWS_SHARED_CREDENTIALS_FILE", "credentials").map { File(path: $0, isConfig: false) },
            path("AWS_CONFIG_FILE", "config").map { File(path: $0, isConfig: true) },
        ].compactMap { $0 }
    }

    private func keys(
        in section: [String: String], of path: String, _ profile: String
    ) throws(CredentialError) -> S3Credentials? {
        guard let id = section["aws_access_key_id"] else { return nil }
        guard let secret = section["aws_secret_access_key"], !id.isEmpty, !secret.isEmpty else {
            throw .failed("profile \"\(profile)\" in \(path) has an aws_access_key_id without aws_secret_access_key")
        }
        return S3Credentials(
            accessKeyID: id, secretAccessKey: secret, sessionToken: section["aws_session_token"],
            source: "profile \"\(profile)\" in \(path)")
    }

    /// Sections by name, settings in lower case. Indented lines belong to a
    /// nested setting, none of which matters here.
    static func parse(_ text: String) -> [String: [String: String]] {
        var sections: [String: [String: String]] = [:]
        var current: String?
        for line in text.split(whereSeparator: \.isNewline) {
            guard let first = line.first, first != "#", first != ";", !first.isWhitespace else { continue }
            if first == "[" {
                let inner = line.dropFirst().prefix { $0 != "]" }
                let words = inner.split(whereSeparator: \.isWhitespace)
                let name = words.joined(separator: " ")
                current = name
                sections[name] = sections[name] ?? [:]
            } else if let current, let equals = line.firstIndex(of: "=") {
                let name = trim(line[..<equals]).lowercased()
                var value = line[line.index(after: equals)...]
                for mark in [" #", " ;", "\t#", "\t;"] {
                    if let comment = value.firstRange(of: mark) { value = value[..<comment.lowerBound] }
                }
                sections[current]?[name] = trim(value)
            }
        }
        return sections
    }

    private static func trim(_ text: Substring) -> String {
        String(text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed())
    }
}
