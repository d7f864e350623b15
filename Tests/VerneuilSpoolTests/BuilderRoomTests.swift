import Testing
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

/// S2 where strangers write and no transaction of ours follows; and what is given up for room.
@Suite struct BuilderRoomTests {
    private func strangerWrites(_ db: ScratchDatabase, at offset: Int64, newLength: Int64? = nil) throws {
        db.rest()
        if let newLength { try db.file.truncate(to: newLength) }
        try db.file.write([UInt8.random(in: 0...255), 1, 2, 3], at: offset)
        db.rest()
    }

    /// A spool of three times the database, with a ready snapshot: nothing is ever copied.
    private func full() throws -> ScratchDatabase {
        let db = try ScratchDatabase(seed: freshSeed(), length: 1_500_000)
        try db.commit()
        _ = try db.build()
        for _ in 0..<60 { try db.commit(changes: 12) }
        let records = try #require(try db.database.control())
        #expect(records.isReadyPinned && db.database.allocatedBytes() > Int64(db.length * 5 / 2))
        return db
    }

    // S2
    @Test func aBuilderGivesUpOldStatesForANewOneThatHasNoRoom() throws {
        let db = try full()
        for step in 0..<4 {
            try strangerWrites(db, at: 700_000)
            #expect(try db.build() == .whole(built: true))
            let size = db.database.allocatedBytes()
            #expect(size <= Int64(4 * db.length + 131_072), "step \(step): \(size) bytes for a database of \(db.length)")
            // Whatever is copied next is a state that was, and the newest can be copied.
            let session = try db.session()
            var snapshot = try #require(try session.snapshot())
            if try snapshot.point != #require(try db.database.control()).current.point {
                #expect(step == 0)
                snapshot = try #require(try session.snapshot(after: snapshot.point))
            }
            #expect(try bytes(of: snapshot) == db.contents())
        }
        // The next transaction builds on it.
        let (_, doubt) = try db.commit()
        #expect(doubt == nil)
        #expect(db.database.allocatedBytes() <= Int64(4 * db.length + 131_072))
    }

    // S2
    @Test func aFileThatAStrangerCutShortIsSpooledWithinItsNewBound() throws {
        let db = try full()
        try strangerWrites(db, at: 100_000, newLength: 300_000)
        #expect(try db.build() == .whole(built: true))
        #expect(db.database.allocatedBytes() <= Int64(4 * db.length + 131_072))
        let snapshot = try #require(try db.session().snapshot())
        #expect(try bytes(of: snapshot) == db.contents())
    }

    // R9, R10
    @Test func aSnapshotThatWasGivenUpIsNoDamage() throws {
        let db = try full()
        let session = try db.session()
        let taken = try #require(try session.snapshot())
        #expect(try session.stands(taken.point))
        for _ in 0..<2 {
            try strangerWrites(db, at: 700_000)
            _ = try db.build()
        }
        #expect(try !session.stands(taken.point))
    }

    // S6
    @Test func aReadySnapshotThatIsDistrustedGivesWayToTheNextOne() throws {
        // There is room enough: that is no reason for giving it up.
        let db = try ScratchDatabase(seed: freshSeed(), length: 1_500_000)
        try db.commit()
        _ = try db.build()
        try db.commit()
        #expect(try #require(try db.database.control()).isReadyPinned)
        #expect(try db.database.distrust())
        try db.commit()
        #expect(try db.build() == .whole(built: true))
        try db.commit()
        try db.commit()
        let records = try #require(try db.database.control())
        #expect(records.isReadyPinned && records.producer.ready.epoch == records.producer.staged.epoch)
        // And it stays still while a transaction is open.
        _ = try db.begin()
        #expect(try #require(try db.session().snapshot()).point == records.producer.ready)
    }
}
