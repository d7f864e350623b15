import CVerneuil
import Testing
import VerneuilFormat
import VerneuilSpool
import VerneuilSystem

@Suite(.serialized) struct SpoolProtocolTests {
    @Test func aSmallDatabaseIsWholeAfterItsFirstTransactionAndABuilder() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 300_000)
        let (staged, doubt) = try db.commit()
        #expect(doubt == .firstUse)
        #expect(!staged.isWhole)
        #expect(try db.session().snapshot() == nil)
        #expect(try db.build() == .whole(built: true))
        let snapshot = try #require(try db.session().snapshot())
        #expect(try bytes(of: snapshot) == db.contents())
        #expect(try db.build() == .whole(built: false))
    }

    // R2, R4
    @Test func theReadySnapshotStaysStillUnderLaterTransactions() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 700_000)
        try db.commit()
        _ = try db.build()
        let session = try db.session()
        var stored: [Fingerprint: [UInt8]] = [:]
        for _ in 0..<30 {
            let before = try db.contents()
            let snapshot = try #require(try session.snapshot())
            let expected = try snapshot.point == db.database.control()?.current.point ? before : nil
            for _ in 0..<Int(db.random.next() % 12) {
                try db.commit(changes: 6)
                if db.random.next() % 4 == 0 { db.restartProducer() }
            }
            let found = try bytes(of: snapshot, stored: stored)
            if let expected { #expect(found == expected) }
            #expect(try session.stands(snapshot.point) || expected == nil)
            if db.random.next() % 3 != 0 {
                keep(found, in: &stored)
                try session.finish(snapshot.point, everywhere: true)
            }
            try db.commit(changes: 3)
        }
    }

    // S6
    @Test func aCopierReachesTheNewestStateWhenWritesPause() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 200_000)
        try db.commit()
        _ = try db.build()
        let session = try db.session()
        var stored: [Fingerprint: [UInt8]] = [:]
        for _ in 0..<20 {
            for _ in 0..<5 { try db.commit() }
            for _ in 0..<3 {
                guard let snapshot = try session.snapshot() else { break }
                let newest = try #require(try db.database.control()).current.point
                let found = try bytes(of: snapshot, stored: stored)
                if snapshot.point == newest { #expect(try found == db.contents()) }
                keep(found, in: &stored)
                try session.finish(snapshot.point, everywhere: true)
            }
            #expect(try session.snapshot() == nil)
            let records = try #require(try db.database.control())
            #expect(records.copier.everywhere == records.current.point)
            #expect(records.pendingSince == nil)
        }
    }

    // S3, R1
    @Test func aTransactionThatIsNeverStagedLeavesDoubtAndTheReadySnapshot() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 400_000)
        try db.commit()
        _ = try db.build()
        let before = try db.contents()
        let session = try db.session()
        let point = try #require(try session.snapshot()).point
        // The process dies after it began, having changed some of the file.
        _ = try db.begin()
        _ = try db.write(changes: 4)
        db.restartProducer()
        // begin made the newest snapshot ready, so that it outlives the crash.
        let survivor = try #require(try session.snapshot())
        #expect(survivor.point == point)
        #expect(try bytes(of: survivor) == before)
        let (staged, doubt) = try db.commit()
        #expect(doubt == .unfinished)
        #expect(staged.point.epoch > point.epoch)
        #expect(!staged.isWhole)
        #expect(try bytes(of: try #require(try session.snapshot())) == before)
        try session.finish(point, everywhere: true)
        #expect(try db.build() == .whole(built: true))
        #expect(try bytes(of: try #require(try session.snapshot())) == db.contents())
    }

    // I5
    @Test(arguments: ["write", "length", "tag", "header"])
    func aStrangersChangeIsNoticedAtTheNextTransaction(_ kind: String) throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 400_000)
        try db.commit()
        _ = try db.build()
        db.rest()
        switch kind {
        case "write": try db.file.write([1, 2, 3], at: 200_000)
        case "length": try db.file.truncate(to: 399_000)
        case "tag": _ = try VersionTag.replace(db.file.fd, path: db.path)
        default: try db.file.write([9], at: 27)
        }
        let (staged, doubt) = try db.commit()
        #expect(doubt == .changed)
        #expect(!staged.isWhole)
        #expect(try db.build() == .whole(built: true))
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
    }

    // R7
    @Test func aBuilderMakesASnapshotOfAFileThatNobodyWrote() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 500_000)
        db.rest()
        #expect(try db.build() == .whole(built: true))
        let session = try db.session()
        #expect(try bytes(of: try #require(try session.snapshot())) == db.contents())
        // A transaction enters the builder's epoch.
        let (staged, doubt) = try db.commit()
        #expect(doubt == nil)
        #expect(staged.isWhole)
        #expect(staged.point.epoch % 2 == 0)
    }

    // R7
    @Test func aSnapshotOfAFileThatNobodyWroteIsFinishedInSlices() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 60 << 16)
        db.rest()
        var slices = 1
        // A deadline that is over: each time eight chunks, of whoever comes.
        while try db.build(slice: 0) != .whole(built: true) {
            slices += 1
            try #require(slices < 50)
        }
        #expect(slices > 3)
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
        #expect(try Files.list(db.database.directory).filter { $0.hasPrefix("epoch.") }.count == 1)
    }

    // R7
    @Test func aBuildersEpochIsVoidOnceATransactionWentOnWithoutIt() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 200_000)
        try db.commit()
        _ = try db.build()
        db.rest()
        try db.file.write([7], at: 100_000)
        db.rest()
        #expect(try db.build() == .whole(built: true))
        let proposed = try #require(try db.database.control())
        #expect(proposed.hasProposal)
        try db.file.write([8], at: 100_001)
        try db.commit()
        let after = try #require(try db.database.control())
        #expect(!after.hasProposal)
        #expect(after.current.point.epoch > proposed.current.point.epoch)
    }

    // R7: a transaction that was taken for dead is staged after all, in an epoch whose number is behind the builder's.
    @Test(arguments: [false, true])
    func anEpochThatWasOvertakenIsNotContinued(_ isStored: Bool) throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 400_000)
        try db.commit()
        _ = try db.build()
        let session = try db.session()
        var stored: [Fingerprint: [UInt8]] = [:]
        func copy() throws -> SpoolPoint {
            let snapshot = try #require(try session.snapshot())
            keep(try bytes(of: snapshot, stored: stored), in: &stored)
            #expect(try bytes(of: snapshot, stored: stored) == db.contents())
            try session.finish(snapshot.point, everywhere: true)
            return snapshot.point
        }
        _ = try copy()
        let (_, tag) = try db.begin()
        let dirty = try db.write(changes: 4)
        db.rest()
        #expect(try SpoolBuilder(db.database).run(deadline: nil, openIsDead: true) { _, _ in false } == .whole(built: true))
        let proposed = isStored ? try copy() : try #require(try db.database.control()).current.point
        let late = try db.stage(tag, dirty)
        #expect(late.point < proposed)
        let overtaken = try #require(try db.database.control())
        #expect(overtaken.isOvertaken && !overtaken.isCurrentTrusted && overtaken.pendingSince != nil)

        let (next, doubt) = try db.commit()
        #expect(doubt == .overtaken)
        #expect(next.point > proposed)
        #expect(try db.build() == .whole(built: true))
        #expect(try copy() > proposed)
        #expect(try #require(try db.database.control()).pendingSince == nil)
    }

    // R6
    @Test func aSnapshotCompletesInSlicesWhileTransactionsGoOn() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 12_000_000)
        try db.commit()
        var slices = 0
        while try db.build(slice: 0.0001) != .whole(built: true) {
            slices += 1
            try db.commit(changes: 5)
            if slices % 7 == 0 { db.restartProducer() }
            try #require(slices < 1000)
        }
        #expect(slices > 3)
        let session = try db.session()
        #expect(try bytes(of: try #require(try session.snapshot())) == db.contents())
    }

    // R6: a transaction that was open when the builder came to its end.
    @Test func aSnapshotBuiltDuringATransactionIsValidOnlyOnceThatIsStaged() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 300_000)
        try db.commit()
        let (_, tag) = try db.begin()
        let writer = try Descriptor(db.path, O_RDWR)
        #expect(vrn_ofd_lock(writer.fd, Int16(F_WRLCK), 0x4000_0002, 510) == 0)
        let dirty = try db.write(changes: 10)
        #expect(try db.build() == .whole(built: true))
        #expect(try db.session().snapshot() == nil)
        #expect(vrn_ofd_lock(writer.fd, Int16(F_UNLCK), 0, 0) == 0)
        let staged = try db.stage(tag, dirty)
        #expect(staged.point.sequence == 2)
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
    }

    // S4
    @Test func anotherBootTrustsNothingAndRemovesIt() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000, bootID: "one boot")
        try db.commit()
        _ = try db.build()
        let next = SpoolDirectory(db.spool.root, bootID: "the next boot")
        #expect(try next.databases().isEmpty)
        try next.makeDirectories()
        #expect(try next.databases().isEmpty)
        try next.prepare()
        #expect(try next.databases().isEmpty)
        #expect(try Files.status(db.spool.boot) == nil)
    }

    // S9
    @Test func aRetiredDirectoryIsLeftByThoseWhoHaveItOpen() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        try db.commit()
        _ = try db.build()
        try db.session().retire()
        #expect(try Files.status(db.database.directory) == nil)
        let (staged, doubt) = try db.commit()
        #expect(doubt == .firstUse)
        #expect(!staged.isWhole)
        #expect(try db.build() == .whole(built: true))
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
    }

    // S3: whoever has it open makes a new one, and what is known of the old one passes for nothing of the new one.
    @Test(arguments: ["removed", "moved away"])
    func aDirectoryThatIsGoneUnderAProducerIsMadeAnewByTheNextTransaction(how: String) throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        for _ in 0..<3 {
            let (before, _) = try db.commit()
            if how == "removed" { try Files.removeTree(db.spool.root) } else {
                try Files.rename(db.spool.root, to: "\(db.spool.root).\(before.point.epoch)")
            }
            let (staged, doubt) = try db.commit()
            #expect(doubt == .firstUse && staged.point > before.point)
            #expect(try db.build() == .whole(built: true))
            #expect(try bytes(of: try #require(try db.session().snapshot(after: before.point))) == db.contents())
        }
    }

    // S9: whoever retired it died between two steps, and the file is back (`mv` and `mv`).
    @Test(arguments: [false, true])
    func aDirectoryWhoseRemoverDiedIsReplacedByTheNextFullSnapshot(isMoved: Bool) throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        try db.commit()
        _ = try db.build()
        try markAsRetired(db)
        if isMoved { try Files.rename(db.database.directory, to: Files.temporaryName(beside: db.database.directory)) }
        db.rest()
        #expect(try db.build() == .whole(built: true))
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
        let (staged, doubt) = try db.commit()
        #expect(doubt == nil && staged.isWhole)
        #expect(try newestBytes(db) == db.contents())
    }

    /// Of the newest snapshot, after the one that waits is copied.
    private func newestBytes(_ db: ScratchDatabase) throws -> [UInt8] {
        let session = try db.session()
        var snapshot = try #require(try session.snapshot())
        if try snapshot.point != #require(try db.database.control()).current.point {
            try session.finish(snapshot.point, everywhere: false)
            snapshot = try #require(try session.snapshot())
        }
        return try bytes(of: snapshot)
    }

    /// As the copier's record is when `retire` has made its first step: docs/SPOOL.md, SpoolControl.swift.
    private func markAsRetired(_ db: ScratchDatabase) throws {
        var words = [UInt64](repeating: 0, count: 8)
        words[3] = 1
        words[7] = MonotonicTime.now.nanoseconds
        let sum = words[1...].withUnsafeBytes(FingerprintKey.directory.fingerprint)
        words[0] = sum.primary ^ sum.secondary | 1
        let control = try Descriptor("\(db.database.directory)/control", O_RDWR)
        try words.withUnsafeBytes { try control.write($0, at: 2048) }
        try #require(try #require(try db.database.control()).copier.retired == 1)
    }

    // R9: a transaction that began before the last "copied" was visible overwrites, or cuts, what isn't ready.
    @Test func aSnapshotThatATransactionOverwritesIsTriedAgainAndNoFailure() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 200_000)
        try db.commit()
        _ = try db.build()
        let session = try db.session()
        let ready = try #require(try session.snapshot())
        // Longer than the full snapshot was, so that some chunks have entries in the table only.
        try db.commit(newLength: 600_000)
        let (_, tag) = try db.begin()
        try session.finish(ready.point, everywhere: false)
        // As `stage` does it, before its record is written.
        let dirty = try db.write(changes: 2, newLength: 200_000)
        try Descriptor("\(db.database.directory)/epoch.\(ready.point.epoch)/table", O_RDWR).truncate(to: 4 * 64)
        #expect(try session.snapshot() == nil)
        _ = try db.stage(tag, dirty)
        #expect(try bytes(of: try #require(try session.snapshot())) == db.contents())
    }

    @Test func aDamagedControlPageIsReplaced() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        try db.commit()
        _ = try db.build()
        let control = try Descriptor("\(db.database.directory)/control", O_RDWR)
        try control.write([0xFF, 0xFE], at: 40)
        #expect(try db.database.control() == nil)
        let (_, doubt) = try db.commit()
        #expect(doubt == .firstUse)
        #expect(try db.build() == .whole(built: true))
        #expect(try bytes(of: try #require(try db.session().snapshot())) == db.contents())
    }

    // What is stored of the epochs before must not pass for what comes after.
    @Test(arguments: ["commit", "builder"])
    func epochsAfterALostControlPageHaveLaterNumbers(_ who: String) throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        try db.commit()
        for _ in 0..<3 {
            db.rest()
            try db.file.write([1, 2, 3], at: 50_000)
            try db.commit()
            _ = try db.build()
        }
        let stored = try #require(try db.session().snapshot()).point
        try db.session().finish(stored, everywhere: true)
        var record = TargetRecord(name: "somewhere")
        record.stored = stored
        try db.database.setTargetRecord("1", record)
        try Descriptor("\(db.database.directory)/control", O_RDWR).write([0xFF, 0xFE], at: 40)
        if who == "commit" { try db.commit() }
        db.rest()
        #expect(try db.build() == .whole(built: true))
        #expect(try #require(try db.database.control()).current.point > stored)
        #expect(try bytes(of: try #require(try db.session().snapshot(after: stored))) == db.contents())
    }

    // R6: chunks that were staged before the builder came are in the table alone.
    @Test func aSnapshotWithoutItsTableIsNone() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 300_000)
        let (staged, _) = try db.commit()
        _ = try db.build()
        try Files.remove("\(db.database.directory)/epoch.\(staged.point.epoch)/table")
        #expect(throws: SystemError.self) { try db.session().snapshot() }
    }

    // R10
    @Test func aDamagedChunkIsNotHandedOut() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 300_000)
        try db.commit()
        _ = try db.build()
        let snapshot = try #require(try db.session().snapshot())
        let pool = try Descriptor("\(db.database.directory)/epoch.\(snapshot.point.epoch)/base.pool", O_RDWR)
        var injured = 0
        for index in snapshot.chunks.indices where try index > 0 && snapshot.chunk(index) != nil {
            let at = Int64(index) * 65536 + 5
            let old = try pool.read(count: 1, at: at)
            if old.isEmpty { continue }
            try pool.write([old[0] ^ 1], at: at)
            if try snapshot.chunk(index) == nil { injured += 1 }
        }
        #expect(injured > 0)
    }

    @Test func aLostUpdateIsFoundByTheAudit() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 300_000)
        try db.commit()
        _ = try db.build()
        #expect(try SpoolBuilder(db.database).audit(samples: nil) { _ in 0 } == .sound)
        // A transaction changes a chunk and the tracker misses it.
        let (_, tag) = try db.begin()
        try db.file.write([1, 2, 3, 4, 5], at: 3 * 65536 + 17)
        _ = try db.stage(tag, [0])
        #expect(try SpoolBuilder(db.database).audit(samples: nil) { _ in 0 } == .wrong(3))
        #expect(try db.database.distrust())
        let (_, doubt) = try db.commit()
        #expect(doubt == .distrusted)
        #expect(try db.build() == .whole(built: true))
        #expect(try SpoolBuilder(db.database).audit(samples: nil) { _ in 0 } == .sound)
    }

    // S2
    @Test(arguments: 1...5)
    func theSpoolStaysBelowFourTimesTheDatabaseWhateverCopiersDo(_ history: Int) throws {
        let seed = freshSeed()
        let db = try ScratchDatabase(seed: seed, length: 2_000_000)
        var worst = 0.0
        var stored: [Fingerprint: [UInt8]] = [:]
        for step in 0..<400 {
            let length = db.length
            switch db.random.next() % 40 {
            case 0: try db.commit(changes: 3, newLength: max(65536, length / Int(1 + db.random.next() % 6)))
            case 1, 2: try db.commit(changes: 3, newLength: min(6_000_000, length + Int(db.random.next() % 900_000)))
            case 3:
                // A stranger: the next transaction begins an epoch.
                try db.file.write(db.random.bytes(10), at: Int64(db.random.next() % UInt64(length)))
                try db.commit()
                _ = try db.build()
            case 4:
                if let session = try SpoolCopierSession.open(db.database), let snapshot = try session.snapshot() {
                    keep(try bytes(of: snapshot, stored: stored), in: &stored)
                    try session.finish(snapshot.point, everywhere: db.random.next() % 2 == 0)
                }
            case 5: _ = try db.build()
            default: try db.commit(changes: Int(db.random.next() % 20))
            }
            let size = db.database.allocatedBytes()
            let bound = Int64(4 * db.length + 131_072)
            worst = max(worst, Double(size) / Double(db.length))
            try #require(size <= bound, "step \(step), seed \(seed): \(size) bytes for a database of \(db.length)")
            if let session = try SpoolCopierSession.open(db.database), let snapshot = try session.snapshot(),
                snapshot.point == (try db.database.control())?.current.point, step % 10 == 0
            {
                try #require(try bytes(of: snapshot, stored: stored) == db.contents(), "step \(step), seed \(seed)")
            }
        }
        print("largest spool: \(worst) times the database")
    }

    // S2: a snapshot that waits is longer than the database, and may stay as long as there is room.
    @Test func aLongerSnapshotThatWaitsIsGivenUpWhenTheShorterDatabaseNeedsTheRoom() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 2_000_000)
        try db.commit()
        _ = try db.build()
        try db.commit()
        let ready = try #require(try db.database.control()).producer.ready
        try db.commit(newLength: 750_000)
        #expect(try #require(try db.database.control()).producer.ready == ready)
        for step in 0..<60 {
            try db.commit(changes: 12)
            let size = db.database.allocatedBytes()
            try #require(size <= Int64(4 * db.length + 131_072), "step \(step): \(size) bytes for a database of \(db.length)")
        }
        #expect(try #require(try db.database.control()).producer.ready != ready)
        #expect(try newestBytes(db) == db.contents())
    }

    // S2: a builder's epoch beside one that is full.
    @Test func whatABuildersEpochLeavesBehindIsGivenUpForIt() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 1_500_000)
        func fill() throws {
            for step in 0..<60 {
                try db.commit(changes: 12)
                let size = db.database.allocatedBytes()
                try #require(size <= Int64(4 * db.length + 131_072), "step \(step): \(size) bytes for a database of \(db.length)")
            }
        }
        try db.commit()
        _ = try db.build()
        try fill()
        for _ in 0..<2 {
            db.rest()
            try db.file.write([1, 2, 3], at: 700_000)
            db.rest()
            #expect(try db.build() == .whole(built: true))
            try fill()
        }
        #expect(try newestBytes(db) == db.contents())
    }

    // S7, S8
    @Test func copiersExcludeOneAnotherAndFilesArePrivate() throws {
        let db = try ScratchDatabase(seed: freshSeed(), length: 100_000)
        try db.commit()
        _ = try db.build()
        do {
            let first = try db.session()
            #expect(try SpoolCopierSession.open(db.database) == nil)
            _ = first.database
        }
        #expect(try SpoolCopierSession.open(db.database) != nil)
        func check(_ path: String) throws {
            let status = try #require(try Files.status(path, followLinks: false))
            #expect(status.mode & 0o077 == 0, "\(path)")
            if status.isDirectory { for name in try Files.list(path) { try check("\(path)/\(name)") } }
        }
        try check(db.spool.root)
    }
}
