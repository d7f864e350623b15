import CSQLite
import Logging
import Metrics
import MetricsTestKit
import Verneuil

// A program with a log handler and a metrics factory of its own, as LibraryTests wants to see them used: what they get goes to
// standard output, a line each.

/// Prints the level, the label, the message and the metadata of ours.
struct Handler: LogHandler {
    var label: String
    var logLevel = Logger.Level.info
    var metadata: Logger.Metadata = [:]
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let pairs = (event.metadata ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        print("log|\(event.level)|\(label)|\(event.message)|\(pairs.joined(separator: ","))")
    }
}
LoggingSystem.bootstrap { Handler(label: $0) }
let metrics = TestMetrics()
MetricsSystem.bootstrap(metrics)

let directory = CommandLine.arguments[1]
var configuration = Configuration()
configuration.spoolingDirectory = "\(directory)/spool"
configuration.targets = [.directory(.init(path: "\(directory)/store"))]
// The gauge is set with each look at the spool.
configuration.pacing.scanInterval = 1
// An extension of the program's own that fails keeps ours from SQLite: that is told, and can be tried again.
let failing: @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?, UnsafeRawPointer?) -> Int32 = { _, _, _ in SQLITE_ERROR }
let entry = unsafeBitCast(failing, to: (@convention(c) () -> Void).self)
sqlite3_auto_extension(entry)
do { try Replication.configure(configuration) } catch { print("refused:", error.cause) }
sqlite3_cancel_auto_extension(entry)
try Replication.configure(configuration)
var db: OpaquePointer?
sqlite3_open_v2("file:\(directory)/app.db?vfs=verneuil", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil)
sqlite3_exec(db, "CREATE TABLE t AS SELECT 1 AS x", nil, nil, nil)
try await Replication.flush("\(directory)/app.db")

let of = [("database", "\(directory)/app.db"), ("target", "directory \(directory)/store")]
print("stored:", try metrics.expectCounter("verneuil_snapshots_stored_total", of).totalValue >= 1)
print("requests:", try metrics.expectCounter("verneuil_upload_requests_total", of).totalValue >= 1)
print("bytes:", try metrics.expectCounter("verneuil_upload_bytes_total", of).totalValue >= 100)
let gauge = try metrics.expectGauge("verneuil_replication_lag_seconds", of)
for _ in 0..<600 where gauge.lastValue == nil { try await Task.sleep(nanoseconds: 100_000_000) }
print("lag:", gauge.lastValue ?? -1)
sqlite3_close(db)
