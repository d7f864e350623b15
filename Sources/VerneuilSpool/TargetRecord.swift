import CVerneuil
import VerneuilFormat
import VerneuilSystem

// What copiers write down about each target, beside the spool that it is about:
//
//   DEVICE-INODE/target.ID    one database file on one target: TargetRecord, for copiers and for `status`
//   DEVICE-INODE/ages.ID      when each chunk was stored or touched: ChunkAges
//   DEVICE-INODE/sent.ID      what an upload has sent that didn't come to its end: ConfirmedChunks
//   PATH/lineage.ID           the manifest's last known entity tag: Lineage. It goes by the path, as the manifest does
//   PATH/takeover.ID          somebody said: overwrite the manifest, whoever wrote it
//   PATH/hurry                somebody waits for an upload: whoever does it uses the fast budget
//
// All but the last two are written by the holder of `copier.lock` alone, each
// by a rename: readers (who need no lock) see all of one or all of the next.
// What a crash loses of them is looked for in the store again.

/// One database file on one target. Times are nanoseconds since 1970; 0: never.
public struct TargetRecord: Sendable, Equatable {
    /// The store's name, for people.
    public var name = ""
    /// The newest snapshot that is stored there whole, manifest included.
    public var stored = SpoolPoint.none
    /// When that was known last.
    public var lastSuccess: UInt64 = 0
    /// The last failure; empty: none since this machine started.
    public var error = ""
    public var lastError: UInt64 = 0
    /// Passes that failed since the last one that did not.
    public var failures = 0
    /// When a pass that had something to send ended, when one stored a manifest, and when one failed, by the clock that
    /// all processes of this boot share; nil: none did. What is sent when obeys them, whichever process passes.
    public var lastPass: MonotonicTime?
    /// See ``lastPass``.
    public var lastManifest: MonotonicTime?
    /// See ``lastPass``.
    public var lastFailure: MonotonicTime?
    /// Chunks sent since this machine started, and their bytes as sent.
    public var sentChunks = 0
    public var sentBytes = 0
    /// The upload that is under way, if one is: chunks done and to do, and when that was written.
    public var progress: (done: Int, total: Int, at: UInt64)?
    /// Not empty: another machine has written the manifest; nothing is uploaded until somebody says so.
    public var fencedBy = ""
    /// Whether the store can't tell who wrote last, so that no fence stands.
    public var isUnguarded = false
    /// When the record itself was written.
    public var written: UInt64 = 0

    public init(name: String = "") { self.name = name }

    public static func == (a: TargetRecord, b: TargetRecord) -> Bool { a.text == b.text }

    init(_ bytes: [UInt8]) {
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 1)
            guard words.count == 2 else { continue }
            let value = words[1]
            let numbers = value.split(separator: " ").map { UInt64($0) ?? 0 }
            func number(_ i: Int) -> UInt64 { i < numbers.count ? numbers[i] : 0 }
            // With room to count on.
            func count(_ i: Int) -> Int { Int(clamping: min(number(i), 1 << 60)) }
            switch words[0] {
            case "name": name = String(value)
            case "stored": stored = SpoolPoint(number(0), number(1))
            case "success": lastSuccess = number(0)
            case "error":
                lastError = number(0)
                error = String(value.split(separator: " ", maxSplits: 1).dropFirst().first ?? "")
            case "failures": failures = count(0)
            case "paced":
                let times = (0..<3).map { number($0) == 0 ? nil : MonotonicTime(nanoseconds: number($0)) }
                (lastPass, lastManifest, lastFailure) = (times[0], times[1], times[2])
            case "sent":
                sentChunks = count(0)
                sentBytes = count(1)
            case "progress": progress = (count(0), count(1), number(2))
            case "fenced": fencedBy = String(value)
            case "unguarded": isUnguarded = true
            case "written": written = number(0)
            default: continue
            }
        }
    }

    var text: String {
        func line(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }
        var out = "name \(line(name))\nstored \(stored.epoch) \(stored.sequence)\nsuccess \(lastSuccess)\n"
        if !error.isEmpty { out += "error \(lastError) \(line(error))\n" }
        out += "failures \(failures)\nsent \(sentChunks) \(sentBytes)\n"
        let paced = [lastPass, lastManifest, lastFailure].map { $0?.nanoseconds ?? 0 }
        out += "paced \(paced[0]) \(paced[1]) \(paced[2])\n"
        if let progress { out += "progress \(progress.done) \(progress.total) \(progress.at)\n" }
        if !fencedBy.isEmpty { out += "fenced \(line(fencedBy))\n" }
        if isUnguarded { out += "unguarded yes\n" }
        return out + "written \(written)\n"
    }
}

/// What this machine knows of one database's manifest on one target.
public struct Lineage: Sendable, Equatable {
    /// The entity tag of the manifest as this machine wrote, or took, it last; nil: not known.
    public var tag: String?
    /// When it was written or touched last, in seconds since 1970; nil: not known, which counts as long ago.
    public var kept: Int64?
    /// The store doesn't honour conditions on PUT.
    public var isUnguarded = false
    /// Not empty: who has overwritten us.
    public var fencedBy = ""
    /// Fingerprints of the manifests that were sent since one was known to be stored, and of that: any of them may be there, by
    /// a process that died, or whose answer was lost, before it could write down the tag. The newest is the last.
    public private(set) var sent: [String] = []
    /// ctime of the database as the manifest says that was known to be stored last; nil: not known.
    public private(set) var changed: FileTime?
    public init() {}

    /// More than that many in a row with nothing known of any are not remembered: they are a line of text.
    static let mostSent = 16

