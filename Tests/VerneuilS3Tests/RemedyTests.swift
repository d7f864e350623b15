import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// What the client sets right by itself, at each operation: the clock, the
/// token, the region, the place, and headers that a store refuses.
@Suite struct RemedyTests {
    typealias Operation = HostileOperation

    /// Brings "token-1", "token-2", ... each time it is asked.
    final class Rotating: CredentialProvider {
        let name = "a test"
        private let lock = Lock()
        nonisolated(unsafe) private var count = 0
        var asked: Int { lock.withLock { count } }

        func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
            let number = lock.withLock {
                count += 1
                return count
            }
            return S3Credentials(
                accessKeyID: "key-\(number)", secretAccessKey: "topsecret-\(number)", sessionToken: "token-\(number)",
                expiration: wallClock().seconds + 3600, source: name)
        }
    }

    @Test(arguments: Operation.allCases, [18_000, -18_000] as [Int64])
    func aWrongClockIsCorrected(operation: Operation, offset: Int64) throws {
        let log = LogCapture()
        // The clock goes wrong after the preparations.
        let (server, store, tag) = try operation.prepare(logger: log)
        let before = server.requests.count
        server.change { $0.clockOffset = offset }
        #expect(operation.run(store, server, tag) == nil)
        #expect(abs(store.status.clockOffset - offset) <= 2)
        #expect(server.requests.dropFirst(before).filter { $0.status == 403 }.count == 1)
        #expect(store.counters.failures == 0)
        let warnings = log.lines(from: .warning)
        #expect(warnings.count == 1 && warnings[0].contains("clock differs"), "\(log.text)")
        // It is remembered.
        let after = server.requests.count
        _ = try store.list(.chunks, prefix: "")
        #expect(server.requests.count == after + 1)
    }

    /// The first answer teaches the client; all the others were sent before that.
    @Test(arguments: ["clock", "region", "moved"]) func whatOneRequestLearnsServesThoseThatWereUnderWay(remedy: String) throws {
        let (server, store, _) = try Operation.get.prepare()
        let count = 20
        func getAll() -> [StoreError] {
            let lock = Lock()
            nonisolated(unsafe) var (done, errors) = (0, [StoreError]())
            for _ in 0..<count {
                store.get(GetRequest(.chunks, "chunk", limit: 1 << 20)) { result in
                    lock.withLock {
                        if case .failure(let error) = result { errors.append(error) }
                        done += 1
                        lock.broadcast()
                    }
                }
            }
            return lock.withLock {
                while done < count { lock.wait() }
                return errors
            }
        }
        #expect(getAll().isEmpty)
        server.change {
            $0.gathers = count
            if remedy == "clock" { $0.clockOffset = 18_000 } else { $0.region = "eu-west-1" }
            if remedy == "moved" { $0.regionAnswer = .refuse(301, "PermanentRedirect") }
        }
        let before = server.requests.count
        let errors = getAll()
        #expect(errors.isEmpty, "\(errors.count): \(errors.first.map { "\($0)" } ?? "")")
        #expect(server.requests.dropFirst(before).filter { $0.status != 200 }.count == count)
        #expect(store.counters.failures == 0)
    }

    /// What it has no tag of can't be "not modified".
    @Test func whereTagsAreTakenAwayANewerManifestIsSeen() throws {
        let (server, store, _) = try Operation.get.prepare()
        server.change { $0.hidesTags = true }
        for body in [[1], [2]] as [[UInt8]] {
            server.put(Operation.bucket, "manifest", body)
            guard case .found(let found, let tag) = try store.get(GetRequest(.manifests, "manifest", limit: 100, unlessTag: "")) else {
                Issue.record("not found")
                return
            }
            #expect(found == body && tag.isEmpty)
        }
    }

    /// The pool, which closes idle connections a second before the server would, looks once a second.
    @Test func aServerThatKeepsNoConnectionForAnyTimeDoesNoHarm() throws {
        let (server, store, _) = try Operation.get.prepare()
        for timeout in ["-9223372036854775808", "0", "9223372036854775807"] {
            server.change { $0.faults = [FakeS3.Fault(.doBut(200, ""), on: [.get], times: 1, headers: [("Keep-Alive", "timeout=\(timeout)")])] }
            _ = try store.get(GetRequest(.chunks, "chunk", limit: 1 << 20))
            Threads.pause(microseconds: 1_500_000)
        }
        #expect(Operation.get.run(store, server, "") == nil)
    }

    @Test func aClockThatIsNotTheReasonIsNotCorrectedForEver() throws {
        let (server, store, tag) = try Operation.get.prepare()
        server.change { $0.faults = [FakeS3.Fault(.refuse(403, "RequestTimeTooSkewed"))] }
        let error = Operation.get.run(store, server, tag)
        #expect(error?.kind == .denied && error?.reason.contains("clock") == true)
        #expect(server.requests(.get).count == 1)
    }

    @Test(arguments: Operation.allCases, ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
    func aTokenThatExpiresInMidPassIsReplaced(operation: Operation, code: String) throws {
        let log = LogCapture()
        let provider = Rotating()
        let (server, store, tag) = try operation.prepare(logger: log, credentials: provider)
        // Whatever has been used so far is refused from now on.
        let used = Set(server.requests.map(\.accessKey))
        let old = used.isEmpty ? ["key-1"] : used
        server.change { $0.judge = { key, _ in old.contains(key) ? (code == "ExpiredToken" ? 400 : 403, code) : nil } }
        let before = server.requests.count
        #expect(operation.run(store, server, tag) == nil)
        #expect(provider.asked == 2)
        #expect(server.requests.dropFirst(before).filter { $0.status >= 400 && ![404, 412].contains($0.status) }.count == 1)
        #expect(store.counters.failures == 0)
        #expect(!log.text.contains("topsecret") && !log.text.contains("token-"), "\(log.text)")
    }

    @Test func credentialsThatStayRefusedAreNotAskedForAgainAndAgain() throws {
        final class Same: CredentialProvider {
            let name = "a test"
            let lock = Lock()
            nonisolated(unsafe) var asked = 0
            func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
                lock.withLock { asked += 1 }
                return S3Credentials(accessKeyID: "key", secretAccessKey: "topsecret", sessionToken: "token", source: name)
            }
        }
        let provider = Same()
        let (server, store, tag) = try Operation.get.prepare(credentials: provider)
        server.change { $0.judge = { _, _ in (403, "ExpiredToken") } }
        for _ in 0..<20 {
            let error = Operation.get.run(store, server, tag)
            #expect(error?.kind == .denied && error?.reason.contains("session token from a test") == true)
        }
        #expect(provider.lock.withLock { provider.asked } == 2)
        #expect(server.requests.count == 20)
    }

    /// Again and again: refused, replaced, done.
    @Test func everyRevocationIsSurvived() throws {
        let provider = Rotating()
        let (server, store, tag) = try Operation.touch.prepare(credentials: provider)
        let lock = Lock()
        nonisolated(unsafe) var uses: [String: Int] = [:]
        server.change {
            $0.judge = { key, _ in
                lock.withLock {
                    uses[key, default: 0] += 1
                    return uses[key, default: 0] > 2 ? (400, "ExpiredToken") : nil
                }
            }
        }
        for _ in 0..<400 { #expect(Operation.touch.run(store, server, tag) == nil) }
        #expect(provider.asked == 200)
        #expect(store.counters.failures == 0)
    }

    // MARK: Regions and places

    @Test(arguments: Operation.allCases, [(400, "AuthorizationHeaderMalformed"), (301, "PermanentRedirect")])
    func theRegionThatTheServerNamesIsSignedFor(operation: Operation, answer: (Int, String)) throws {
        let log = LogCapture()
        let (server, store, tag) = try operation.prepare(logger: log)
        let before = server.requests.count
        server.change {
            $0.region = "eu-west-1"
            $0.regionAnswer = .refuse(answer.0, answer.1)
        }
        #expect(operation.run(store, server, tag) == nil)
        let seen = server.requests.dropFirst(before)
        #expect(seen.first?.region == "us-east-1" && seen.first?.status == answer.0)
        #expect(seen.dropFirst().allSatisfy { $0.region == "eu-west-1" })
        #expect(store.counters.failures == 0)
        #expect(log.lines(from: .notice).filter { $0.contains("region=eu-west-1") }.count == 1, "\(log.text)")
        _ = try store.list(.chunks, prefix: "")
        #expect(server.requests.last?.region == "eu-west-1")
    }

    /// 307 is for this request alone.
    @Test(arguments: Operation.allCases) func aTemporaryPlaceIsGoneTo(operation: Operation) throws {
        let (server, store, tag) = try operation.prepare()
        let other = try FakeS3()
        other.put(Operation.bucket, "chunk", Operation.chunk)
        for (key, object) in server.objects(Operation.bucket) { other.put(Operation.bucket, key, object.body) }
        if operation == .makeBucket { other.remove(Operation.bucket) }
        let before = server.requests.count
        let place = other.endpoint
        server.change { $0.elsewhere = [Operation.bucket: place] }
        let error = failure { () throws(StoreError) in
            switch operation {
            case .get: _ = try store.get(GetRequest(.chunks, "chunk", limit: 1 << 20))
            case .poll: _ = try store.get(GetRequest(.manifests, "manifest", limit: 1 << 20, unlessTag: tag))
            case .putChunk: try store.put(PutRequest(.chunks, "new", Operation.chunk))
            case .replaceManifest, .firstConditionalPut:
                try store.put(PutRequest(.manifests, "manifest", Operation.manifest, condition: .ifTag(tag)))
            case .createManifest: try store.put(PutRequest(.manifests, "new", [1], condition: .ifAbsent))
            case .touch: #expect(try store.touch(.chunks, "chunk"))
            case .list: _ = try store.list(.chunks, prefix: "")
            case .findBucket, .makeBucket: try store.prepare()
            }
        }
        #expect(error == nil, "\(error?.description ?? "")")
        #expect(server.requests.dropFirst(before).allSatisfy { $0.status == 307 })
        #expect(server.requests.count - before == other.requests.count)
        switch operation {
        case .putChunk: #expect(other.object(Operation.bucket, "new")?.body == Operation.chunk)
        case .replaceManifest, .firstConditionalPut:
            #expect(other.object(Operation.bucket, "manifest")?.body == Operation.manifest)
        default: break
        }
        // And back.
        server.change { $0.elsewhere = [:] }
        if operation != .makeBucket {
            _ = try store.list(.chunks, prefix: "")
            #expect(server.requests.last?.operation == .list && server.requests.last?.status == 200)
        }
    }

    @Test func redirectionsEnd() throws {
        let (server, store, tag) = try Operation.get.prepare()
        server.change { $0.elsewhere = [Operation.bucket: "http://localhost:\(server.port)"] }
        let error = Operation.get.run(store, server, tag)
        #expect(error?.kind == .invalid && error?.reason.contains("elsewhere") == true)
        #expect(server.requests(.get).count == 2)
    }

    @Test func awsRegionsHaveEndpointsOfTheirOwn() throws {
        for (region, host) in [
            ("us-east-1", "s3.us-east-1.amazonaws.com"), ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
            ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
        ] {
            let endpoint = try S3Endpoint(region: region, endpoint: nil)
            #expect(endpoint.url == "https://\(host)")
            #expect(S3Endpoint.region(ofAWSHost: host) == region)
        }
        let moved = try S3Endpoint(region: "us-east-1", endpoint: nil).inRegion("eu-central-1")
        #expect(moved?.url == "https://s3.eu-central-1.amazonaws.com" && moved?.region == "eu-central-1")
        #expect(S3Endpoint.region(ofAWSHost: "s3-eu-west-1.amazonaws.com") == "eu-west-1")
        #expect(S3Endpoint.region(ofAWSHost: "s3.eu-west-1.example.com") == nil)
        #expect(try S3Endpoint(region: "r", endpoint: "https://s3.example.com").inRegion("eu-west-1") == nil)
    }

    // MARK: Integrity headers

    @Test func everyBodyCarriesDigestsThatTheServerChecks() throws {
        for operation in [Operation.putChunk, .replaceManifest, .createManifest, .firstConditionalPut] {
            let (server, store, tag) = try operation.prepare()
            #expect(operation.run(store, server, tag) == nil)
            let puts = server.requests(.put)
            #expect(!puts.isEmpty)
            for put in puts {
                #expect(put.headers["content-md5"]?.utf8.count == 24 && put.headers["x-amz-content-sha256"]?.utf8.count == 64)
                // The server compared them with what arrived, and found nothing.
                #expect(put.status == 200 || put.status == 412)
            }
        }
    }

    /// Either digest is enough.
    @Test(arguments: [true, false]) func aBodyDamagedOnItsWayIsSentAgain(withMD5: Bool) throws {
        let (server, store, tag) = try Operation.putChunk.prepare { $0.contentMD5 = withMD5 }
        server.change { $0.damagedBodies = 2 }
        #expect(Operation.putChunk.run(store, server, tag) == nil)
        #expect(server.requests(.put).map(\.status) == [400, 400, 200])
        server.change { $0.damagedBodies = .max }
        let error = Operation.putChunk.run(store, server, tag)
        #expect(error?.kind == .unavailable)
        #expect(error?.reason.contains(withMD5 ? "BadDigest" : "XAmzContentSHA256Mismatch") == true)
        #expect(server.object(Operation.bucket, "new")?.body == Operation.chunk)
    }

    @Test func aStoreThatRefusesContentMD5GetsNone() throws {
        let log = LogCapture()
        let (server, store, tag) = try Operation.putChunk.prepare(logger: log)
        server.change { $0.refusesContentMD5 = true }
        #expect(Operation.putChunk.run(store, server, tag) == nil)
        #expect(server.requests(.put).map(\.status) == [501, 200])
        #expect(store.status.refusesContentMD5)
        #expect(log.lines(from: .notice).filter { $0.contains("refuses Content-MD5") }.count == 1)
        // Known from then on, by conditional PUTs, too.
        #expect(Operation.putChunk.run(store, server, tag) == nil)
        try store.put(PutRequest(.manifests, "m", [1], condition: .ifAbsent))
        let later = server.requests(.put).dropFirst(2)
        #expect(later.allSatisfy { $0.status != 501 && $0.headers["content-md5"] == nil })
        // The signed SHA-256 stays.
        #expect(later.allSatisfy { $0.headers["x-amz-content-sha256"]?.utf8.count == 64 })
    }
}
