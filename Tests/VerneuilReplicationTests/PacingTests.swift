import CVerneuil
import ReplicaTestSupport
import Testing
import VerneuilReplication
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// When a pass may begin, by a clock that the test sets.
@Suite struct PassPacingTests {
    private let pacing = PassPacing(passInterval: 0.5, manifestInterval: 2)
    private func at(_ seconds: Double) -> MonotonicTime { MonotonicTime(nanoseconds: 1_000_000_000_000).advanced(seconds: seconds) }

    @Test func nothingIsWaitedForWhereNothingWasSent() {
        #expect(pacing.wait(TargetRecord(), at: at(0)) == 0)
    }

    @Test func passesAndManifestsKeepTheirDistances() {
        var record = TargetRecord()
        record.lastPass = at(10)
        #expect(pacing.wait(record, at: at(10.125)) == 0.375)
        #expect(pacing.wait(record, at: at(10.5)) == 0)
        record.lastManifest = at(10)
        #expect(pacing.wait(record, at: at(10.5)) == 1.5)
        #expect(pacing.wait(record, at: at(12)) == 0)
    }

    @Test func thePauseDoublesWithEachFailureUpToAMinuteAndEndsWithASuccess() {
        var record = TargetRecord()
        record.lastFailure = at(0)
        var last = 0.0
        for failures in 1...20 {
            record.failures = failures
            let wait = pacing.wait(record, at: at(0))
            let most = min(60, 2 * Double(1 << min(failures, 6)))
            #expect(wait <= most && wait >= most * 0.75, "\(wait) s after \(failures) failures")
            #expect(wait >= last)
            #expect(pacing.wait(record, at: at(wait)) < 0.001)
            last = wait
        }
        record.failures = 0
        #expect(pacing.wait(record, at: at(0)) == 0)
    }

    @Test func databasesThatFailedTogetherDontComeBackTogether() {
        let pauses = (0..<64).map { i -> Double in
            var record = TargetRecord()
            record.failures = 3
            let failed = MonotonicTime(nanoseconds: 1_000_000_000_000 + UInt64(i) * 16)
            record.lastFailure = failed
            return pacing.wait(record, at: failed)
        }
        #expect(Set(pauses).count == 64)
        #expect(pauses.allSatisfy { $0 <= 16 && $0 >= 12 })
    }

    @Test func aFencedTargetIsLeftAloneForAMinute() {
        var record = TargetRecord()
        record.failures = 1
        record.lastFailure = at(0)
        record.fencedBy = "another machine"
        #expect(pacing.wait(record, at: at(0)) >= 45)
    }

    @Test func aTimeThatIsStillToComeSaysNothing() {
        var record = TargetRecord()
        record.failures = 6
        (record.lastPass, record.lastManifest, record.lastFailure) = (at(5000), at(5000), at(5000))
        #expect(pacing.wait(record, at: at(0)) == 0)
    }
}

/// Eight programs have one database open, each with its copiers, which know nothing of each other but what is in the
/// spool: the store sees no more of them than of one.
@Suite(.serialized) struct SharedPacingTests {
    private func eight(
        _ store: RecordingStore, _ change: @escaping (inout ReplicationOptions) -> Void
    ) throws -> [(file: ReplicatedFile, db: SQLiteConnection)] {
        var all: [(file: ReplicatedFile, db: SQLiteConnection)] = []
        for _ in 0..<8 {
            let file = try ReplicatedFile([store], sharing: all.first?.file, change)
            all.append((file, try file.connect()))
        }
        try all[0].db.rows("CREATE TABLE t(data)")
        return all
    }

    private func manifests(_ store: RecordingStore) -> [RecordingStore.Request] {
        store.take().filter { $0.operation == .put && $0.space == .manifests }
    }

    @Test func eightSendNoMoreManifestsThanOne() throws {
        let store = RecordingStore()
        let interval = 0.3
        let all = try eight(store) { $0.manifestInterval = interval }
        let began = MonotonicTime.now
        var commits = 0
        while MonotonicTime.now.seconds(since: began) < 2 {
            try all[commits % 8].db.rows("INSERT INTO t VALUES(\(commits))")
            commits += 1
            usleep(2000)
        }
        let seconds = MonotonicTime.now.seconds(since: began)
        let sent = manifests(store)
        print("pacing: \(commits) commits by 8 in \(seconds) s, \(sent.count) manifests")
        #expect(sent.count >= 2 && Double(sent.count) <= seconds / interval + 2, "\(sent.count) manifests in \(seconds) s")
        for (a, b) in zip(sent, sent.dropFirst()) { #expect(b.at.seconds(since: a.at) >= interval - 0.01) }
        #expect(try all[0].file.flush() == nil)
    }

    @Test func eightLeaveAStoreThatFailsAloneForAsLongAsOne() throws {
        let store = RecordingStore()
        store.set { $0.space == .manifests ? .fail(.unavailable, "busy") : nil }
        let interval = 0.125
        let all = try eight(store) { $0.manifestInterval = interval }
        let began = MonotonicTime.now
        var commits = 0
        while MonotonicTime.now.seconds(since: began) < 2 {
            try all[commits % 8].db.rows("INSERT INTO t VALUES(\(commits))")
            commits += 1
            usleep(5000)
        }
        // Each pass asks for the manifest that is there, and ends with that.
        let tries = store.take().filter { $0.space == .manifests }
        #expect(tries.count >= 2, "it is tried again")
        for (i, (a, b)) in zip(tries, tries.dropFirst()).enumerated() {
            let pause = interval * Double(2 << i) * 0.75
            #expect(b.at.seconds(since: a.at) >= pause - 0.01, "after failure \(i + 1): \(b.at.seconds(since: a.at)) s")
        }
        // The cause is gone, and somebody waits: nobody waits for the pause.
        store.set(nil)
        #expect(try all[7].file.flush(timeout: 30) == nil)
    }

    @Test func aFlushIsNotHeldUp() throws {
        let store = RecordingStore()
        let all = try eight(store) {
            $0.manifestInterval = 3600
            $0.passInterval = 3600
        }
        #expect(try all[0].file.flush() == nil)
        let before = manifests(store).count
        for (file, db) in all {
            try db.rows("INSERT INTO t VALUES(1)")
            #expect(try file.flush(timeout: 30) == nil)
        }
        let after = manifests(store).count
        #expect(before >= 1 && after == 8)
    }
}
