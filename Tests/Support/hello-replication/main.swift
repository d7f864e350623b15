import CSQLite
import Verneuil

// A whole program: hello-replication DIRECTORY

let directory = CommandLine.arguments[1]
var configuration = Configuration()
configuration.spoolingDirectory = "\(directory)/spool"
configuration.targets = [.directory(.init(path: "\(directory)/store"))]
print(try Replication.configure(configuration), try Replication.configure(configuration), try Replication.configure())

var db: OpaquePointer?
sqlite3_open_v2("file:\(directory)/hello.db?vfs=verneuil", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, nil)
sqlite3_exec(db, "CREATE TABLE t(x); INSERT INTO t VALUES (42)", nil, nil, nil)
try Replication.flush("\(directory)/hello.db")
sqlite3_close(db)

sqlite3_open_v2("file:verneuil://\(directory)/hello.db?vfs=verneuil_snapshot", &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, nil)
sqlite3_exec(db, "SELECT x FROM t", { _, _, values, _ in
    print(values?.pointee.map { String(cString: $0) } ?? "nothing")
    return 0
}, nil, nil)
sqlite3_close(db)

configuration.makeDefault = true
print(try Replication.configure(configuration))
do { try Replication.flush("\(directory)/nothing.db") } catch { print(error) }
