import VerneuilCore
import VerneuilReplication
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// Two buckets, with the requests that replication makes, one by one.
struct S3Doctor {
    private let store: S3Store
    private let configuration: Configuration
    static let probe = "verneuil-doctor"

    /// Days after which a live chunk is touched at the latest, while its machine runs.
    private let patrolDays: Int

    init(_ store: S3Store, _ configuration: Configuration) {
        self.store = store
        self.configuration = configuration
        patrolDays = Int((configuration.pacing.patrolMaxAge / 86_400).rounded(.up))
    }

    func examine() -> [DoctorCheck] {
        var chart = DoctorChart(store.name)
        guard reach(&chart) else { return chart.checks }
        let s3 = store.configuration
        for space in s3.chunkBucket == s3.manifestBucket ? [ObjectSpace.chunks] : ObjectSpace.allCases {
            let bucket = space == .chunks ? s3.chunkBucket : s3.manifestBucket
            if examine(space, "bucket \"\(bucket)\"", &chart) {
                retention(space, "bucket \"\(bucket)\"", &chart)
            }
        }
        return chart.checks
    }

    // MARK: Server and credentials

    /// false where nothing else can be asked.
    private func reach(_ chart: inout DoctorChart) -> Bool {
        do throws(StoreError) {
            let offset = try store.clockOffset(.chunks)
            credentials(&chart)
            clock(offset, &chart)
            return true
        } catch {
            switch error.kind {
            case .noSuchSpace:
                credentials(&chart)
                return true
            case .denied:
                guard let source = store.status.credentialSource else {
                    chart.problem(
                        "credentials", error.reason,
                        advice: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role.")
                    return false
                }
                if let refusal = identityRefusal(error) {
                    chart.problem("credentials", refusal, advice: "Correct them where they come from: \(source).")
                    return false
                }
                // It knows us; what it objects to is found below.
                credentials(&chart)
                return true
            case .unavailable:
                chart.problem("connection", error.reason, advice: "Check the endpoint, the network and its proxies.")
            default:
                chart.problem("connection", error.reason, advice: "Check region and endpoint.")
            }
            return false
        }
    }

    /// The reason, where the store doesn't believe who we are: then nothing that it denies says anything of permissions. The
    /// answer to a HEAD has none: it is asked once more.
    private func identityRefusal(_ error: StoreError) -> String? {
        func isAboutIdentity(_ error: StoreError) -> Bool {
            ["access key", "session token", "clock"].contains { error.reason.contains($0) }
        }
        if isAboutIdentity(error) { return error.reason }
        do throws(StoreError) { _ = try store.list(.chunks, prefix: Self.probe) } catch {
            if isAboutIdentity(error) { return error.reason }
        }
        return nil
    }

    private func credentials(_ chart: inout DoctorChart) {
        let status = store.status
        let source = status.credentialSource ?? "nowhere"
        if let expiration = status.credentialExpiration {
            chart.ok("credentials", "from \(source), for \(max(0, expiration - wallClock().seconds)) s; renewed before")
        } else {
            chart.ok("credentials", "from \(source)")
        }
    }

    private func clock(_ offset: Int64?, _ chart: inout DoctorChart) {
        guard let offset else { return chart.unknown("clock", "the server sends no date") }
        if abs(offset) <= 60 {
            chart.ok("clock", "within a minute of the server's")
        } else {
            chart.problem(
                "clock", "\(abs(offset)) s \(offset > 0 ? "behind" : "ahead of") the server's",
                advice: "Set it by NTP: from 900 s on, servers refuse other programs' requests; this one takes the server's time.")
        }
    }

    // MARK: Permissions

    /// false where there is no such bucket.
    private func examine(_ space: ObjectSpace, _ bucket: String, _ chart: inout DoctorChart) -> Bool {
        var isThere = true
        attempt(bucket, "list objects", "s3:ListBucket", "Without it, verify needs --deep.", &chart) { () throws(StoreError) in
            do throws(StoreError) {
                _ = try store.list(space, prefix: Self.probe)
            } catch where error.kind == .noSuchSpace {
                isThere = false
                throw error
            }
            return nil
        }
        guard isThere else { return false }
        let body = Array("verneuilctl doctor was here; this object can be deleted.\n".utf8)
        let isWritten = attempt(bucket, "put an object", "s3:PutObject", nil, &chart) { () throws(StoreError) in
            try store.put(PutRequest(space, Self.probe, body, urgency: .interactive))
            return nil
        }
        attempt(bucket, "get an object", "s3:GetObject", nil, &chart) { () throws(StoreError) in
            switch try store.get(GetRequest(space, Self.probe, limit: 1 << 16)) {
            case .found(body, _): return nil
            case .found: return "the object that was put comes back with other bytes"
            case .missing, .notModified: return isWritten ? "the object that was put is not there" : nil
            }
        }
        guard isWritten else { return true }
        if space == .chunks {
            attempt(bucket, "renew an object's age", "s3:GetObject and s3:PutObject", "The patrol needs it.", &chart) { () throws(StoreError) in
                try store.touch(space, Self.probe, urgency: .interactive) ? nil : "the object that was put is not there"
            }
        } else {
            conditions(space, bucket, &chart)
        }
        do throws(StoreError) { try store.delete(space, Self.probe) } catch {
            chart.ok(
                "\(bucket): remove the object of this trial", "not allowed; \(Self.probe) stays there",
                advice: "Replication deletes nothing, so that this is fine.")
        }
        return true
    }

    /// Runs a request; `body` answers what is odd about its answer.
    @discardableResult
    private func attempt(
        _ bucket: String, _ what: String, _ permission: String, _ hint: String?, _ chart: inout DoctorChart,
        _ body: () throws(StoreError) -> String?
    ) -> Bool {
        let check = "\(bucket): \(what)"
        do throws(StoreError) {
            if let odd = try body() {
                chart.problem(check, odd, advice: "Check what stands between this machine and the store.")
                return false
            }
            chart.ok(check, permission)
            return true
        } catch {
            switch error.kind {
            case .denied:
                chart.problem(
                    check, error.reason,
                    advice: "Allow \(permission) in the policy of these credentials, and in the bucket's."
                        + (hint.map { " \($0)" } ?? ""))
            case .noSuchSpace:
                if store.configuration.createBucketsOnDemand {
                    chart.ok(check, "there is no such bucket; it is made with the first upload (s3:CreateBucket)")
                } else {
                    chart.problem(check, error.reason, advice: "Make the bucket, or set create_buckets_on_demand.")
                }
            case .unavailable:
                chart.problem(check, error.reason, advice: "The store can't do its work at the moment; try again later.")
            default:
                chart.problem(check, error.reason, advice: "Check region, endpoint and bucket.")
            }
            return false
        }
    }

    private func conditions(_ space: ObjectSpace, _ bucket: String, _ chart: inout DoctorChart) {
        let check = "\(bucket): conditional PUT"
        do throws(StoreError) {
            try store.put(PutRequest(space, Self.probe, [1], condition: .ifAbsent, urgency: .interactive))
            chart.unknown(
                check, "If-None-Match is ignored: an object that is there was replaced",
                advice: "Let no two machines replicate a database of the same name.")
        } catch {
            switch error.kind {
            case .conditionFailed: chart.ok(check, "If-None-Match is honoured")
            case .conditionUnsupported:
                chart.unknown(
                    check, "the store has none", advice: "Let no two machines replicate a database of the same name.")
            default: chart.unknown(check, error.reason)
            }
        }
    }

    // MARK: Retention

    private func retention(_ space: ObjectSpace, _ bucket: String, _ chart: inout DoctorChart) {
        var rules: [S3LifecycleRule]?
        let check = "\(bucket): lifecycle rules"
        do throws(StoreError) {
            let found = try store.lifecycle(space).filter(\.isEnabled)
            rules = found
            judge(found, space, check, &chart)
        } catch {
            chart.unknown(
                check, error.reason,
                advice: error.kind == .denied
                    ? "Allow s3:GetLifecycleConfiguration for this check, or look yourself: chunks must live for \(leastDays) days or more." : nil)
        }
        let versions = "\(bucket): versioning"
        do throws(StoreError) {
            let versioning = try store.versioning(space)
            // Rules that can't be read were told of above.
            let isBounded = rules?.contains { $0.noncurrentDays != nil } ?? true
            switch (versioning, holdsManifests(space)) {
            case (.enabled, let isHistory) where !isBounded:
                chart.problem(
                    versions, "on, and no lifecycle rule deletes versions that were replaced: each \(isHistory ? "upload" : "renewal") leaves one for ever",
                    advice: isHistory
                        ? "Add a rule with NoncurrentVersionExpiration, after as many days as you want to be able to go back."
                        : "Suspend versioning: history needs that of manifests alone. Let a rule with NoncurrentVersionExpiration remove what is there.")
            case (.enabled, false):
                chart.ok(versions, versioning.rawValue, advice: "Chunks need none: each renewal leaves a version that is paid for.")
            case (.off, true), (.suspended, true):
                chart.ok(
                    versions, "\(versioning.rawValue): only the newest state of each database can be restored",
                    advice: "Turn it on to be able to go back, with a rule with NoncurrentVersionExpiration: docs/OPERATIONS.md, Buckets.")
            default: chart.ok(versions, versioning.rawValue)
            }
        } catch {
            chart.unknown(
                versions, error.reason,
                advice: error.kind == .denied ? "Allow s3:GetBucketVersioning for this check." : nil)
        }
    }

    private func holdsManifests(_ space: ObjectSpace) -> Bool {
        space == .manifests || store.configuration.chunkBucket == store.configuration.manifestBucket
    }

    /// Days that a chunk has to stay after its last renewal: the patrol's, and two in which its machine may be off.
    private var leastDays: Int { patrolDays + 2 }

    private func judge(_ rules: [S3LifecycleRule], _ space: ObjectSpace, _ check: String, _ chart: inout DoctorChart) {
        let expiring = rules.filter { $0.expirationDays != nil }
        for rule in expiring {
            let days = rule.expirationDays ?? 0
            let name = rule.id.isEmpty ? "a rule" : "rule \"\(rule.id)\""
            if holdsManifests(space) {
                chart.problem(
                    check, "\(name) deletes manifests after \(days) days in which nobody renews them",
                    advice: "Take it off the manifests. The patrol renews those of databases that were opened since their machine started; "
                        + "the backup of a machine that is gone would be lost."
                        + (space == .chunks ? " No prefix tells manifests from chunks: where chunks shall expire, use two buckets." : ""))
            } else if days < leastDays {
                chart.problem(
                    check, "\(name) deletes chunks after \(days) days, perhaps before they are renewed",
                    advice: "Chunks of live databases are touched after \(patrolDays) days at the latest (patrol_max_age_days): "
                        + "set it to \(leastDays) days or more, longer if a machine may be off for more than 2 days, plus the days that "
                        + "replaced manifests are kept.")
            } else {
                chart.ok(check, "\(name) deletes chunks \(days) days after they were last renewed")
            }
        }
        if expiring.isEmpty {
            chart.ok(
                check, "none deletes anything",
                advice: holdsManifests(space)
                    ? nil
                    : "Chunks that no database needs any more stay for ever: a rule that expires them saves their cost, after \(leastDays) days, "
                        + "plus the days that replaced manifests are kept.")
        }
    }
}
