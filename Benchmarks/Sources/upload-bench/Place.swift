import Crypto
import Glibc
import VerneuilS3
import VerneuilStore

/// A server on this machine, and a pair of buckets of it for one run.
struct Place: Sendable {
    var port: Int
    var accessKey: String
    var secretKey: String
    /// Of chunks; the manifests' has a suffix.
    var bucket: String

    func store(_ budget: S3Pacing.Budget?, connections: Int) throws -> S3Store {
        var configuration = S3Configuration(
            region: "us-east-1", endpoint: "http://127.0.0.1:\(port)", chunkBucket: bucket, manifestBucket: "\(bucket)-manifests",
            domainAddressing: false, createBucketsOnDemand: true, pacing: S3Pacing(flush: budget))
        configuration.maximumConnections = connections
        return try S3Store(configuration, credentials: StaticCredentials(accessKeyID: accessKey, secretAccessKey: secretKey))
    }

    /// The head of a PUT, signed (AWS Signature Version 4).
    func putHead(key: String, body: [UInt8]) -> [UInt8] {
        let path = "/\(bucket)/" + key.split(separator: "%", omittingEmptySubsequences: false).joined(separator: "%25")
        var time = time_t(0)
        Glibc.time(&time)
        var parts = tm()
        gmtime_r(&time, &parts)
        func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let date = "\(parts.tm_year + 1900)\(two(parts.tm_mon + 1))\(two(parts.tm_mday))T"
            + "\(two(parts.tm_hour))\(two(parts.tm_min))\(two(parts.tm_sec))Z"
        let headers = [
            ("content-md5", Base64.encode(Array(Insecure.MD5.hash(data: body)))), ("host", "127.0.0.1:\(port)"),
            ("x-amz-content-sha256", Self.hexadecimal(SHA256.hash(data: body))), ("x-amz-date", date),
        ]
        let names = headers.map(\.0).joined(separator: ";")
        let canonical = "PUT\n\(path)\n\n" + headers.map { "\($0.0):\($0.1)\n" }.joined() + "\n\(names)\n\(headers[2].1)"
        let scope = "\(date.prefix(8))/us-east-1/s3/aws4_request"
        let text = "AWS4-HMAC-SHA256\n\(date)\n\(scope)\n\(Self.hexadecimal(SHA256.hash(data: Array(canonical.utf8))))"
        var signing = Array("AWS4\(secretKey)".utf8)
        for part in scope.split(separator: "/") + [Substring(text)] {
            signing = Array(HMAC<SHA256>.authenticationCode(for: Array(part.utf8), using: SymmetricKey(data: signing)))
        }
        let authorization = "AWS4-HMAC-SHA256 Credential=\(accessKey)/\(scope), SignedHeaders=\(names), Signature=\(Self.hexadecimal(signing))"
        let lines = headers.map { "\($0.0): \($0.1)\r\n" }.joined()
        return Array("PUT \(path) HTTP/1.1\r\n\(lines)authorization: \(authorization)\r\nContent-Length: \(body.count)\r\n\r\n".utf8)
    }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
}
