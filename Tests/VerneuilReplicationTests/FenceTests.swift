import CVerneuil
import ReplicaTestSupport
import TestServers
import Testing
import VerneuilFormat
import VerneuilReplication
import VerneuilS3
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

/// Two machines that claim one host name and path. Here they share the file as well, which makes no difference: what
/// tells them apart is what the spool and the manifest say.
@Suite(.serialized) struct FenceTests {
    private static func id(_ digit: String) -> String { String(repeating: digit, count: 32) }

    private func machine(
        _ stores: [any ObjectStore], _ name: String, boot: String, sharing other: ReplicatedFile? = nil
    ) throws -> ReplicatedFile {
        try ReplicatedFile(stores, sharing: other, spool: "spool-\(name)-\(boot)") {
            $0.identity = WriterIdentity(machine: name.isEmpty ? "" : Self.id(name), boot: boot)
        }
    }

    private func commit(_ file: ReplicatedFile, _ text: String) throws {
        let db = try file.connect()
        try db.rows("CREATE TABLE IF NOT EXISTS t(data); INSERT INTO t VALUES('\(text)'), (randomblob(100000))")
    }

    @Test func anotherMachinesManifestIsNotOverwrittenUntilToldSo() throws {
        let store = RecordingStore()
        let first = try machine([store], "a", boot: "1")
        try commit(first, "by the first")
        #expect(try first.flush() == nil)
        let manifest = store.manifest
        _ = store.take()

        let second = try machine([store], "b", boot: "2", sharing: first)
        try commit(second, "by the second")
        let refusal = try #require(try second.flush())
        #expect(refusal.contains("fenced") && refusal.contains("another machine") && refusal.contains("--take-over"), "\(refusal)")
        #expect(store.manifest == manifest)
        #expect(store.count(.put) == 0, "not even chunks are sent")
        let report = second.report()
        #expect(!report.isFine(limit: 1e9))
        #expect(report.databases.first?.targets.first?.problems.first?.contains("fenced") == true, "\(report)")
        #expect(!LogBook.lines("stopped, nothing is overwritten", "winner=by verneuil-swift").isEmpty)

        // The first one carries on.
        try commit(first, "by the first again")
        #expect(try first.flush() == nil)

        #expect(second.replicator.sync(path: second.path, takeOver: true) == nil)
        #expect(try second.flush() == nil)
        #expect(second.report().isFine(limit: 10))
        #expect(store.manifest != manifest)
        let mine = store.manifest
        try commit(first, "too late")
        let lost = try #require(try first.flush())
        #expect(lost.contains("fenced"), "\(lost)")
        #expect(store.manifest == mine)
    }

    @Test func clonesOfOneMachineNoticeEachOther() throws {
        let store = RecordingStore()
        let first = try machine([store], "a", boot: "1")
        try commit(first, "one")
        #expect(try first.flush() == nil)
        // The clone could be the same machine after a reboot, and goes on.
        let clone = try machine([store], "a", boot: "2", sharing: first)
        try commit(clone, "two")
        #expect(try clone.flush() == nil)
        try commit(first, "three")
        #expect(try first.flush()?.contains("fenced") == true)
        try commit(clone, "four")
        #expect(try clone.flush() == nil)
    }

    @Test func theSameMachineGoesOnAfterARebootAndFromAnotherSpool() throws {
        let store = RecordingStore()
        let before = try machine([store], "a", boot: "1")
        try commit(before, "one")
        #expect(try before.flush() == nil)
        // Without a spool of its own, as `verneuilctl sync` may be.
        let other = try ReplicatedFile([store], sharing: before, spool: "scratch") {
            $0.identity = WriterIdentity(machine: Self.id("a"), boot: "1")
        }
        try commit(other, "two")
        #expect(try other.flush() == nil)
        try commit(before, "three")
        #expect(try before.flush() == nil)
        let rebooted = try machine([store], "a", boot: "2", sharing: before)
        try commit(rebooted, "four")
        #expect(try rebooted.flush() == nil)
        #expect(rebooted.report().isFine(limit: 10))
    }

    @Test func aMachineWithoutAnIdGoesOnAndSaysFromWhat() throws {
        let store = RecordingStore()
        let first = try machine([store], "a", boot: "1")
        try commit(first, "one")
        #expect(try first.flush() == nil)
        let container = try machine([store], "", boot: "9", sharing: first)
        try commit(container, "two")
        #expect(try container.flush() == nil)
        #expect(!LogBook.lines("going on from the manifest that is stored", container.path).isEmpty)
    }

