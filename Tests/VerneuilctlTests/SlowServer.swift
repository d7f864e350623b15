import TestServers

/// An S3 server that can be told to take a second for each GET of a chunk.
final class SlowServer {
    private let proxy: FaultProxy
    let configuration: String

    

    init() throws {
        proxy = try FaultProxy(to: .rclone())
        configuration = """
            {"replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "\(proxy.endpoint)", "chunk_bucket": "\(S3Server.uniqueBucket("c"))", \
            "manifest_bucket": "\(S3Server.uniqueBucket("m"))", "domain_addressing": false, "create_buckets_on_demand": true}}]}
            """
    }
    func slowDown() throws { try proxy.set([.init("delay", match: "GET /c-", milliseconds: 1000)]) }
}