    /// Before it is sent. False: that was noted before.
    public mutating func noteSending(_ manifest: [UInt8]) -> Bool {
        let print = Self.fingerprint(manifest)
        if sent.last == print { return false }
        sent = (sent.filter { $0 != print } + [print]).suffix(Self.mostSent)
        return true
    }
    /// It is known to be there now, and so nothing that was sent before.
    ///
    /// - Parameter changed: ctime of the database that it is of.
    public mutating func noteStored(_ manifest: [UInt8], _ changed: FileTime) {
        sent = [Self.fingerprint(manifest)]
        self.changed = changed
    }
    public func hasSent(_ manifest: [UInt8]) -> Bool { !sent.isEmpty && sent.contains(Self.fingerprint(manifest)) }

    private static func fingerprint(_ manifest: [UInt8]) -> String {
        let print = manifest.withUnsafeBytes(Chunk.fingerprint)
        return "\(hex(print.primary)).\(hex(print.secondary))"
    }

    init(_ bytes: [UInt8]) {
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 1)
            guard words.count == 2 else { continue }
            switch words[0] {
            case "tag": tag = String(words[1])
            case "kept": kept = Int64(words[1])
            case "unguarded": isUnguarded = true
            case "fenced": fencedBy = String(words[1])
            case "sent": sent = words[1].split(separator: " ").map(String.init)
            case "changed":
                let numbers = words[1].split(separator: " ").compactMap { Int64($0) }
                if numbers.count == 2 { changed = FileTime(seconds: numbers[0], nanoseconds: numbers[1]) }
            default: continue
            }
        }
    }

    var text: String {
        func line(_ text: String) -> String { String(text.map { $0.isNewline ? " " : $0 }) }
        return (tag.map { "tag \(line($0))\n" } ?? "") + (kept.map { "kept \($0)\n" } ?? "") + (isUnguarded ? "unguarded yes\n" : "")
            + (fencedBy.isEmpty ? "" : "fenced \(line(fencedBy))\n") + (sent.isEmpty ? "" : "sent \(sent.joined(separator: " "))\n")
            + (changed.map { "changed \($0.seconds) \($0.nanoseconds)\n" } ?? "")
    }
}

extension SpoolDatabase {
    /// The directory of the path, which all files that were ever there share.
    var pathDirectory: String { Files.directory(of: directory) }

    // MARK: records of a target

    /// nil: no copier has written about this target during this boot.
    public func readTargetRecord(_ target: String) throws(SystemError) -> TargetRecord? {
        try Files.read("\(directory)/target.\(target)", limit: 1 << 20).map(TargetRecord.init)
    }

    /// The same for who only looks: nil also where it can't be read.
    public func targetRecord(_ target: String) -> TargetRecord? { (try? readTargetRecord(target)) ?? nil }

    /// Under the copier's lock.
    public func setTargetRecord(_ target: String, _ record: TargetRecord) throws(SystemError) {
        var record = record
        record.written = now()
        try spool.write(Array(record.text.utf8), to: "\(directory)/target.\(target)")
    }

    /// All targets that copiers have written about, by identifier.
    public func targetRecords() -> [String: TargetRecord] {
        targetIdentifiers((try? Files.list(directory)) ?? []).reduce(into: [:]) { $0[$1] = targetRecord($1) }
    }

    /// The same; throws where one can't be read.
    func readTargetRecords() throws(SystemError) -> [String: TargetRecord] {
        var found: [String: TargetRecord] = [:]
        for id in targetIdentifiers(try Files.list(directory)) { found[id] = try readTargetRecord(id) }
        return found
    }

    private func targetIdentifiers(_ names: [String]) -> [String] {
        names.filter { $0.hasPrefix("target.") && !$0.hasSuffix(".new") }.map { String($0.dropFirst(7)) }
    }

    /// Under the copier's lock.
    public func removeTargetRecord(_ target: String) { try? Files.remove("\(directory)/target.\(target)") }

    // MARK: the manifest's lineage

    /// Where nothing was written, nothing is claimed. What was and can't be read is no such thing: a fence stands in it.
    public func lineage(_ target: String) throws(SystemError) -> Lineage {
        try Files.read("\(pathDirectory)/lineage.\(target)", limit: 1 << 20).map(Lineage.init) ?? Lineage()
    }

    /// Under the copier's lock.
    public func setLineage(_ target: String, _ lineage: Lineage) throws(SystemError) {
        try spool.write(Array(lineage.text.utf8), to: "\(pathDirectory)/lineage.\(target)")
    }

    // MARK: requests to whoever holds the copier's lock

    /// Asks for the manifest to be overwritten, whoever wrote it. Stands until it was.
    public func requestTakeover(_ target: String) throws(SystemError) {
        try makeRequest("takeover.\(target)")
    }
    public func isTakeoverRequested(_ target: String) -> Bool { vrn_access("\(pathDirectory)/takeover.\(target)", F_OK) == 0 }
    public func endTakeover(_ target: String) { try? Files.remove("\(pathDirectory)/takeover.\(target)") }

    /// How long a request for haste holds, in seconds.
    static let hurrySeconds: Int64 = 10

    /// Asks whoever uploads to use the fast budget for some seconds.
    public func requestHurry() { try? makeRequest("hurry") }
    public var isHurried: Bool {
        guard let status = try? Files.status("\(pathDirectory)/hurry") else { return false }
        return status.modified.isYounger(than: Self.hurrySeconds * 1_000_000_000, at: wallClock())
    }

    private func makeRequest(_ name: String) throws(SystemError) {
        try spool.make(pathDirectory)
        try spool.write([], to: "\(pathDirectory)/\(name)", isOnlyWriter: false)
    }

    private func now() -> UInt64 {
        let time = wallClock()
        return UInt64(clamping: time.seconds) &* 1_000_000_000 &+ UInt64(clamping: time.nanoseconds)
    }
}
