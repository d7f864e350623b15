/// Which server, and which region requests are signed for. From configuration
/// (docs/CONFIGURATION.md): an endpoint as it is, or else by the region:
///
/// | region | server | signed for |
/// |---|---|---|
/// | an AWS region, `eu-west-1` | `https://s3.eu-west-1.amazonaws.com` | it |
/// | `name.domain`, `nyc3.example.com` | `https://example.com` | `nyc3` |
/// | any other name, `storage` | `https://storage` | `storage` |
package struct S3Endpoint: Hashable, Sendable {
    var origin: Origin
    package var region: String
    package var url: String { origin.url }
    /// Where the regions of this provider are: "amazonaws.com". nil elsewhere:
    /// only AWS sends clients from region to region.
    var regionalDomain: String?

    init(origin: Origin, region: String, regionalDomain: String?) {
        self.origin = origin
        self.region = region
        self.regionalDomain = regionalDomain
    }

    /// A description of what is wrong with a setting.
    package struct Flaw: Error { package var text: String }

    package init(region: String, endpoint: String?) throws(Flaw) {
        let flaw = Flaw(
            text: "\"\(region)\" is neither an AWS region (such as \"us-east-1\") nor a host name: "
                + "where the store is not AWS, set endpoint to its URL")
        if let endpoint {
            guard let (origin, target) = Origin.parse(url: endpoint) else {
                throw Flaw(
                    text: "the endpoint must be a URL such as \"https://s3.example.com\" or \"http://127.0.0.1:9000\", "
                        + "found \"\(endpoint)\"")
            }
            guard target == "/" else {
                throw Flaw(text: "the endpoint must be without a path and a query, found \"\(endpoint)\"")
            }
            guard region.isEmpty || Self.canBeSignedFor(region) else { throw flaw }
            self.init(
                origin: origin, region: region.isEmpty ? "us-east-1" : region,
                regionalDomain: Self.awsDomains.first { origin.host.hasSuffix(".\($0)") })
            return
        }
        if Self.isAWSRegion(region) {
            let domain = region.hasPrefix("cn-") ? "amazonaws.com.cn" : "amazonaws.com"
            self.init(
                origin: Origin(isTLS: true, host: "s3.\(region).\(domain)"), region: region, regionalDomain: domain)
            return
        }
        let host: Substring
        let name: Substring
        if let dot = region.firstIndex(of: "."), region.index(after: dot) != region.endIndex {
            name = region[..<dot]
            host = region[region.index(after: dot)...]
        } else {
            name = region[...]
            host = name
        }
        guard let (origin, target) = Origin.parse(url: "https://\(host)"), target == "/", !name.isEmpty,
            name.utf8.allSatisfy(Origin.isHostByte)
        else { throw flaw }
        self.init(origin: origin, region: String(name), regionalDomain: nil)
    }

    private static let awsDomains = ["amazonaws.com", "amazonaws.com.cn"]

    /// "us-east-1", "us-gov-west-1", "ap-southeast-7": two letters, words, a digit.
    static func isAWSRegion(_ name: String) -> Bool {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 3, parts.count <= 5, parts[0].utf8.count == 2, let last = parts.last else { return false }
        return (1...2).contains(last.utf8.count) && last.utf8.allSatisfy { (0x30...0x39).contains($0) }
            && parts.dropLast().allSatisfy { word in
                !word.isEmpty && word.utf8.allSatisfy { (0x61...0x7A).contains($0) }
            }
    }

    /// Whether it can stand in a signature.
    static func canBeSignedFor(_ region: String) -> Bool {
        !region.isEmpty && region.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") }
    }

    /// The region in "s3.eu-west-1.amazonaws.com" or, as older names have it, "s3-eu-west-1.amazonaws.com".
    package static func region(ofAWSHost host: String) -> String? {
        guard host.hasPrefix("s3"), let domain = awsDomains.first(where: { host.hasSuffix(".\($0)") }) else { return nil }
        let region = host.dropFirst(3).dropLast(domain.utf8.count + 1)
        return isAWSRegion(String(region)) ? String(region) : nil
    }

    /// The same provider in another region, where it has several.
    package func inRegion(_ region: String) -> S3Endpoint? {
        guard let regionalDomain, Self.isAWSRegion(region) else { return nil }
        var other = self
        other.region = region
        other.origin.host = "s3.\(region).\(regionalDomain)"
        return other
    }

    /// Why a bucket can't have that name, if it can't.
    static func flaw(ofBucket name: String, asDomain: Bool) -> String? {
        let bytes = name.utf8
        if bytes.isEmpty { return "the name of a bucket is empty" }
        let legal =
            asDomain
            ? bytes.allSatisfy { Origin.isHostByte($0) && !(0x41...0x5A).contains($0) } && !name.contains("..")
            : bytes.allSatisfy { Origin.isHostByte($0) }
        guard legal, bytes.count <= 255, bytes.first != UInt8(ascii: ".") else {
            return "\"\(name)\" can't be the name of a bucket"
                + (asDomain ? " that is addressed as a domain (lower-case letters, digits, '-' and '.')" : "")
        }
        return nil
    }
}
