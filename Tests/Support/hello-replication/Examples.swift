import CSQLite
import Logging
import Verneuil

/// What the documentation shows, compiled and run: every block of Swift in it stands here as well
/// (DocumentationTests of VerneuilExtensionTests).
struct Examples {
    let directory: String
    init(_ directory: String) { self.directory = directory }

    func run(_ db: OpaquePointer?) async throws {
        try Replication.configure(configuration())
        try Replication.configure()
        print("again")
        var other = configuration()
        other.makeDefault = true
        do { try Replication.configure(other) } catch { print("another:", error.cause, error) }
        other.pacing.workers = 0
        do { try Replication.configure(other) } catch { print("unusable:", error) }

        let source = DatabaseSource(path: "\(directory)/app.db")
        let replica = try await Replica.open(source)
        let before = replica.snapshot
        sqlite3_exec(db, "INSERT INTO t VALUES (42)", nil, nil, nil)
        try await Replication.flush("\(directory)/app.db")
        print("known:", replica.snapshot.fingerprint == before.fingerprint)
        let after = try await replica.refresh()
        print("refreshed:", after.fingerprint != before.fingerprint, after.length, after.chunkCount, after.generatedBy.hasPrefix("verneuil-swift 0.1"))
        print("changed:", after.changed.map { $0 > .seconds(1_700_000_000) } ?? false, after.fetched > .seconds(1_700_000_000))
        print("replica:", query(replica.uri, "SELECT x FROM t"))

        let report = try await Replication.restore(source, to: "\(directory)/restored.db")
        print("restored:", report.length, query("file:\(directory)/restored.db", "SELECT x FROM t"))

        let verdicts = try await Replication.verify(source, deep: true, against: "\(directory)/app.db")
        print("verified:", verdicts.map(\.outcome), verdicts.flatMap(\.findings))

        do { try await Replication.flush("\(directory)/nothing.db") } catch { print(error.cause, error) }
        do { _ = try await Replica.open(DatabaseSource(path: "\(directory)/nothing.db")) } catch { print(error) }
        do { _ = try DatabaseSource(reference: "ftp://x/y") } catch { print(error) }
        try await anotherTarget()
        let status = await Replication.status()
        print("status:", status.map { $0.databases.count }, status.allSatisfy { $0.isFine(limit: 1) })
        print("lag:", await Replication.status(of: "\(directory)/app.db")?.lag ?? 0)
        synchronous()

        // Tasks don't wait for one another: waiting is done elsewhere.
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<32 { group.addTask { try await Replication.flush("\(directory)/app.db") } }
            try await group.waitForAll()
        }
        print("32 at once")
    }

    // MARK: not run: they name places that aren't here

    func configureForS3() throws {
        var configuration = Configuration()
        configuration.spoolingDirectory = "/var/spool/app"
        configuration.targets = [
            .s3(.init(region: "us-east-1", chunkBucket: "app-chunks", manifestBucket: "app-manifests"))
        ]
        try Replication.configure(configuration)
    }

    func configureFromTheEnvironment() throws {
        try Replication.configure()
    }

    func configureGently() throws {
        var configuration = Configuration()
        configuration.spoolingDirectory = "/var/spool/app"
        configuration.targets = [
            .s3(.init(region: "us-east-1", chunkBucket: "app-chunks", manifestBucket: "app-manifests"))
        ]
        configuration.pacing.requestsPerSecond = 10
        try Replication.configure(configuration)
    }

    func sources() throws -> [DatabaseSource] {
        let here = DatabaseSource(path: "/srv/app.db")
        let elsewhere = DatabaseSource(path: "/srv/app.db", host: "db1.example.com")
        let saved = try DatabaseSource(reference: "/backup/app.manifest")
        return [here, elsewhere, saved]
    }

    func flushAndWaitHere() throws {
        try Replication.flushBlocking("/srv/app.db", timeout: .seconds(30))
    }

    func statusOfOne() async {
        if let database = await Replication.status(of: "/srv/app.db") {
            print(database.lag ?? 0, "s behind", database.problems, database.targets.flatMap(\.problems))
        }
    }

    func configureForADirectory() throws {
        var configuration = Configuration()
        configuration.spoolingDirectory = "/var/spool/app"
        configuration.targets = [.directory(.init(path: "/mnt/backup"))]
        try Replication.configure(configuration)
    }

    func flush() async throws {
        try await Replication.flush("/srv/app.db", timeout: .seconds(30))
    }

    func replica() async throws {
        let replica = try await Replica.open(DatabaseSource(path: "/srv/app.db", host: "db1.example.com"))
        print(replica.snapshot.length, "bytes as of", replica.snapshot.changed ?? .zero)
        let uri = replica.uri
        let facts = try await replica.refresh()
        print(uri, facts)
    }

    func restore() async throws {
        let source = try DatabaseSource(reference: "verneuil://db1.example.com/srv/app.db")
        try await Replication.restore(source, to: "/srv/restored.db")
    }

    func verify() async throws {
        for found in try await Replication.verify(DatabaseSource(path: "/srv/app.db"), deep: true) {
            print(found.store, found.outcome, found.findings)
        }
    }

    func status() async {
        for spool in await Replication.status() where !spool.isFine(limit: 60) {
            print(spool.directory, spool.problems, spool.databases.filter { $0.lag ?? 0 > 60 }.map(\.path))
        }
    }

    /// A process's logging is set up once.
    func logging() {
        LoggingSystem.bootstrap { label in
            var handler = StreamLogHandler.standardError(label: label)
            handler.logLevel = label.hasPrefix("verneuil") ? .info : .notice
            return handler
        }
    }

    /// A database of this process that goes elsewhere.
    private func anotherTarget() async throws {
        let targets = [Configuration.Target.directory(.init(path: "\(directory)/else where"))]
        let uri = Replication.uri(
            forDatabase: "\(directory)/b&c.db", spoolingDirectory: "\(directory)/spool2", targets: targets)
        var db: OpaquePointer?
        defer { sqlite3_close(db) }
        sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil)
        sqlite3_exec(db, "CREATE TABLE t(x)", nil, nil, nil)
        try await Replication.flush("\(directory)/b&c.db")
        let replica = DatabaseSource(path: "\(directory)/b&c.db").uri ?? ""
        print("elsewhere:", query(replica, "SELECT count(*) FROM t"))
    }

    func uri() -> String {
        let uri = Replication.uri(
            forDatabase: "/srv/b.db", spoolingDirectory: "/var/spool/b", targets: [.directory(.init(path: "/mnt/b"))])
        return uri
    }

    func takeOver() async throws {
        do { try await Replication.flush("/srv/app.db") } catch where error.cause == .fenced {
            // Where somebody has decided that this machine is the right one.
            try await Replication.sync("/srv/app.db", takeOver: true)
        }
    }

    func restoreFromYesterdays() async throws {
        var options = RestoreOptions()
        options.base = "/srv/yesterday.db"
        options.progress = { done, total in print(done, "of", total, "bytes") }
        try await Replication.restore(DatabaseSource(path: "/srv/app.db"), to: "/srv/restored.db", options: options)
    }

    private func synchronous() {
        do { try Replication.flushBlocking("\(directory)/app.db", timeout: .seconds(60)) } catch { print(error) }
    }

    private func query(_ uri: String, _ sql: String) -> String {
        var db: OpaquePointer?
        defer { sqlite3_close(db) }
        guard sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, nil) == SQLITE_OK else { return "can't open" }
        var statement: OpaquePointer?
        defer { sqlite3_finalize(statement) }
        guard sqlite3_prepare_v2(db, sql, -1, &statement, nil) == SQLITE_OK, sqlite3_step(statement) == SQLITE_ROW else {
            return "no row"
        }
        return String(cString: sqlite3_column_text(statement, 0))
    }

    private func configuration() -> Configuration {
        var configuration = Configuration()
        configuration.spoolingDirectory = "\(directory)/spool"
        configuration.targets = [.directory(.init(path: "\(directory)/store"))]
        return configuration
    }
}
