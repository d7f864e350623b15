import Foundation
import ProductSupport
import Testing

/// Examples/GRDBReplication, which scripts/test builds before.
@Suite struct ExampleTests {
    @Test func grdbWritesThroughOneVFSAndReadsTheReplicaThroughTheOther() throws {
        let here = try Workspace()
        let example = "\(Products.package)/Examples/GRDBReplication"
        let path = try Program.run(["swift", "build", "--package-path", example, "--ignore-lock", "--show-bin-path"]).text
        let program = try Program.run(["\(path)/GRDBReplication", Products.extension(), here.path])
        #expect(
            program.text.split(separator: "\n") == [
                "opened:    coffee: 100 for 25000 cents",
                "unchanged: coffee: 100 for 25000 cents",
                "refreshed: cake: 10 for 4200 cents, coffee: 100 for 25000 cents",
                "till:      cake: 10 for 4200 cents, coffee: 100 for 25000 cents",
                "replicas are read only: SQLite error 8: attempt to write a readonly database - while executing `INSERT INTO \"sale\" (\"article\", \"cents\") VALUES (?,?)`",
                "a pool needs WAL: SQLite error 1: could not activate WAL Mode at path: file:\(here.path)/pool.db?vfs=verneuil"
                    + "&verneuil_spooling_dir=\(here.path)/spool&verneuil_target=directory:\(here.path)/store",
            ], "\(program); build it with scripts/test, or swift build --package-path Examples/GRDBReplication")
        #expect(program.status == 0 && here.files("store/manifests").count == 1, "\(program)")
    }
}
