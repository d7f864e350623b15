import Foundation
import GRDB

// GRDBReplication EXTENSION DIRECTORY
//
// A till: sales are written to a database that is replicated as they happen, and a
// report reads the replica, as it could on any machine that reaches the store.

struct Sale: Codable, FetchableRecord, PersistableRecord {
    var article: String
    var cents: Int
}

func takings(_ db: Database) throws -> String {
    let rows = try Row.fetchAll(
        db, sql: "SELECT article, count(*) AS n, sum(cents) AS cents FROM sale GROUP BY article ORDER BY article")
    return rows.map { "\($0["article"] as String): \($0["n"] as Int) for \($0["cents"] as Int) cents" }.joined(separator: ", ")
}

guard CommandLine.arguments.count == 3 else {
    print("usage: GRDBReplication path/of/libverneuil_vfs.so /absolute/path/of/a/directory")
    exit(2)
}
let directory = CommandLine.arguments[2]
try Verneuil.load(CommandLine.arguments[1])

// Where the data goes is in the database's name. (Or in VERNEUIL_CONFIG, for the whole process.)
let target = "verneuil_spooling_dir=\(directory)/spool&verneuil_target=directory:\(directory)/store"
let till = try DatabaseQueue(path: "file:\(directory)/till.db?vfs=verneuil&\(target)")
try till.write { db in
    try db.create(table: "sale", options: .ifNotExists) { table in
        table.autoIncrementedPrimaryKey("id")
        table.column("article", .text).notNull()
        table.column("cents", .integer).notNull()
    }
    for _ in 1...100 { try Sale(article: "coffee", cents: 250).insert(db) }
}
try till.flushReplication()

// An empty host is this machine; elsewhere, verneuil://HOST/PATH.
let report = try ReplicaQueue(uri: "file:verneuil://\(directory)/till.db?vfs=verneuil_snapshot&\(target)")
print("opened:   ", try report.queue.read(takings))

try till.write { db in
    for _ in 1...10 { try Sale(article: "cake", cents: 420).insert(db) }
}
try till.flushReplication()
print("unchanged:", try report.queue.read(takings))
try report.refresh()
print("refreshed:", try report.queue.read(takings))
print("till:     ", try till.read(takings))

do {
    try report.queue.write { db in try Sale(article: "water", cents: 100).insert(db) }
} catch {
    print("replicas are read only:", error)
}

do {
    _ = try DatabasePool(path: "file:\(directory)/pool.db?vfs=verneuil&\(target)")
} catch {
    print("a pool needs WAL:", error)
}
