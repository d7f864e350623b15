import CSQLite
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica

extension SnapshotVFSTests {
    /// Each pragma of a replica.
    @Suite struct Pragmas {
        /// `seconds.nanoseconds`, nine digits after the point, and close to now.
        private func isRecent(_ text: String) -> Bool {
            let parts = text.split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count == 2, parts[1].count == 9, parts.allSatisfy({ $0.allSatisfy(\.isNumber) }) else { return false }
            guard let seconds = Double(text) else { return false }
            return abs(seconds - Date().timeIntervalSince1970) < 60
        }

        private func version(_ connection: SQLiteConnection) throws -> String {
            try connection.value("SELECT version FROM state")
        }

        @Test func ctimeIsTheSourceFiles() throws {
            let source = try Source()
            configure([source.store])
            for (ctime, expected) in [((1_700_000_000, 42), "1700000000.000000042"), ((0, 0), "0.000000000"), ((5, 999_999_999), "5.999999999")] as [((Int64, Int32), String)] {
                try source.writer.store(source.scratch.bytes("db"), ctime: ctime)
                #expect(try open(source.uri).rows("PRAGMA verneuil_snapshot_ctime") == [[expected]])
                #expect(try open(source.uri).rows("PRAGMA VERNEUIL_SNAPSHOT_CTIME") == [[expected]])
            }
        }

        @Test func updatedIsWhenTheSnapshotWasFetched() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            let first = try replica.value("PRAGMA verneuil_snapshot_updated")
            #expect(isRecent(first), "\(first)")
            #expect(try replica.value("PRAGMA verneuil_snapshot_updated") == first)
            usleep(2000)
            try source.commit("UPDATE state SET version = 2")
            let second = try replica.value("PRAGMA verneuil_snapshot_refresh(1)")
            #expect(isRecent(second) && second > first)
            #expect(try replica.value("PRAGMA verneuil_snapshot_updated") == second)
            // Nothing new: the same snapshot, fetched once more.
            usleep(2000)
            let third = try replica.value("PRAGMA verneuil_snapshot_refresh(2)")
            #expect(isRecent(third) && third > second)
        }

        @Test(arguments: ["verneuil_snapshot_refresh", "verneuil_snapshot_refresh(0)", "verneuil_snapshot_refresh=0"])
        func refreshWithoutAnArgumentSwitchesToTheNewestKnownAndAsksNobody(pragma: String) throws {
            let source = try Source()
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            try source.commit("UPDATE state SET version = 2")
            let before = try replica.value("PRAGMA verneuil_snapshot_updated")
            #expect(try replica.value("PRAGMA \(pragma)") == before)
            #expect(try version(replica) == "1")
            let fetched = try other.value("PRAGMA verneuil_snapshot_refresh(1)")
            #expect(try version(other) == "2")
            #expect(try version(replica) == "1")
            _ = source.store.takeLog()
            #expect(try replica.value("PRAGMA \(pragma)") == fetched)
            #expect(!source.store.takeLog().contains(source.writer.manifestName))
            #expect(try version(replica) == "2")
        }

        @Test func refreshOneFetchesUnlessAFetchIsUnderWay() throws {
            let source = try Source()
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            try source.commit("UPDATE state SET version = 2")
            let name = source.writer.manifestName
            _ = source.store.takeLog()
            source.store.setFault { $0.key == name ? .hang : nil }
            let done = Flag()
            Thread.detachNewThread {
                _ = try? other.value("PRAGMA verneuil_snapshot_refresh(1)")
                done.set()
            }
            while !source.store.takeLog().contains(name) { usleep(1000) }
            source.store.setFault(nil)
            // The other's fetch hangs: this one neither waits for it nor asks again.
            let before = try replica.value("PRAGMA verneuil_snapshot_updated")
            #expect(try replica.value("PRAGMA verneuil_snapshot_refresh(1)") == before)
            #expect(source.store.takeLog() == [])
            #expect(try version(replica) == "1")
            source.store.release()
            done.wait()
            #expect(try version(other) == "2")
        }

        @Test(arguments: ["2", "force", "FORCE", "'force'"])
        func refreshTwoFetchesInAnyCase(argument: String) throws {
            let source = try Source()
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            let name = source.writer.manifestName
            _ = source.store.takeLog()
            source.store.setFault { $0.key == name ? .hang : nil }
            let done = Flag()
            Thread.detachNewThread {
                _ = try? other.value("PRAGMA verneuil_snapshot_refresh(1)")
                done.set()
            }
            while !source.store.takeLog().contains(name) { usleep(1000) }
            // The other's request was answered before this commit: it isn't good enough.
            source.store.setFault(nil)
            let store = source.store
            try source.commit("UPDATE state SET version = 2")
            Thread.detachNewThread {
                usleep(50_000)
                store.release()
            }
            #expect(isRecent(try replica.value("PRAGMA verneuil_snapshot_refresh(\(argument))")))
            #expect(try version(replica) == "2")
            #expect(source.store.takeLog().filter { $0 == name }.count == 1)
            done.wait()
        }

