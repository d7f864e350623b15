/// Where the requests for one bucket go, and how the bucket is named there.
struct S3Place: Hashable, Sendable {
    var endpoint: S3Endpoint
    /// As a subdomain, not in the path.
    var asDomain: Bool

    init(endpoint: S3Endpoint, asDomain: Bool) {
        self.endpoint = endpoint
        self.asDomain = asDomain
    }

    /// Where an answer sends us, from here. AWS names a region: its endpoint
    /// there is known. Others give a location, or only the region that requests
    /// have to be signed for.
    ///
    /// nil where that is nowhere else; and from https to http, since what is
    /// under TLS stays there.
    func redirected(by answer: S3Answer, bucket: String) -> S3Place? {
        var next = self
        if let region = answer.regionHint, region != endpoint.region, S3Endpoint.canBeSignedFor(region) {
            if let other = endpoint.inRegion(region) {
                next.endpoint = other
                return next
            }
            next.endpoint.region = region
        }
        let isRedirection = (300..<400).contains(answer.status)
        if isRedirection, let location = answer.headers.first(name: "location"),
            let (origin, target) = Origin.parse(url: location)
        {
            guard origin.isTLS || !endpoint.origin.isTLS else { return nil }
            let prefix = "\(bucket)."
            next.asDomain = origin.host.hasPrefix(prefix) && !target.hasPrefix("/\(PercentEncoding.encode(bucket))/")
            next.endpoint.origin = origin
            if next.asDomain { next.endpoint.origin.host.removeFirst(prefix.count) }
            if answer.regionHint == nil, let region = S3Endpoint.region(ofAWSHost: next.endpoint.origin.host) {
                next.endpoint.region = region
            }
        }
        return next == self ? nil : next
    }
}
