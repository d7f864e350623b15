import CVerneuil
import Testing
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

/// S1 and S2 together: a commit waits for no removal of what is large, and the bound holds all the same.
@Suite struct CommitRemovalTests {
    /// Less than any epoch of these databases takes, and more than one with nothing in it.
    private static let little: Int64 = 60_000

    private func epochs(_ db: ScratchDatabase) throws -> Set<String> {
        Set(try Files.list(db.database.directory).filter { $0.hasPrefix("epoch.") })
    }

    private func expectBound(_ db: ScratchDatabase, _ step: Int) throws {
        let size = db.database.allocatedBytes()
        try #require(size <= Int64(4 * db.length + 131_072), "step \(step): \(size) bytes for a database of \(db.length)")
    }

    /// A spool of three times the database, with a ready snapshot: nothing is ever copied.
    private func full() throws -> ScratchDatabase {
        let db = try ScratchDatabase(seed: freshSeed(), length: 1_500_000, removable: Self.little)
        try db.commit()
        _ = try db.build()
        for step in 0..<60 {
            try db.commit(changes: 12)
            try expectBound(db, step)
        }
        #expect(try #require(try db.database.control()).isReadyPinned)
        return db
    }

    private func strangerWrites(_ db: ScratchDatabase) throws {
        db.rest()
        try db.file.write([UInt8.random(in: 0...255), 1, 2, 3], at: 700_000)
        db.rest()
    }

    private func expectNewest(_ db: ScratchDatabase) throws {
        let session = try db.session()
        var snapshot = try #require(try session.snapshot())
        if try snapshot.point != #require(try db.database.control()).current.point {
            try session.finish(snapshot.point, everywhere: false)
            snapshot = try #require(try session.snapshot())
        }
        #expect(try bytes(of: snapshot) == db.contents())
    }

    // S1, S2
    @Test func aCommitLeavesALargeOldEpochToTheBuilder() throws {
        let db = try full()
        let old = try epochs(db)
        try strangerWrites(db)
        let (staged, doubt) = try db.commit()
        #expect(doubt == .changed && staged.leavesOldEpochs)
        // Given up, and it stands: neither the transaction nor its share of the builder's work removes it.
        #expect(try !#require(try db.database.control()).isReadyPinned)
        #expect(try db.build(removing: Self.little) == .more)
        #expect(try epochs(db).isSuperset(of: old))
        try expectBound(db, 0)
        #expect(try db.build() == .whole(built: true))
        #expect(try epochs(db).isDisjoint(with: old))
        try expectBound(db, 1)
        #expect(try db.commit().0.leavesOldEpochs == false)
        try expectNewest(db)
    }

    // S2
    @Test func whatABuildersEpochLeavesBehindIsRemovedByTheNextBuilderWhereItIsLarge() throws {
        let db = try full()
        let old = try epochs(db)
        try strangerWrites(db)
        // Whatever the builder itself has to remove.
        while try db.build() != .whole(built: true) {}
        try #require(try epochs(db).isSuperset(of: old))
        var step = 0
        while try !db.commit(changes: 12).0.leavesOldEpochs {
            step += 1
            try #require(step < 200)
            try expectBound(db, step)
        }
        // Also where nobody comes for a while.
        for _ in 0..<40 {
            step += 1
            try db.commit(changes: 12)
            try expectBound(db, step)
        }
        #expect(try epochs(db).isSuperset(of: old))
        #expect(try db.build() == .whole(built: false))
        #expect(try epochs(db).isDisjoint(with: old))
        #expect(try db.commit().0.leavesOldEpochs == false)
        try expectNewest(db)
    }

    // S2
    @Test func whereNoBuilderComesOldEpochsGiveWayToWhatIsCommitted() throws {
        let db = try full()
        let session = try db.session()
        let ready = try #require(try session.snapshot())
        try strangerWrites(db)
        var sizes: [Int64] = []
        for step in 0..<60 {
            let (staged, _) = try db.commit(changes: 12)
            try expectBound(db, step)
            if step % 7 == 0 { db.restartProducer() }
            if staged.leavesOldEpochs { sizes.append(db.database.allocatedBytes()) }
        }
        // They gave way by and by: the spool was full all the time.
        #expect(sizes.count > 10 && sizes.suffix(5).allSatisfy { $0 > Int64(db.length * 3) }, "\(sizes)")
        // Who copies the old snapshot finds that it was given up, and no damage.
        #expect(try !session.stands(ready.point))
        #expect(try session.snapshot() == nil)
        #expect(try db.build() == .whole(built: true))
        try expectBound(db, 60)
        #expect(try bytes(of: try #require(try session.snapshot())) == db.contents())
    }
}
