import VerneuilStore
import VerneuilSystem

/// What retention a bucket has: for tools that judge it. Replication itself asks none of this.
public struct S3LifecycleRule: Sendable, Hashable {
    public var id: String
    public var isEnabled: Bool
    /// Keys that it is about; empty: all.
    public var prefix: String
    /// Days after which an object is deleted, counted from its last PUT or COPY; nil: it isn't.
    public var expirationDays: Int?
    /// Days after which a version that has been replaced is deleted; nil: it isn't.
    public var noncurrentDays: Int?
}

public enum S3Versioning: String, Sendable, Hashable {
    case off, enabled, suspended
}

extension S3Store {
    /// Seconds that the server's clock is ahead of this machine's. Also the cheapest
    /// way to find out whether there is such a bucket, and whether we are let in.
    public func clockOffset(_ space: ObjectSpace) throws(StoreError) -> Int64? {
        let answer = try ask(.headBucket, space, "HEAD BUCKET", query: nil, knownCodes: [])
        guard let date = answer.headers.first(name: "date").flatMap(CivilTime.init(httpDate:)) else { return nil }
        return date.epoch - wallClock().seconds
    }

    public func versioning(_ space: ObjectSpace) throws(StoreError) -> S3Versioning {
        let answer = try ask(.bucketVersioning, space, "GET BUCKET VERSIONING", query: "versioning", knownCodes: [])
        let text = String(decoding: answer.body, as: UTF8.self)
        switch S3XML.text(of: "Status", in: text[...]) {
        case "Enabled": return .enabled
        case "Suspended": return .suspended
        default: return .off
        }
    }

    public func lifecycle(_ space: ObjectSpace) throws(StoreError) -> [S3LifecycleRule] {
        let answer = try ask(
            .bucketLifecycle, space, "GET BUCKET LIFECYCLE", query: "lifecycle",
            knownCodes: ["NoSuchLifecycleConfiguration"])
        let text = String(decoding: answer.body, as: UTF8.self)
        return S3XML.all("Rule", in: text[...]).map { rule in
            func days(_ element: String, _ name: String) -> Int? {
                S3XML.all(element, in: rule).first.flatMap { S3XML.text(of: name, in: $0) }.flatMap { Int($0) }
            }
            return S3LifecycleRule(
                id: S3XML.text(of: "ID", in: rule) ?? "", isEnabled: S3XML.text(of: "Status", in: rule) == "Enabled",
                prefix: S3XML.text(of: "Prefix", in: rule) ?? "", expirationDays: days("Expiration", "Days"),
                noncurrentDays: days("NoncurrentVersionExpiration", "NoncurrentDays"))
        }
    }

    /// Removes an object. Replication never does; what a tool has put for a trial goes this way.
    public func delete(_ space: ObjectSpace, _ key: String) throws(StoreError) {
        _ = try ask(.delete, space, "DELETE \(space.rawValue)/\(key)", key: key, query: nil, knownCodes: ["NoSuchKey"])
    }

    private func ask(
        _ kind: S3Request.Kind, _ space: ObjectSpace, _ title: String, key: String? = nil, query: String?,
        knownCodes: Set<String>
    ) throws(StoreError) -> S3Answer {
        let bucket = space == .chunks ? configuration.chunkBucket : configuration.manifestBucket
        var request = S3Request(
            kind: kind, bucket: bucket, key: key, urgency: .interactive, title: key == nil ? "\(title) \(bucket)" : title)
        if let query { request.query = [.init(name: query, value: "")] }
        let client = try client()
        let answer = try wait { client.perform(request, $0) }
        if (200..<300).contains(answer.status) || knownCodes.contains(answer.error?.code ?? "") { return answer }
        throw Self.error(for: answer, request, client)
    }
}
