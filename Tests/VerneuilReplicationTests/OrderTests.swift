import CVerneuil
import Logging
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilSpool
import VerneuilSystem

/// Of the databases that a scan finds, who has waited longest is served first.
@Suite(.serialized) struct OrderTests {
    @Test func databasesThatLagAreServedInTheOrderInWhichTheyBeganToWait() throws {
        // Without targets, so that all of it waits.
        let file = try ReplicatedFile([]) { $0.commitBudget = 60 }
        let first = try file.connect()
        var all: [(path: String, db: SQLiteConnection)] = [(file.path, first)]
        // That the spool's directory has eight of them in this order by chance happens once in 40,320 times.
        for i in 1..<8 {
            let path = "\(file.directory)/\(i).db"
            all.append((path, try SQLiteConnection(path, vfs: "verneuil")))
        }
        for (i, (_, db)) in all.enumerated() {
            try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(randomblob(100000 + \(i)))")
            usleep(2000)
        }
        // Who commits once more has waited for as long.
        try first.rows("INSERT INTO t VALUES(1)")
        #expect(try file.spooled.control()?.isCurrentWhole == true)

        let store = RecordingStore()
        var options = ReplicationOptions()
        options.hostName = ReplicatedFile.host
        options.workers = 1
        let copying = Replicator(
            spool: file.replicator.spool, targets: [ReplicationTarget(store)], options: options,
            logger: Logger(label: "order") { _ in SwiftLogNoOpLogHandler() })
        copying.scanNow()
        func served() -> [String] {
            var keys: [String] = []
            for request in requests where request.operation == .put && request.space == .manifests && !keys.contains(request.key) {
                keys.append(request.key)
            }
            return keys
        }
        var requests: [RecordingStore.Request] = []
        let isDone = eventually(60) {
            requests += store.take()
            return served().count == all.count
        }
        #expect(isDone)
        #expect(served() == all.map { ManifestName.make(host: ReplicatedFile.host, path: $0.path) })
    }
}