        @Test func refreshTwoInsideATransactionIsLocked() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            try replica.rows("BEGIN; SELECT count(*) FROM t")
            try source.commit("UPDATE state SET version = 2")
            for argument in ["2", "force"] {
                let failure = error { try replica.rows("PRAGMA verneuil_snapshot_refresh(\(argument))") }
                #expect(failure?.code == SQLITE_LOCKED)
                #expect(failure?.message.contains("transaction") == true)
            }
            // The others answer, but what the transaction sees stays.
            let before = try replica.value("PRAGMA verneuil_snapshot_updated")
            #expect(try replica.value("PRAGMA verneuil_snapshot_refresh(1)") == before)
            #expect(try replica.value("PRAGMA verneuil_snapshot_refresh") == before)
            #expect(try replica.value("PRAGMA verneuil_snapshot_async_reload") == "0")
            #expect(try version(replica) == "1")
            try replica.rows("COMMIT")
            #expect(try version(replica) == "1")
            #expect(try replica.value("PRAGMA verneuil_snapshot_refresh") > before)
            #expect(try version(replica) == "2")
        }

        @Test func asyncReloadSwitchesOrSchedulesAFetch() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            try source.commit("UPDATE state SET version = 2")
            #expect(try replica.value("PRAGMA verneuil_snapshot_async_reload") == "0")
            var answer = "0"
            for _ in 0..<500 where answer == "0" {
                usleep(10_000)
                answer = try replica.value("PRAGMA verneuil_snapshot_async_reload")
            }
            #expect(answer == "1")
            #expect(try version(replica) == "2")
        }

        @Test func autoRefreshAnswersTheOldSettingAndSwitchesAtEachTransaction() throws {
            let source = try Source()
            configure([source.store])
            let (replica, other) = (try open(source.uri), try open(source.uri))
            #expect(try replica.value("PRAGMA verneuil_snapshot_auto_refresh") == "0")
            #expect(try replica.value("PRAGMA verneuil_snapshot_auto_refresh(1)") == "0")
            #expect(try replica.value("PRAGMA verneuil_snapshot_auto_refresh") == "1")
            for i in 2..<5 {
                try source.commit("UPDATE state SET version = \(i)")
                try other.rows("PRAGMA verneuil_snapshot_refresh(1)")
                #expect(try version(replica) == "\(i)")
            }
            try replica.rows("BEGIN; SELECT count(*) FROM t")
            try source.commit("UPDATE state SET version = 5")
            try other.rows("PRAGMA verneuil_snapshot_refresh(1)")
            #expect(try version(replica) == "4")
            try replica.rows("COMMIT")
            #expect(try version(replica) == "5")
            #expect(try replica.value("PRAGMA verneuil_snapshot_auto_refresh(off)") == "1")
            try source.commit("UPDATE state SET version = 6")
            try other.rows("PRAGMA verneuil_snapshot_refresh(1)")
            #expect(try version(replica) == "5")
        }

        @Test func autoRefreshFetchesByItselfWhereAnIntervalIsConfigured() throws {
            let source = try Source()
            configure([source.store], autoRefreshInterval: 0.01)
            let replica = try open(source.uri)
            try replica.rows("PRAGMA verneuil_snapshot_auto_refresh(1)")
            try source.commit("UPDATE state SET version = 2")
            var seen = ""
            for _ in 0..<500 where seen != "2" {
                usleep(10_000)
                seen = try version(replica)
            }
            #expect(seen == "2")
        }

        @Test func whatTheyDoNotUnderstandIsAnErrorThatSaysWhatTheyTake() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            for (pragma, reason) in [
                ("verneuil_snapshot_refresh(3)", "takes 0, 1, 2 or force, not '3'"),
                ("verneuil_snapshot_refresh(soon)", "not 'soon'"),
                ("verneuil_snapshot_auto_refresh(maybe)", "takes a boolean, not 'maybe'"),
            ] {
                let failure = error { try replica.rows("PRAGMA \(pragma)") }
                #expect(failure?.primary == SQLITE_ERROR)
                #expect(failure?.message.contains(reason) == true, "\(failure?.message ?? "no error")")
            }
            // SQLite's own, and unknown ones, as always.
            #expect(try replica.value("PRAGMA page_size") == "4096")
            #expect(try replica.rows("PRAGMA verneuil_snapshot_nonsense") == [])
        }

        @Test func aRefreshThatFailsSaysWhyAndChangesNothing() throws {
            let source = try Source()
            configure([source.store])
            let replica = try open(source.uri)
            source.store.setFault { _ in .unavailable }
            for argument in ["1", "2"] {
                let failure = error { try replica.rows("PRAGMA verneuil_snapshot_refresh(\(argument))") }
                #expect(failure?.primary == SQLITE_IOERR)
                #expect(failure?.message.contains("told to fail") == true, "\(failure?.message ?? "no error")")
            }
            #expect(try version(replica) == "1")
        }
    }
}
