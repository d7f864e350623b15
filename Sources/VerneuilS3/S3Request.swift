import NIOCore
import NIOHTTP1
import VerneuilStore

/// One operation of S3, not yet signed: it is signed anew for each try.
struct S3Request: Sendable {
    /// What is counted; the kinds also differ in what they ask of the credentials.
    enum Kind: Sendable {
        case get, put, touch, list, head, headBucket, createBucket, delete, bucketVersioning, bucketLifecycle
    }
    struct Pair: Sendable, Hashable {
        var name: String
        var value: String
    }

    var kind: Kind
    var bucket: String
    /// nil: the bucket itself.
    var key: String?
    /// Not yet encoded.
    var query: [Pair] = []
    /// Lower-case names. All are signed.
    var headers: [Pair] = []
    var body: ByteBuffer?
    /// SHA-256 in hex.
    var bodyHash = S3Signer.emptyBodyHash
    var limit = 1 << 20
    var urgency: Urgency
    /// For messages: "GET chunks/…".
    var title: String

    var method: HTTPMethod {
        switch kind {
        case .get, .list, .bucketVersioning, .bucketLifecycle: return .GET
        case .put, .touch, .createBucket: return .PUT
        case .head, .headBucket: return .HEAD
        case .delete: return .DELETE
        }
    }

    var counter: WritableKeyPath<S3Counters, Int> & Sendable {
        switch kind {
        case .get: return \.gets
        case .put: return \.puts
        case .touch: return \.touches
        case .list: return \.lists
        case .head, .headBucket, .bucketVersioning, .bucketLifecycle: return \.heads
        case .createBucket: return \.bucketCreations
        case .delete: return \.deletes
        }
    }

    /// What a policy has to allow.
    var permission: String {
        switch kind {
        case .get, .head: return "s3:GetObject"
        case .put: return "s3:PutObject"
        case .touch: return "s3:GetObject and s3:PutObject"
        case .list, .headBucket: return "s3:ListBucket"
        case .createBucket: return "s3:CreateBucket"
        case .delete: return "s3:DeleteObject"
        case .bucketVersioning: return "s3:GetBucketVersioning"
        case .bucketLifecycle: return "s3:GetLifecycleConfiguration"
        }
    }

    var isConditionalPut: Bool {
        kind == .put && headers.contains { $0.name == "if-match" || $0.name == "if-none-match" }
    }
}

/// An answer that no retry changes.
struct S3Answer: Sendable {
    var status: Int
    var headers: HTTPHeaders
    var body: [UInt8]
    /// Whether an earlier try may have done the work: it got no answer, or a 5xx.
    var mayHaveHappenedBefore = false

    init(_ answer: HTTPAnswer) {
        status = answer.status
        headers = answer.headers
        body = answer.body
    }

    /// The entity tag without quotes; empty where there is none.
    var tag: String { Self.bare(headers.first(name: "etag") ?? "") }

    static func bare(_ tag: String) -> String {
        var tag = Substring(tag)
        if tag.hasPrefix("W/") { tag = tag.dropFirst(2) }
        if tag.hasPrefix("\""), tag.hasSuffix("\""), tag.utf8.count >= 2 { tag = tag.dropFirst().dropLast() }
        return String(tag)
    }

    /// What the body says, where it is S3's XML of an error.
    var error: S3ErrorText? {
        guard !body.isEmpty, body.count < 64 << 10 else { return nil }
        let text = String(decoding: body, as: UTF8.self)
        guard let inner = S3XML.all("Error", in: text[...]).first, let code = S3XML.text(of: "Code", in: inner) else {
            return nil
        }
        return S3ErrorText(
            code: code, message: S3XML.text(of: "Message", in: inner) ?? "", region: S3XML.text(of: "Region", in: inner),
            header: S3XML.text(of: "Header", in: inner))
    }

    /// The same as far as the headers know (Ceph and AWS give no body to HEAD).
    var regionHint: String? { headers.first(name: "x-amz-bucket-region") ?? error?.region }
}

struct S3ErrorText: Sendable, Hashable {
    var code: String
    var message: String
    var region: String?
    /// The header that it is about.
    var header: String?

    /// Whether it is about that header, by its lower-case name.
    func names(_ header: String) -> Bool {
        self.header?.lowercased() == header || message.lowercased().contains(header)
    }
}
