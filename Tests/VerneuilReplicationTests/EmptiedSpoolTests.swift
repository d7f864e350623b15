import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilStore
import VerneuilSystem

/// Somebody removes what stands in the spooling directory while connections have it open: an administrator, a cleaner of old files.
@Suite(.serialized) struct EmptiedSpoolTests {
    @Test(arguments: ["emptied", "moved away"]) func commitsAreUploadedAfterItAsBefore(how: String) throws {
        let store = RecordingStore()
        let file = try ReplicatedFile([store])
        let db = try file.connect()
        try db.rows("CREATE TABLE t(x); INSERT INTO t VALUES(1)")
        #expect(try file.flush() == nil)

        let root = file.replicator.spool.root
        if how == "emptied" {
            // A pass may be making something there.
            let isEmpty = try eventually {
                for name in try Files.list(root) { try? Files.removeTree("\(root)/\(name)") }
                return try Files.list(root).isEmpty
            }
            #expect(isEmpty)
        } else {
            try Files.rename(root, to: "\(root).away")
        }

        func isStored(_ rows: Int) -> Bool {
            let copy = try? ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy-\(rows).db")
            return (try? copy?.value("SELECT count(*) FROM t")) == "\(rows)"
        }
        for rows in 2...3 {
            try db.rows("INSERT INTO t VALUES(\(rows))")
            #expect(eventually { isStored(rows) }, "\(rows) rows")
        }
        // What a program on this machine is told of the last upload is the last one.
        let name = ManifestName.make(host: ReplicatedFile.host, path: file.path)
        #expect(eventually { file.replicator.spool.tap(name) != nil && file.replicator.spool.tap(name) == store.manifest })
    }
}