    @Test func aLostAnswerIsNotTakenForAnotherMachine() throws {
        let store = RecordingStore()
        let file = try machine([store], "a", boot: "1")
        try commit(file, "one")
        #expect(try file.flush() == nil)
        let once = Counter()
        store.set { request in
            guard request.operation == .put, request.space == .manifests, once.value < 2 else { return nil }
            once.add()
            return .loseAnswer
        }
        try commit(file, "two")
        #expect(try file.flush() == nil)
        // A copier that died after its PUT, and before it wrote down the tag.
        var lineage = try file.spooled.lineage(file.replicator.targets[0].identifier)
        lineage.tag = "tag-of-long-ago"
        try file.spooled.setLineage(file.replicator.targets[0].identifier, lineage)
        try commit(file, "three")
        #expect(try file.flush() == nil)
        #expect(file.report().isFine(limit: 10))
    }

    /// Neither inode nor tag are known any more: a file was restored beside the database and moved over it, after the copier died.
    @Test func aManifestWhoseAnswerWasLostIsOursThoughAnotherFileWasMovedOverTheDatabase() throws {
        let store = RecordingStore()
        let file = try machine([store], "a", boot: "1")
        try commit(file, "one")
        #expect(try file.flush() == nil)
        store.set { $0.operation == .put && $0.space == .manifests ? .loseAnswer : nil }
        try commit(file, "two")
        #expect(try file.flush()?.contains("the answer was lost") == true)
        let restored = "\(file.directory)/restored.db"
        try Files.writeAtomically(try #require(try Files.read(file.path)), to: restored)
        try Files.rename(restored, to: file.path)
        try commit(file, "three")
        store.set(nil)
        #expect(try file.flush() == nil)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT count(*) FROM t WHERE data='three'") == "1")
        #expect(file.report().databases.allSatisfy { $0.targets.allSatisfy { $0.problems.isEmpty } })
    }

    @Test func aManifestWhoseAnswerWasLostIsOursThoughTheClockWasSetBack() throws {
        let store = RecordingStore()
        let file = try machine([store], "a", boot: "1")
        try commit(file, "one")
        #expect(try file.flush() == nil)
        // What a copier sent before, of a file changed at a time that is still to come.
        let known = try StoredManifest(decoding: try #require(store.manifest))
        let body = Body.compressManifest(
            Manifest(
                headerFingerprint: known.headerFingerprint, versionID: known.versionID, length: 0, ctime: known.ctime + 86_400,
                ctimeNanoseconds: 0, generatedBy: known.generatedBy, chunks: [], bundled: [], baseChunk: nil
            ).encoded(base: nil))
        _ = try store.put(PutRequest(.manifests, ManifestName.make(host: ReplicatedFile.host, path: file.path), body))
        let target = file.replicator.targets[0].identifier
        var lineage = try file.spooled.lineage(target)
        lineage.tag = "tag-of-long-ago"
        _ = lineage.noteSending(body)
        try file.spooled.setLineage(target, lineage)
        #expect(try file.spooled.lineage(target) == lineage)
        try commit(file, "two")
        #expect(try file.flush() == nil)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT count(*) FROM t WHERE data='two'") == "1")
    }

    /// A bucket is set back to an older version; or a store without conditions takes a late PUT of a process that is gone.
    @Test(arguments: [true, false]) func anOlderManifestInThePlaceOfOursIsReplaced(honoursConditions: Bool) throws {
        let store = RecordingStore(honoursConditions: honoursConditions)
        let file = try machine([store], "a", boot: "1")
        try commit(file, "one")
        #expect(try file.flush() == nil)
        let old = try #require(store.manifest)
        try commit(file, "two")
        #expect(try file.flush() == nil)
        _ = try store.put(PutRequest(.manifests, ManifestName.make(host: ReplicatedFile.host, path: file.path), old))
        #expect(try file.flush() == nil)
        #expect(store.manifest != old)
        let copy = try ReplicatedFile.restored(from: store, path: file.path, to: "\(file.directory)/copy.db")
        #expect(try copy.value("SELECT count(*) FROM t WHERE data='two'") == "1")
        #expect(!LogBook.lines("what was stored is not there any more", "an older manifest stands there", file.path).isEmpty)
    }

    /// A fence stands in it, perhaps.
    @Test func whatIsKnownOfTheManifestAndCantBeReadIsNotTakenForNothing() throws {
        let store = RecordingStore()
        let first = try machine([store], "a", boot: "1")
        try commit(first, "one")
        #expect(try first.flush() == nil)
        // By a clone of the machine, of its own file at this path.
        let known = try StoredManifest(decoding: try #require(store.manifest))
        let mark = String(decoding: known.generatedBy, as: UTF8.self)
        let other = mark.dropLast(2) + (mark.hasSuffix("0)") ? "1)" : "0)")
        let body = Body.compressManifest(
            Manifest(
                headerFingerprint: known.headerFingerprint, versionID: known.versionID, length: 0, ctime: known.ctime,
                ctimeNanoseconds: 0, generatedBy: Array(other.utf8), chunks: [], bundled: [], baseChunk: nil
            ).encoded(base: nil))
        _ = try store.put(PutRequest(.manifests, ManifestName.make(host: ReplicatedFile.host, path: first.path), body))
        try commit(first, "three")
        #expect(try first.flush()?.contains("fenced") == true)
        // In one step: where it is missing for a moment, nothing is known for a moment. Opens, if at all, and answers each read with EISDIR.
        let lineage = try "\(Files.directory(of: first.spooled.directory))/lineage.\(first.replicator.targets[0].identifier)"
        #expect(vrn_symlink("/", "\(lineage).new") == 0)
        try Files.rename("\(lineage).new", to: lineage)
        try commit(first, "four")
        let reason = try #require(try first.flush())
        #expect(reason.contains(lineage), "\(reason)")
        #expect((store.manifest == body) == true)
        #expect(first.report().databases.first?.targets.first?.problems.first?.contains("can't be read") == true)
    }

    @Test func aStoreWithoutConditionsKeepsWorkingWithANotice() throws {
        let store = RecordingStore("plain store", honoursConditions: false)
        let file = try machine([store], "a", boot: "1")
        for i in 0..<3 {
            try commit(file, "\(i)")
            #expect(try file.flush() == nil)
        }
        #expect(LogBook.lines("doesn't honour conditions", file.path).count == 1)
        #expect(file.report().databases.first?.targets.first?.isUnguarded == true)
        let puts = store.take().filter { $0.operation == .put && $0.space == .manifests }
        #expect(puts.count >= 4 && puts.filter { $0.condition != .always }.count == 1, "one refusal, and never a condition again")
    }

    @Test func aDirectoryFencesAsWell() throws {
        let directory = "/tmp/verneuil-fence-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        defer { try? Files.removeTree(directory) }
        let first = try machine([DirectoryStore(path: directory, sync: false)], "a", boot: "1")
        try commit(first, "one")
        #expect(try first.flush() == nil)
        let second = try machine([DirectoryStore(path: directory, sync: false)], "b", boot: "2", sharing: first)
        #expect(try second.flush()?.contains("fenced") == true)
        try commit(first, "two")
        #expect(try first.flush() == nil)
    }

    private func s3(_ server: S3Server, _ buckets: (String, String)) throws -> S3Store {
        var configuration = S3Configuration(
            region: "us-east-1", endpoint: server.endpoint, chunkBucket: buckets.0, manifestBucket: buckets.1,
            domainAddressing: false, createBucketsOnDemand: true)
        configuration.retryPause = 0.02
        return try S3Store(
            configuration, credentials: StaticCredentials(accessKeyID: server.accessKey, secretAccessKey: server.secretKey),
            environment: Environment([:]))
    }

    @Test func aRealServerFences() throws {
        let server = try S3Server.ministack()
        let buckets = (S3Server.uniqueBucket("chunks"), S3Server.uniqueBucket("manifests"))
        let first = try machine([s3(server, buckets)], "a", boot: "1")
        for i in 0..<3 {
            try commit(first, "\(i)")
            #expect(try first.flush() == nil)
        }
        let clone = try machine([s3(server, buckets)], "a", boot: "2", sharing: first)
        try commit(clone, "clone")
        #expect(try clone.flush() == nil)
        try commit(first, "late")
        #expect(try first.flush()?.contains("fenced") == true)
        #expect(clone.report().databases.first?.targets.first?.isUnguarded == false)
    }

    @Test func aRealServerThatIgnoresConditionsIsUsedWithout() throws {
        let server = try S3Server.rclone()
        let file = try machine([s3(server, (S3Server.uniqueBucket("chunks"), S3Server.uniqueBucket("manifests")))], "a", boot: "1")
        for i in 0..<2 {
            try commit(file, "\(i)")
            #expect(try file.flush() == nil)
        }
        #expect(file.report().databases.first?.targets.first?.isUnguarded == true)
    }
}
