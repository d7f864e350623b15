import Foundation
import ProductSupport
import TestServers
import Testing

/// `verneuilctl doctor` with things broken one by one.
@Suite struct DoctorTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    struct Check: Decodable {
        var subject: String
        var check: String
        var outcome: String
        var found: String
        var advice: String?
        var text: String { "\(subject): \(check): \(found): \(advice ?? "")" }
    }
    struct Answer: Decodable {
        var outcome: String
        var checks: [Check]
        var problems: [Check] { checks.filter { $0.outcome == "problem" } }
    }

    private func examine(
        _ config: String, _ databases: String..., environment: [String: String] = [:]
    ) throws -> Answer {
        let program = try Program.run(
            [Products.verneuilctl(), "--log", "critical", "doctor", "--json"] + databases,
            environment: environment.merging(["VERNEUIL_CONFIG": config]) { $1 }, directory: here.path)
        let answer = try JSONDecoder().decode(Answer.self, from: Data(program.output))
        #expect(program.status == (answer.problems.isEmpty ? 0 : 1), "\(program)")
        #expect((answer.outcome == "problem") == !answer.problems.isEmpty)
        // Whoever is told of a problem is told what to do.
        #expect(answer.problems.allSatisfy { $0.advice != nil })
        return answer
    }

    /// Exactly one problem, which says all of this.
    private func expectProblem(
        _ answer: Answer, _ words: String..., sourceLocation: SourceLocation = #_sourceLocation
    ) {
        let found = answer.problems.map(\.text)
        #expect(found.count == 1, "\(found)", sourceLocation: sourceLocation)
        for word in words {
            #expect(found.first?.contains(word) == true, "\"\(word)\" in \(found)", sourceLocation: sourceLocation)
        }
    }

    // MARK: Directories and files

    @Test func aSetUpThatWorksHasNoProblem() throws {
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)").status == 0)
        let fresh = try examine(here.configuration(spool: true), "app.db")
        #expect(fresh.problems.isEmpty, "\(fresh.problems)")
        #expect(fresh.checks.contains { $0.check == "existence" && $0.found.contains("made with the first commit") })
        // And looking makes nothing.
        #expect(!here.exists("spool") && !here.exists("store"))

        #expect(try here.extended("file:app.db?vfs=verneuil", "INSERT INTO t VALUES (1)", "PRAGMA verneuil_flush_replication_data").status == 0)
        let used = try examine(here.configuration(spool: true), "app.db")
        #expect(used.outcome == "ok", "\(used)")
        for check in ["boot id", "file system", "extended attributes", "chunks: write, read, remove", "journal mode", "permissions"] {
            #expect(used.checks.contains { $0.check == check && $0.outcome == "ok" }, "\(check)")
        }
        #expect(here.files("store").allSatisfy { !$0.contains("doctor") }, "the trial's objects are gone")
        let text = try here.verneuilctl("doctor", config: here.configuration(spool: true))
        #expect(text.status == 0 && text.text.hasSuffix("No problem found."), "\(text)")
    }

    @Test func configurationsThatMeanSomethingElse() throws {
        try here.write([], to: "app.db")
        expectProblem(
            try examine(here.configuration().replacing("{\"replication_targets", with: "{\"make_defualt\": true, \"replication_targets")),
            "did you mean \"make_default\"")
        expectProblem(try examine("{\"replication_spooling_dir\": \"\(here.file("spool"))\"}"), "nothing will be uploaded")
        expectProblem(try examine("{}"), "no \"s3\" and no \"directory\"")
    }

    @Test func directoriesThatCantBeUsed() throws {
        try here.write([1], to: "file")
        expectProblem(try examine(here.configuration(store: "file")), "is no directory", "directory \(here.file("file"))")
        let spool = here.configuration(spool: true)
        expectProblem(
            try examine(spool.replacing(here.file("spool"), with: here.file("file"))), "is no directory", "spooling directory")
        expectProblem(
            try examine(spool.replacing(here.file("spool"), with: "/dev/null/nowhere")), "can't make it in /dev/null", "spooling directory")
        expectProblem(
            try examine(spool.replacing("{\"replication_spooling", with: "{\"tempdir\": \"\(here.file("gone"))\", \"replication_spooling")),
            "temporary directory", "no such directory")
        try FileManager.default.createDirectory(atPath: here.file("spool"), withIntermediateDirectories: false)
        #expect(chmod(here.file("spool"), 0o755) == 0)
        expectProblem(try examine(spool), "0755", "chmod 0700")
        #expect(chmod(here.file("spool"), 0o700) == 0)
        #expect(try examine(spool).problems.isEmpty)
        try here.write([1], to: "store/chunks")
        expectProblem(try examine(spool), "chunks", "is no directory")
        // A mount point without its disk.
        try FileManager.default.createDirectory(atPath: here.file("mount"), withIntermediateDirectories: false)
        expectProblem(try examine(here.configuration(store: "mount/store")), "\(here.file("mount")) is empty", "Mount the disk")
    }

    /// As far as a program can tell; RealStopTests fill real ones.
    @Test func aFullDiskIsNotTakenForAPermission() throws {
        let shim = here.file("faultio.so")
        let compiled = try Program.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", shim, "\(Products.package)/Tests/Support/faultio/faultio.c", "-ldl"])
        try #require(compiled.status == 0, "\(compiled)")
        try FileManager.default.createDirectory(
            atPath: here.file("spool"), withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
        expectProblem(
            try examine(
                here.configuration(spool: true),
                environment: ["LD_PRELOAD": shim, "FAULTIO": "calls=pwrite;path=^\(here.file("spool"))/;at=1;times=0;errno=ENOSPC"]),
            "spooling directory", "No space left on device", "Free some space there")
    }

    @Test func databasesThatCantBeReplicated() throws {
        #expect(try here.sqlite("wal.db", "PRAGMA journal_mode=WAL", "CREATE TABLE t(x)").status == 0)
        expectProblem(try examine(here.configuration(), "wal.db"), "WAL", "PRAGMA journal_mode=DELETE")
        expectProblem(try examine(here.configuration(), "nothing.db"), "no such file")
        try here.write(Array("no database".utf8), to: "text.db")
        expectProblem(try examine(here.configuration(), "text.db"), "no SQLite database")
    }

    // MARK: S3

    private static let key = ["AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret"]

    private func configuration(_ endpoint: String, chunks: String, manifests: String, creates: Bool = false) -> String {
        """
        {"replication_targets": [{"s3": {"region": "us-east-1", "endpoint": "\(endpoint)", "chunk_bucket": "\(chunks)",
          "manifest_bucket": "\(manifests)", "domain_addressing": false, "create_buckets_on_demand": \(creates)}}]}
        """
    }

    /// Buckets that exist, as flush makes them.
    private func makeBuckets(_ endpoint: String, _ chunks: String, _ manifests: String) throws {
        #expect(try here.sqlite("seed.db", "CREATE TABLE t(x)").status == 0)
        let made = try here.verneuilctl(
            "sync", "seed.db", config: configuration(endpoint, chunks: chunks, manifests: manifests, creates: true),
            environment: Self.key)
        try #require(made.status == 0, "\(made)")
    }

    @Test func permissionsAreNamedOneByOne() throws {
        let server = try S3Server.rclone()
        let (chunks, manifests) = (S3Server.uniqueBucket("c"), S3Server.uniqueBucket("m"))
        try makeBuckets(server.endpoint, chunks, manifests)
        let proxy = try FaultProxy(to: server)
        let config = configuration(proxy.endpoint, chunks: chunks, manifests: manifests)

        let fine = try examine(config, environment: Self.key)
        #expect(fine.problems.isEmpty, "\(fine.problems)")
        #expect(fine.checks.contains { $0.check == "credentials" && $0.found.contains("the environment") })
        #expect(fine.checks.contains { $0.check == "clock" && $0.outcome == "ok" })

        for (bucket, request, skip, action) in [
            (chunks, "GET /\(chunks)[/]?\\\\?.*list-type", 0, "s3:ListBucket"),
            (manifests, "GET /\(manifests)[/]?\\\\?.*list-type", 0, "s3:ListBucket"),
            (chunks, "PUT /\(chunks)/verneuil-doctor", 0, "s3:PutObject"),
            (manifests, "PUT /\(manifests)/verneuil-doctor", 0, "s3:PutObject"),
            (chunks, "GET /\(chunks)/verneuil-doctor", 0, "s3:GetObject"),
            (manifests, "GET /\(manifests)/verneuil-doctor", 0, "s3:GetObject"),
            // The second PUT is the COPY onto itself.
            (chunks, "PUT /\(chunks)/verneuil-doctor", 1, "s3:GetObject and s3:PutObject"),
        ] {
            try proxy.set([.init("403", match: request, skip: skip)])
            expectProblem(try examine(config, environment: Self.key), "bucket \"\(bucket)\"", "Allow \(action) ")
        }
        // What replication doesn't need is no problem.
        try proxy.set([.init("403", match: "DELETE ")])
        let kept = try examine(config, environment: Self.key)
        #expect(kept.problems.isEmpty && kept.checks.contains { $0.found.contains("verneuil-doctor stays there") }, "\(kept.problems)")
    }

    /// As AWS denies: an action with all requests that need it. What is denied is named, in its bucket, and nothing else is.
    @Test func eachDeniedActionIsNamedAndNoOther() throws {
        let server = try S3Server.rclone()
        let (chunks, manifests) = (S3Server.uniqueBucket("c"), S3Server.uniqueBucket("m"))
        try makeBuckets(server.endpoint, chunks, manifests)
        let proxy = try FaultProxy(to: server)
        let config = configuration(proxy.endpoint, chunks: chunks, manifests: manifests)
        let actions = ["s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:GetLifecycleConfiguration", "s3:GetBucketVersioning", "s3:DeleteObject"]
        /// What can't be looked at without permission is no problem of replication's.
        let optional: Set = ["s3:GetLifecycleConfiguration", "s3:GetBucketVersioning", "s3:DeleteObject"]
        for bucket in [chunks, manifests] {
            func requests(_ action: String) -> [FaultProxy.Rule] {
                switch action {
                case "s3:ListBucket": [.init("403", match: "HEAD /\(bucket)/?$"), .init("403", match: "GET /\(bucket)/?[?].*list-type")]
                // The copy reads, too: the second PUT of an object.
                case "s3:GetObject": [.init("403", match: "(GET|HEAD) /\(bucket)/[^?]"), .init("403", match: "PUT /\(chunks)/verneuil-doctor", skip: bucket == chunks ? 1 : .max)]
                case "s3:PutObject": [.init("403", match: "PUT /\(bucket)/[^?]")]
                case "s3:GetLifecycleConfiguration": [.init("403", match: "GET /\(bucket)/?[?]lifecycle")]
                case "s3:GetBucketVersioning": [.init("403", match: "GET /\(bucket)/?[?]versioning")]
                default: [.init("403", match: "DELETE /\(bucket)/")]
                }
            }
            for action in actions {
                try proxy.set(requests(action))
                let answer = try examine(config, environment: Self.key)
                let told = answer.checks.filter { check in actions.contains { check.advice?.contains("Allow ") == true && check.advice?.contains($0) == true } }
                let place = "\(action) on \(bucket == chunks ? "chunks" : "manifests"): \(answer.checks.filter { $0.outcome != "ok" }.map(\.text))"
                if action == "s3:DeleteObject" {
                    #expect(told.isEmpty && answer.checks.contains { $0.check.contains(bucket) && $0.found.contains("stays there") }, "\(place)")
                } else {
                    #expect(!told.isEmpty && told.allSatisfy { $0.check.contains(bucket) && $0.advice?.contains("Allow \(action) ") == true }, "\(place)")
                }
                #expect(answer.problems.isEmpty == optional.contains(action), "\(place)")
                // Besides what is told of it, all is as without rules.
                #expect(answer.problems.allSatisfy { problem in told.contains { $0.check == problem.check } }, "\(place)")
            }
        }
        // Making a bucket can't be tried without making it: the first upload says it.
        try proxy.set([.init("403", match: "PUT /[^/?]*/?$")])
        let new = configuration(proxy.endpoint, chunks: S3Server.uniqueBucket("c"), manifests: manifests, creates: true)
        let synced = try here.verneuilctl("sync", "seed.db", config: new, environment: Self.key)
        #expect(synced.status == 1 && synced.errors.contains("s3:CreateBucket"), "\(synced)")
    }

    @Test func credentialsServersAndBuckets() throws {
        let server = try S3Server.rclone()
        let (chunks, manifests) = (S3Server.uniqueBucket("c"), S3Server.uniqueBucket("m"))
        let config = configuration(server.endpoint, chunks: chunks, manifests: manifests)
        let absent = try examine(config, environment: Self.key)
        #expect(absent.problems.count == 2 && absent.problems.allSatisfy { $0.advice?.contains("create_buckets_on_demand") == true }, "\(absent)")
        let onDemand = try examine(
            configuration(server.endpoint, chunks: chunks, manifests: manifests, creates: true), environment: Self.key)
        #expect(onDemand.problems.isEmpty, "\(onDemand.problems)")
        #expect(onDemand.checks.contains { $0.found.contains("s3:CreateBucket") })

        try makeBuckets(server.endpoint, chunks, manifests)
        #expect(try examine(config, environment: Self.key).problems.isEmpty)
        expectProblem(try examine(config), "credentials", "AWS_ACCESS_KEY_ID")
        expectProblem(
            try examine(config, environment: ["AWS_ACCESS_KEY_ID": "testkey"]), "credentials", "AWS_SECRET_ACCESS_KEY is not")
        // Who isn't believed is not told of permissions.
        for (variable, value, reason) in [
            ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret access key from the environment is wrong"),
            ("AWS_ACCESS_KEY_ID", "another", "does not know the access key from the environment"),
        ] {
            let wrong = try examine(config, environment: Self.key.merging([variable: value]) { $1 })
            expectProblem(wrong, "credentials", reason, "Correct them where they come from: the environment.")
            #expect(!wrong.checks.contains { $0.advice?.contains("Allow") == true }, "\(wrong)")
        }
        expectProblem(
            try examine(configuration("http://127.0.0.1:1", chunks: chunks, manifests: manifests), environment: Self.key),
            "connection", "127.0.0.1:1")
    }

    /// A real gateway's retention and versioning.
    @Test func retentionIsJudgedByThePatrolsAge() throws {
        let server = try S3Server.ceph()
        let (chunks, manifests) = (S3Server.uniqueBucket("c"), S3Server.uniqueBucket("m"))
        try makeBuckets(server.endpoint, chunks, manifests)
        let config = configuration(server.endpoint, chunks: chunks, manifests: manifests)
        func put(_ bucket: String, _ what: String, _ xml: String) throws {
            let program = try Program.run(
                ["python3", "\(SupervisedProcess.scripts)/s3put.py", "\(server.endpoint)/\(bucket)?\(what)"],
                environment: ["S3_KEY": server.accessKey, "S3_SECRET": server.secretKey], input: Array(xml.utf8))
            try #require(program.status == 0, "\(program)")
        }
        func rule(_ content: String) -> String {
            "<LifecycleConfiguration><Rule><ID>old</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\(content)</Rule></LifecycleConfiguration>"
        }
        let plain = try examine(config, environment: Self.key)
        #expect(plain.outcome == "ok", "\(plain)")
        #expect(plain.checks.contains { $0.found == "If-None-Match is honoured" })
        #expect(plain.checks.contains { $0.found == "none deletes anything" })
        func advice(_ answer: Answer, _ check: String) -> String { answer.checks.first { $0.check == check }?.advice ?? "" }
        // Without versions there is no going back.
        #expect(advice(plain, "bucket \"\(manifests)\": versioning").contains("to be able to go back"), "\(plain)")
        #expect(advice(plain, "bucket \"\(chunks)\": versioning").isEmpty, "\(plain)")

        try put(chunks, "lifecycle", rule("<Expiration><Days>3</Days></Expiration>"))
        expectProblem(try examine(config, environment: Self.key), "rule \"old\" deletes chunks after 3 days", "7 days or more")
        // Two days are left for a machine that is off.
        try put(chunks, "lifecycle", rule("<Expiration><Days>6</Days></Expiration>"))
        expectProblem(try examine(config, environment: Self.key), "deletes chunks after 6 days")
        try put(chunks, "lifecycle", rule("<Expiration><Days>30</Days></Expiration>"))
        #expect(try examine(config, environment: Self.key).problems.isEmpty)
        // Nothing tells the two kinds of objects apart where they share a bucket.
        let single = configuration(server.endpoint, chunks: chunks, manifests: chunks)
        expectProblem(try examine(single, environment: Self.key), "deletes manifests after 30 days", "use two buckets")
        try put(manifests, "versioning", "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>")
        let versioned = try examine(config, environment: Self.key)
        expectProblem(versioned, "bucket \"\(manifests)\": versioning", "NoncurrentVersionExpiration")
        #expect(versioned.problems.allSatisfy { $0.advice?.contains("uspend") == false }, "that would give up the history: \(versioned.problems)")
        try put(manifests, "lifecycle", rule("<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration>"))
        #expect(try examine(config, environment: Self.key).problems.isEmpty)
        try put(manifests, "lifecycle", rule("<Expiration><Days>90</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration>"))
        expectProblem(try examine(config, environment: Self.key), "deletes manifests after 90 days")
    }

    @Test func aClockThatIsOff() throws {
        let server = Process()
        server.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        server.arguments = [
            "python3", "-c",
            """
            import http.server, time, threading, os
            class Handler(http.server.BaseHTTPRequestHandler):
                def date_time_string(self, timestamp=None): return super().date_time_string(time.time() - 7200)
                def answer(self):
                    self.rfile.read(int(self.headers.get("content-length", 0)))
                    self.send_response(404 if self.command == "GET" else 200); self.send_header("content-length", "0"); self.end_headers()
                do_HEAD = do_GET = do_PUT = do_DELETE = answer
                def log_message(self, *a): pass
            s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Timer(120, os._exit, (1,)).start()
            print(s.server_port, flush=True)
            s.serve_forever()
            """,
        ]
        let pipe = Pipe()
        server.standardOutput = pipe
        try server.run()
        defer { server.terminate() }
        let port = String(decoding: pipe.fileHandleForReading.availableData, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let answer = try examine(configuration("http://127.0.0.1:\(port)", chunks: "ccc", manifests: "mmm"), environment: Self.key)
        let clock = try #require(answer.checks.first { $0.check == "clock" })
        #expect(clock.outcome == "problem" && clock.found.contains("ahead of"), "\(clock)")
        #expect(clock.advice?.contains("NTP") == true)
    }
}
