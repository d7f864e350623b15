import CVerneuil
import Testing
import VerneuilStore
import VerneuilSystem

/// A directory that is removed when the test is over.
final class Scratch: Sendable {
    let path: String
    init() throws {
        path = "\(getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp")/verneuil-store-\(UInt64.random(in: 0 ... .max))"
        try Files.makeDirectories(path)
    }
    deinit { try? Files.removeTree(path) }
}

@Suite struct DirectoryStoreTests {
    let scratch: Scratch
    let store: DirectoryStore

    init() throws {
        scratch = try Scratch()
        try Files.makeDirectories("\(scratch.path)/a/b")
        store = DirectoryStore(path: "\(scratch.path)/a/b", sync: false)
        try store.prepare()
    }

    func error<T>(_ body: () throws(StoreError) -> T) -> StoreError? {
        do throws(StoreError) {
            _ = try body()
            return nil
        } catch { return error }
    }

    func body(_ key: String, in space: ObjectSpace = .chunks) throws -> [UInt8]? {
        guard case .found(let body, _) = try store.get(GetRequest(space, key, limit: 1 << 20)) else { return nil }
        return body
    }

    @Test func objectsAreFilesNamedByTheirKeys() throws {
        let key = "00530ec7bb0b607c%2Fa7f7fa90d321e05c"
        try store.put(PutRequest(.chunks, key, [1, 2, 3]))
        #expect(try Files.read("\(scratch.path)/a/b/chunks/\(key)") == [1, 2, 3])
        #expect(try body(key) == [1, 2, 3])
        #expect(try body(key, in: .manifests) == nil)
        #expect(try Files.list("\(scratch.path)/a/b/manifests").isEmpty)
    }

    @Test(arguments: [0, 1, 65_536, 3_000_000]) func bodiesOfAnySizeComeBack(size: Int) throws {
        let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        try store.put(PutRequest(.manifests, "k", bytes))
        guard case .found(let body, _) = try store.get(GetRequest(.manifests, "k", limit: size)) else {
            Issue.record("not found")
            return
        }
        #expect(body == bytes)
        if size > 0 {
            let e = error { () throws(StoreError) in try store.get(GetRequest(.manifests, "k", limit: size - 1)) }
            #expect(e?.kind == .tooLarge)
        }
    }

    @Test func putReplacesAndAnswersTheTagThatGetAnswers() throws {
        let first = try store.put(PutRequest(.manifests, "k", [1]))
        let second = try store.put(PutRequest(.manifests, "k", [2]))
        #expect(first != second)
        guard case .found(let body, let tag) = try store.get(GetRequest(.manifests, "k", limit: 10)) else {
            Issue.record("not found")
            return
        }
        #expect(body == [2])
        #expect(tag == second)
        guard case .notModified = try store.get(GetRequest(.manifests, "k", limit: 10, unlessTag: second)) else {
            Issue.record("fetched again")
            return
        }
        guard case .found = try store.get(GetRequest(.manifests, "k", limit: 10, unlessTag: first)) else {
            Issue.record("stale tag")
            return
        }
    }

