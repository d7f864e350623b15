import CSQLite
import Verneuil

let directory = CommandLine.arguments[1]
var configuration = Configuration()
configuration.spoolingDirectory = "\(directory)/spool"
configuration.targets = [.directory(.init(path: "\(directory)/store"))]
try Replication.configure(configuration)
var db: OpaquePointer?
sqlite3_open_v2("file:\(directory)/app.db?vfs=verneuil", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil)
sqlite3_exec(db, "CREATE TABLE t(x)", nil, nil, nil)
try await Replication.flush("\(directory)/app.db")
let replica = try await Replica.open(DatabaseSource(path: "\(directory)/app.db"))
print(replica.snapshot.length, "bytes are stored")

// That is the whole of hello, world. The rest is what LibraryTests looks at.
if CommandLine.arguments.last == "obstacles" { try await Obstacles(directory).run(db) } else { try await Examples(directory).run(db) }
sqlite3_close(db)
