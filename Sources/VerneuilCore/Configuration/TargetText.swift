extension Configuration.Target {
    /// As it stands in `replication_targets`, with what isn't the default.
    public var json: JSON {
        func object(_ members: [(String, JSON?)]) -> JSON {
            JSON(.object(members.compactMap { key, value in value.map { JSON.Member(key: key, keyOffset: 0, value: $0) } }))
        }
        func unless<T: Equatable>(_ standard: T, _ value: T, _ make: (T) -> JSON) -> JSON? {
            value == standard ? nil : make(value)
        }
        func cache(_ cache: Configuration.Cache, writable: Bool) -> JSON {
            let standard = Configuration.Cache(directory: cache.directory)
            return object([
                ("directory", .string(cache.directory)), ("num_shards", unless(standard.shards, cache.shards) { .number($0) }),
                ("capacity", writable ? unless(standard.capacity, cache.capacity) { .number($0) } : nil),
                ("append_instance_id", unless(true, cache.appendInstanceID) { .bool($0) }),
            ])
        }
        switch self {
        case .directory(let directory): return object([("directory", object([("path", .string(directory.path))]))])
        case .local(let settings): return object([("local", cache(settings, writable: true))])
        case .readOnly(let settings): return object([("read_only", cache(settings, writable: false))])
        case .s3(let s3):
            return object([
                ("s3", object([
                    ("region", .string(s3.region)), ("endpoint", s3.endpoint.map { .string($0) }),
                    ("chunk_bucket", .string(s3.chunkBucket)), ("manifest_bucket", .string(s3.manifestBucket)),
                    ("domain_addressing", unless(true, s3.domainAddressing) { .bool($0) }),
                    ("create_buckets_on_demand", unless(false, s3.createBucketsOnDemand) { .bool($0) }),
                ])),
            ])
        }
    }
}
