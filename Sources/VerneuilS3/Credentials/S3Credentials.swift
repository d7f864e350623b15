/// What requests are signed with. Its descriptions don't show the secrets.
public struct S3Credentials: Sendable, Hashable, CustomStringConvertible, CustomDebugStringConvertible,
    CustomReflectable
{
    public var accessKeyID: String
    public var secretAccessKey: String
    public var sessionToken: String?
    /// Seconds since 1970; nil where they last.
    public var expiration: Int64?
    /// Where they come from, for messages: "the environment".
    public var source: String

    public init(
        accessKeyID: String, secretAccessKey: String, sessionToken: String? = nil, expiration: Int64? = nil,
        source: String
    ) {
        self.accessKeyID = accessKeyID
        self.secretAccessKey = secretAccessKey
        self.sessionToken = sessionToken
        self.expiration = expiration
        self.source = source
    }

    public var description: String { "credentials from \(source)" }
    public var debugDescription: String { description }
    public var customMirror: Mirror { Mirror(self, children: ["source": source]) }

    func hasSameSecrets(as other: S3Credentials) -> Bool {
        accessKeyID == other.accessKeyID && secretAccessKey == other.secretAccessKey
            && sessionToken == other.sessionToken
    }
}

/// One way to get credentials. Implementations may block; they run on a thread
/// of their own. Safe from any thread.
public protocol CredentialProvider: Sendable {
    /// For messages: "the environment".
    var name: String { get }

    /// Gets credentials anew.
    /// - Parameter context: how to make requests.
    /// - Throws: `.absent` where this provider is not set up, so that the next one is asked;
    ///   `.failed` where it is, and does not work: another identity must not step in silently.
    func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials
}

public enum CredentialError: Error, Sendable, Hashable {
    /// Not set up, and what that was seen by: "AWS_ACCESS_KEY_ID is not set".
    case absent(String)
    /// Set up, and broken.
    case failed(String)
}

/// Credentials that are given.
public struct StaticCredentials: CredentialProvider {
    private let credentials: S3Credentials
    public init(accessKeyID: String, secretAccessKey: String, sessionToken: String? = nil) {
        credentials = S3Credentials(
            accessKeyID: accessKeyID, secretAccessKey: secretAccessKey, sessionToken: sessionToken,
            source: "the configuration")
    }
    public var name: String { credentials.source }
    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials { credentials }
}

/// The first of several providers that is set up.
public struct CredentialChain: CredentialProvider {
    private let providers: [any CredentialProvider]
    public init(_ providers: [any CredentialProvider]) { self.providers = providers }

    /// In the order of docs/S3.md: environment, shared files, web identity, container, instance metadata.
    /// - Parameter region: where the region's STS is asked, unless the environment names another.
    public static func standard(_ environment: Environment = .ofProcess(), region: String? = nil) -> CredentialChain {
        CredentialChain([
            EnvironmentCredentials(environment),
            SharedFileCredentials(environment, region: region),
            WebIdentityCredentials(environment, region: region),
            ContainerCredentials(environment),
            InstanceMetadataCredentials(environment),
        ])
    }

    public var name: String { providers.map(\.name).joined(separator: ", ") }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        var absent: [String] = []
        for provider in providers {
            do throws(CredentialError) {
                return try provider.load(context)
            } catch {
                switch error {
                case .absent(let reason): absent.append("\(provider.name) (\(reason))")
                case .failed(let reason): throw .failed("credentials from \(provider.name): \(reason)")
                }
            }
        }
        throw .absent("no credentials; tried: \(absent.joined(separator: "; "))")
    }
}

/// AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.
public struct EnvironmentCredentials: CredentialProvider {
    private let environment: Environment
    public init(_ environment: Environment) { self.environment = environment }
    public var name: String { "the environment" }

    public func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        guard let id = environment["AWS_ACCESS_KEY_ID"] else { throw .absent("AWS_ACCESS_KEY_ID is not set") }
        guard let secret = environment["AWS_SECRET_ACCESS_KEY"] else {
            throw .failed("AWS_ACCESS_KEY_ID is set, but AWS_SECRET_ACCESS_KEY is not")
        }
        return S3Credentials(
            accessKeyID: id, secretAccessKey: secret, sessionToken: environment["AWS_SESSION_TOKEN"], source: name)
    }
}
