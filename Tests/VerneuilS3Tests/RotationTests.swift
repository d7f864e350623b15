import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

@Suite struct RotationTests {
    /// 1,000 rotations under load: 200 stores, whose container hands out credentials for three seconds, make requests all the
    /// time. The server refuses what has expired by a second's fraction; new credentials are there before.
    @Test func credentialsAreRenewedBeforeTheyExpire() throws {
        let s3 = try FakeS3()
        s3.put("bucket", "k", [1])
        let expirations = Box<[String: Int64]>([:])
        let issued = Box(0)
        let agent = try LoopbackServer { _ in
            issued.change { $0 += 1 }
            let name = "AK\(issued.value)-\(UInt32.random(in: 0 ... .max))"
            let expiration = wallClock().seconds + 3
            expirations.change { $0[name] = expiration }
            return .answer(
                .init(
                    200,
                    "{\"AccessKeyId\": \"\(name)\", \"SecretAccessKey\": \"s\", \"Token\": \"t\", \"Expiration\": \"\(Clock.iso(expiration))\"}"))
        }
        let refused = Box(0)
        s3.change {
            $0.judge = { key, _ in
                guard let expiration = expirations.value[key] else { return (403, "InvalidAccessKeyId") }
                if expiration > wallClock().seconds { return nil }
                refused.change { $0 += 1 }
                return (400, "ExpiredToken")
            }
        }
        let environment = Environment(["AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.endpoint])
        let failures = Box<[String]>([])
        let requests = Box(0)
        let isOver = Box(false)
        let running = Box(0)
        var stores: [S3Store] = []
        for _ in 0..<200 {
            var configuration = S3Configuration(
                region: "us-east-1", endpoint: s3.endpoint, chunkBucket: "bucket", manifestBucket: "bucket",
                pacing: S3Pacing(background: .init(requestsPerSecond: 4, burst: 1)))
            configuration.maximumConnections = 1
            let store = try S3Store(configuration, environment: environment)
            stores.append(store)
            running.change { $0 += 1 }
            @Sendable func next() {
                store.get(GetRequest(.chunks, "k", limit: 10, urgency: .background)) { result in
                    requests.change { $0 += 1 }
                    if case .failure(let error) = result { failures.change { $0.append("\(error)") } }
                    if isOver.value { running.change { $0 -= 1 } } else { next() }
                }
            }
            next()
        }
        let start = MonotonicTime.now
        while issued.value < 1200, MonotonicTime.now.seconds(since: start) < 60 { usleep(50_000) }
        isOver.change { $0 = true }
        while running.value > 0, MonotonicTime.now.seconds(since: start) < 70 { usleep(20_000) }
        // Each store's first credentials are no rotation.
        #expect(issued.value >= 1200)
        #expect(failures.value.isEmpty, "\(failures.value.first ?? "")")
        #expect(requests.value > 2000)
        // A machine that stands still for a second is late; then the refusal is mended by the request itself.
        #expect(refused.value < 50)
    }
}