    @Test func conditionalPutsHoldOrFail() throws {
        let first = try store.put(PutRequest(.manifests, "k", [1], condition: .ifAbsent))
        let again = error { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "k", [2], condition: .ifAbsent))
        }
        #expect(again?.kind == .conditionFailed)
        #expect(try body("k", in: .manifests) == [1])

        let second = try store.put(PutRequest(.manifests, "k", [3], condition: .ifTag(first)))
        let stale = error { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "k", [4], condition: .ifTag(first)))
        }
        #expect(stale?.kind == .conditionFailed)
        #expect(stale?.reason.contains(second) == true)
        #expect(try body("k", in: .manifests) == [3])
        let absent = error { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "other", [4], condition: .ifTag(first)))
        }
        #expect(absent?.kind == .conditionFailed)
        #expect(try Files.list("\(scratch.path)/a/b/manifests") == ["k"])
    }

    @Test func aTagIsOfTheContentWhereverItLies() throws {
        let tag = try store.put(PutRequest(.manifests, "k", [1, 2, 3]))
        #expect(try store.touch(.manifests, "k"))
        let copy = DirectoryStore(path: "\(scratch.path)/copy", sync: false)
        try copy.prepare()
        try Files.writeAtomically([1, 2, 3], to: "\(scratch.path)/copy/manifests/k")
        for holder in [store, copy] {
            guard case .notModified = try holder.get(GetRequest(.manifests, "k", limit: 10, unlessTag: tag)) else {
                Issue.record("another tag in \(holder.name)")
                continue
            }
        }
    }

    @Test func ofManyWritersWithTheSameConditionOneWins() throws {
        let store = self.store
        for round in 0..<20 {
            let condition: PutCondition
            switch try store.get(GetRequest(.manifests, "k", limit: 10)) {
            case .found(_, let tag): condition = .ifTag(tag)
            default: condition = .ifAbsent
            }
            let lock = Lock()
            nonisolated(unsafe) var outcomes: [Result<String, StoreError>] = []
            for writer in 0..<8 {
                try Threads.spawn("writer") {
                    store.put(PutRequest(.manifests, "k", [UInt8(round), UInt8(writer)], condition: condition)) { r in
                        lock.withLock {
                            outcomes.append(r)
                            lock.signal()
                        }
                    }
                }
            }
            let all = lock.withLock {
                while outcomes.count < 8 { lock.wait() }
                return outcomes
            }
            let winners = all.compactMap { try? $0.get() }
            #expect(winners.count == 1)
            for case .failure(let e) in all { #expect(e.kind == .conditionFailed) }
        }
    }

    @Test func touchRenewsTheAgeAndKnowsWhatIsMissing() throws {
        try store.put(PutRequest(.chunks, "k", [1]))
        let file = "\(scratch.path)/a/b/chunks/k"
        age(file, by: 86_400)
        #expect(try store.touch(.chunks, "k"))
        let modified = try #require(try Files.status(file)).modified.seconds
        #expect(abs(modified - wallClock().seconds) < 60)
        #expect(try !store.touch(.chunks, "other"))
    }

    func age(_ file: String, by seconds: Int) {
        var times = [timespec(), timespec()]
        for i in 0..<2 { times[i].tv_sec = Int(wallClock().seconds) - seconds }
        #expect(utimensat(AT_FDCWD, file, times, 0) == 0)
    }

    @Test func listAnswersKeysInByteOrderAfterAndWithPrefix() throws {
        for key in ["b", "a%2F2", "a%2F1", "Z", "é", "a"] { try store.put(PutRequest(.chunks, key, [1, 2])) }
        try Files.writeAtomically([], to: "\(scratch.path)/a/b/chunks/.tmp.1.crashed")
        try Files.makeDirectories("\(scratch.path)/a/b/chunks/directory")
        let all = try store.list(.chunks, prefix: "")
        #expect(all.entries.map(\.key) == ["Z", "a", "a%2F1", "a%2F2", "b", "é"])
        #expect(all.entries.allSatisfy { $0.size == 2 && abs($0.modified - wallClock().seconds) < 60 })
        #expect(!all.isTruncated)
        #expect(try store.list(.chunks, prefix: "a").entries.map(\.key) == ["a", "a%2F1", "a%2F2"])
        #expect(try store.list(.chunks, prefix: "a", after: "a").entries.map(\.key) == ["a%2F1", "a%2F2"])
        #expect(try store.list(.chunks, prefix: "", after: "é").entries.isEmpty)
        #expect(try store.list(.manifests, prefix: "").entries.isEmpty)
    }

    @Test func listPages() throws {
        let count = 10_003
        for i in 0..<count { try Files.writeAtomically([], to: "\(scratch.path)/a/b/chunks/\(100_000 + i)") }
        let first = try store.list(.chunks, prefix: "1")
        #expect(first.isTruncated)
        let second = try store.list(.chunks, prefix: "1", after: first.entries.last?.key)
        #expect(!second.isTruncated)
        #expect((first.entries + second.entries).map(\.key) == (0..<count).map { String(100_000 + $0) })
    }

    @Test(arguments: ["", ".", "..", "a/b", "../x", "a\0b", ".tmp.x", String(repeating: "k", count: 256)])
    func keysThatAreNoFileNamesAreRefused(key: String) throws {
        let put = error { () throws(StoreError) in try store.put(PutRequest(.chunks, key, [1])) }
        #expect(put?.kind == .invalid)
        let get = error { () throws(StoreError) in try store.get(GetRequest(.chunks, key, limit: 1)) }
        #expect(get?.kind == .invalid)
        #expect(try Files.list("\(scratch.path)/a/b/chunks").isEmpty)
    }

    @Test func theLongestKeyWorks() throws {
        let key = String(repeating: "k", count: 255)
        try store.put(PutRequest(.chunks, key, [7]))
        #expect(try body(key) == [7])
    }

    @Test func withoutItsDirectoriesNothingIsMadeNorCalledMissing() throws {
        let store = DirectoryStore(path: "\(scratch.path)/unmounted")
        let errors = [
            error { () throws(StoreError) in try store.put(PutRequest(.chunks, "k", [1])) },
            error { () throws(StoreError) in try store.get(GetRequest(.chunks, "k", limit: 1)) },
            error { () throws(StoreError) in try store.touch(.chunks, "k") },
            error { () throws(StoreError) in try store.list(.chunks, prefix: "") },
        ]
        for e in errors {
            #expect(e?.kind == .noSuchSpace)
            #expect(e?.description.contains("\(scratch.path)/unmounted/chunks") == true)
        }
        #expect(try Files.status("\(scratch.path)/unmounted") == nil)
    }

    /// The mount point of a disk that isn't mounted is an empty directory, and what is below it isn't there.
    @Test func whatMayBeOnAMissingDiskIsNotMade() throws {
        let mount = "\(scratch.path)/mount"
        try Files.makeDirectories(mount)
        let store = DirectoryStore(path: "\(mount)/verneuil/", sync: false)
        let empty = error { () throws(StoreError) in try store.prepare() }
        #expect(empty?.kind == .noSuchSpace)
        #expect(empty?.reason.contains("\(mount) is empty") == true && empty?.reason.contains("mkdir") == true)
        let missing = error { () throws(StoreError) in try DirectoryStore(path: "\(mount)/hosts/a").prepare() }
        #expect(missing?.kind == .noSuchSpace)
        #expect(missing?.reason.contains("\(mount) is empty") == true, "\(missing?.reason ?? "made")")
        #expect(try Files.list(mount).isEmpty)

        // It is there now: that of ext4 has a directory of its own.
        try Files.makeDirectories("\(mount)/lost+found")
        try store.prepare()
        try store.put(PutRequest(.chunks, "k", [1]))
        for made in ["", "/chunks", "/manifests"] {
            #expect(try Files.status("\(mount)/verneuil\(made)")?.mode == UInt32(S_IFDIR) | 0o700)
        }
        try DirectoryStore(path: "\(mount)/hosts/a").prepare()
        // Or somebody says so.
        try Files.makeDirectories("\(scratch.path)/other/verneuil")
        try DirectoryStore(path: "\(scratch.path)/other/verneuil").prepare()
    }

    @Test func aFileInThePlaceOfTheDirectoryIsNamed() throws {
        try Files.writeAtomically([], to: "\(scratch.path)/file")
        let e = error { () throws(StoreError) in try DirectoryStore(path: "\(scratch.path)/file").prepare() }
        #expect(e?.kind == .invalid)
        #expect(e?.description.contains("\(scratch.path)/file") == true)
        #expect(error { () throws(StoreError) in try DirectoryStore(path: "").prepare() }?.kind == .invalid)
    }

    @Test func prepareRemovesOldLeftoversAlone() throws {
        let chunks = "\(scratch.path)/a/b/chunks"
        for name in [".tmp.1.old", ".tmp.2.young", "object"] { try Files.writeAtomically([], to: "\(chunks)/\(name)") }
        age("\(chunks)/.tmp.1.old", by: 3700)
        age("\(chunks)/object", by: 3700)
        try store.prepare()
        #expect(try Files.list(chunks).sorted() == [".tmp.2.young", "object"])
    }

    @Test func filesHaveTheirDirectorysPermissions() throws {
        for (directory, file) in [(0o700, 0o600), (0o755, 0o644), (0o770, 0o660)] as [(UInt32, UInt32)] {
            #expect(vrn_chmod("\(scratch.path)/a/b/chunks", directory) == 0)
            try store.put(PutRequest(.chunks, "k", [1]))
            #expect(try Files.status("\(scratch.path)/a/b/chunks/k")?.mode == UInt32(S_IFREG) | file)
        }
    }

    @Test func readersSeeOneBodyWholeWhileWritersReplaceIt() throws {
        let store = self.store
        try store.put(PutRequest(.manifests, "k", [UInt8](repeating: 0, count: 100_000)))
        let lock = Lock()
        nonisolated(unsafe) var running = 2
        for writer in 0..<2 {
            try Threads.spawn("writer") {
                for i in 0..<200 {
                    let body = [UInt8](repeating: UInt8(truncatingIfNeeded: i), count: 100_000 + writer)
                    do { try store.put(PutRequest(.manifests, "k", body)) } catch { Issue.record(error) }
                }
                lock.withLock { running -= 1 }
            }
        }
        var reads = 0
        while lock.withLock({ running > 0 }) || reads == 0 {
            let body = try #require(try body("k", in: .manifests))
            #expect(body.allSatisfy { $0 == body[0] })
            #expect(body.count == 100_000 || body.count == 100_001)
            reads += 1
        }
    }

    @Test func syncedStoreStoresTheSame() throws {
        let store = DirectoryStore(path: "\(scratch.path)/synced")
        try store.prepare()
        try store.put(PutRequest(.chunks, "c", [1]))
        let tag = try store.put(PutRequest(.manifests, "m", [2]))
        try store.put(PutRequest(.manifests, "m", [3], condition: .ifTag(tag)))
        #expect(try Files.read("\(scratch.path)/synced/manifests/m") == [3])
    }
}
