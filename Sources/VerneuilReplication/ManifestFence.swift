import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

// Two machines with one host name and path would overwrite each other's
// manifest in turn, each losing the other's data without a word. So a manifest
// is written only over one of which it is known that we may:
//
//   - the one that this machine wrote last (its entity tag stands in the
//     spool), or that it has sent since (its fingerprint does), by a copier that died before it could write down the tag;
//     or one that carries the mark of the same file on this machine: it was written through another spooling directory;
//   - where nothing is known, as after a reboot: none at all, one by the same
//     machine, or one whose writer can't be told (another program; a machine without an id).
//
// All else is a fence: nothing is uploaded until `verneuilctl sync --take-over`
// says so. The store compares and writes in one step (If-Match, If-None-Match),
// so of two machines that write at the same time one fails, and finds out here.
// A store that can't is used without, and that is logged once.

/// Writes the manifest of one database to one target. Used under the copier's lock.
final class ManifestFence {
    /// Another machine has written the manifest.
    struct Fenced: Error, CustomStringConvertible {
        var by: String
        var description: String {
            "fenced: \(by); if this machine is the right one, run verneuilctl sync --take-over on the database"
        }
    }
    /// This machine has stored a newer state through another spooling directory.
    struct Overtaken: Error, CustomStringConvertible {
        var description: String { "a newer state was stored through another spooling directory of this machine" }
    }

    /// What this machine wrote isn't there any more: a bucket was emptied, or made anew. Chunks may have gone with it.
    struct Vanished: Error, CustomStringConvertible {
        var description: String { "the manifest is not there any more" }
    }

    private let database: SpoolDatabase
    private let target: ReplicationTarget
    private let key: String
    private let logger: Logger
    private(set) var lineage = Lineage()
    private var condition = PutCondition.always
    private var isTakingOver = false
    /// The manifest that `prepare` found and may replace, where nothing was known of it. It says what else is in the store.
    private(set) var inherited: [UInt8]?
    private let options: ReplicationOptions

    init(_ database: SpoolDatabase, _ target: ReplicationTarget, key: String, _ options: ReplicationOptions, logger: Logger) {
        self.database = database
        self.target = target
        self.key = key
        self.options = options
        self.logger = logger
    }

    /// Looks, before anything is uploaded, whether the manifest may be written. No request where the tag is known.
    /// - Parameter isRepeat: the last one may have vanished, which is known then, and no surprise.
    func prepare(_ mark: WriterMark, _ ctime: FileTime, isRepeat: Bool, _ urgency: Urgency) throws {
        lineage = try database.lineage(target.identifier)
        inherited = nil
        isTakingOver = database.isTakeoverRequested(target.identifier)
        if isTakingOver {
            lineage.tag = nil
            lineage.fencedBy = ""
        }
        if !lineage.fencedBy.isEmpty { throw Fenced(by: lineage.fencedBy) }
        if lineage.isUnguarded {
            condition = .always
        } else if let tag = lineage.tag {
            condition = .ifTag(tag)
            guard isRepeat else { return }
            let found = try target.store.get(GetRequest(.manifests, key, limit: 1 << 30, unlessTag: tag, urgency: urgency))
            if case .missing = found {
                lineage.tag = nil
                condition = .ifAbsent
            }
        } else {
            condition = try look(mark, ctime, body: nil, urgency)
        }
    }

    /// Writes the manifest, after `prepare`.
    func put(_ body: [UInt8], _ mark: WriterMark, _ ctime: FileTime, _ urgency: Urgency) throws {
        noteSending(body)
        for _ in 0..<5 {
            switch Result(catching: { () throws(StoreError) in
                try target.store.put(PutRequest(.manifests, key, body, condition: condition, urgency: urgency))
            }) {
            case .success(let tag):
                lineage.tag = tag.isEmpty ? nil : tag
                lineage.noteStored(body, ctime)
                return try keep()
            case .failure(let error) where error.kind == .conditionUnsupported:
                lineage.isUnguarded = true
                lineage.tag = nil
                condition = .always
                logger.notice(
                    "the store doesn't honour conditions on PUT: another machine with this host name and path would not be noticed",
                    metadata: ["database": "\(database.path)", "store": "\(target.store.name)"])
            case .failure(let error) where error.kind == .conditionFailed:
                condition = try look(mark, ctime, body: body, urgency)
                if condition == .always { return try keep() }
            case .failure(let error): throw error
            }
        }
        throw StoreError(
            .unavailable, store: target.store.name, operation: "PUT manifests/\(key)", reason: "others write it all the time")
    }

    /// Writes down what is about to be sent: who finds it in the store knows it again, whatever became of the process, the
    /// database's file and the clock since. Where the spool has no room, the mark must do.
    private func noteSending(_ body: [UInt8]) {
        guard !lineage.isUnguarded, lineage.noteSending(body) else { return }
        do throws(SystemError) { try database.setLineage(target.identifier, lineage) } catch {
            logger.error("the spool can't be written", metadata: ["error": "\(error)"])
        }
    }

    private func keep() throws(SystemError) {
        lineage.fencedBy = ""
        lineage.kept = options.clock()
        try database.setLineage(target.identifier, lineage)
        if isTakingOver {
            database.endTakeover(target.identifier)
            isTakingOver = false
        }
    }

    /// Reads the manifest that is there. Answers on what condition it may be replaced; `.always`: it is `body` already.
    private func look(
        _ mark: WriterMark, _ ctime: FileTime, body: [UInt8]?, _ urgency: Urgency
    ) throws -> PutCondition {
        let found = try target.store.get(GetRequest(.manifests, key, limit: 1 << 30, urgency: urgency))
        guard case .found(let theirs, let tag) = found else {
            if lineage.tag == nil { return .ifAbsent }
            throw vanished()
        }
        if let body, theirs == body {
            // An earlier try of ours went through, and its answer was lost.
            lineage.tag = tag.isEmpty ? nil : tag
            lineage.noteStored(theirs, ctime)
            return .always
        }
        if body == nil { inherited = theirs }
        if !tag.isEmpty && lineage.hasSent(theirs) {
            // The same, in an earlier pass. Since then a file may have been moved over the database's, or the clock set back.
            lineage.tag = tag
            return .ifTag(tag)
        }
        let writer = Writer(theirs)
        if writer.mark?.file == mark.file {
            if !isTakingOver && ctime < writer.ctime { throw Overtaken() }
        } else if !isTakingOver {
            let isFirst = lineage.tag == nil
            let mayBeOurs = writer.mark.map { $0.machine == mark.machine || $0.machine.isEmpty || mark.machine.isEmpty } ?? true
            guard isFirst && mayBeOurs else { throw fence(writer, tag) }
            logger.notice(
                "going on from the manifest that is stored",
                metadata: ["database": "\(database.path)", "store": "\(target.store.name)", "manifest": "\(writer)"])
        }
        return tag.isEmpty ? .always : .ifTag(tag)
    }

    // MARK: - Keeping it alive

    enum Life {
        /// Nothing was done: it is young enough, or not ours to see to.
        case young
        case touched
    }

    /// Makes the manifest young again where it comes near to the patrol's age, without changing what it says. An idle
    /// database's would otherwise fall to the same rule as its chunks.
    ///
    /// COPY has no condition on what it overwrites: between its reading and its writing another machine's manifest would
    /// be lost. So where the store honours conditions, the bytes that are there are written again on condition that
    /// nobody else has written. Under the copier's lock.
    func keepAlive(_ mark: WriterMark) throws -> Life {
        lineage = try database.lineage(target.identifier)
        guard lineage.fencedBy.isEmpty, lineage.tag != nil || lineage.kept != nil else { return .young }
        let now = options.clock()
        let due = Int64(Patrol.due(options, hash: FingerprintKey.mangling.primary(Array(key.utf8)))) * 3600
        if let kept = lineage.kept, kept <= now, now - kept < due { return .young }
        if lineage.isUnguarded {
            guard try target.store.touch(.manifests, key, urgency: .background) else { throw vanished() }
        } else {
            try writeAgain(mark)
        }
        lineage.kept = now
        try database.setLineage(target.identifier, lineage)
        return .touched
    }

    private func writeAgain(_ mark: WriterMark) throws {
        let found = try target.store.get(GetRequest(.manifests, key, limit: 1 << 30, urgency: .background))
        guard case .found(let body, let tag) = found else { throw vanished() }
        if tag != lineage.tag {
            switch Self.judge(body, lineage, mark) {
            // Its answer was lost, or it came through another spooling directory.
            case nil: break
            case .foreign(let writer): throw fence(writer, tag)
            case .vanished, .older: throw vanished()
            }
        }
        let condition: PutCondition = tag.isEmpty ? .always : .ifTag(tag)
        let put = PutRequest(.manifests, key, body, condition: condition, urgency: .background)
        noteSending(body)
        let new = try target.store.put(put)
        lineage.tag = new.isEmpty ? tag : new
    }

    private func vanished() -> Vanished {
        lineage.tag = nil
        lineage.kept = nil
        do throws(SystemError) { try database.setLineage(target.identifier, lineage) } catch {
            logger.error("the spool can't be written", metadata: ["error": "\(error)"])
        }
        return Vanished()
    }

    private func fence(_ writer: Writer, _ tag: String) -> Fenced {
        lineage.fencedBy = "another machine has written the manifest on \(target.store.name): \(writer), entity tag \(tag)"
        do throws(SystemError) { try database.setLineage(target.identifier, lineage) } catch {
            logger.error("the spool can't be written", metadata: ["error": "\(error)"])
        }
        logger.error(
            "another machine replicates to the same name; stopped, nothing is overwritten",
            metadata: [
                "database": "\(database.path)", "store": "\(target.store.name)", "manifest": "\(key)", "winner": "\(writer)",
                "tag": "\(tag)",
            ])
        return Fenced(by: lineage.fencedBy)
    }

    /// Whether the manifest that stands in the store is this machine's: what a flush asks that had nothing to upload.
    /// nil, or what is there instead. Changes nothing, needs no lock.
    static func verify(
        _ database: SpoolDatabase, _ target: ReplicationTarget, key: String, _ mark: WriterMark, _ urgency: Urgency
    ) throws -> Instead? {
        let lineage = try database.lineage(target.identifier)
        switch try target.store.get(GetRequest(.manifests, key, limit: 1 << 30, unlessTag: lineage.tag, urgency: urgency)) {
        case .notModified: return nil
        case .missing: return .vanished
        case .found(let theirs, _): return judge(theirs, lineage, mark)
        }
    }

    /// What stands where ours should. nil: ours, or a newer one of the same file.
    private static func judge(_ body: [UInt8], _ lineage: Lineage, _ mark: WriterMark) -> Instead? {
        if lineage.hasSent(body) { return nil }
        let writer = Writer(body)
        guard writer.mark?.file == mark.file else { return .foreign(writer) }
        // A bucket that was set back, or a late PUT of a process that is gone to a store that knows no conditions.
        return lineage.changed.map { writer.ctime < $0 } ?? false ? .older(writer) : nil
    }

    enum Instead: CustomStringConvertible {
        case vanished
        case older(Writer)
        case foreign(Writer)
        var description: String {
            switch self {
            case .vanished: "\(Vanished())"
            case .older(let writer): "an older manifest stands there: \(writer)"
            case .foreign(let writer): "another machine has written the manifest: \(writer)"
            }
        }
    }

    /// What a manifest says of who wrote it.
    struct Writer: CustomStringConvertible {
        var program: String
        fileprivate var mark: WriterMark?
        fileprivate var ctime = FileTime(seconds: 0, nanoseconds: 0)

        fileprivate init(_ body: [UInt8]) {
            do throws(FormatError) {
                let manifest = try StoredManifest(decoding: body)
                program = String(decoding: manifest.generatedBy, as: UTF8.self)
                mark = WriterMark(generatedBy: program)
                ctime = FileTime(seconds: manifest.ctime, nanoseconds: Int64(manifest.ctimeNanoseconds))
            } catch {
                program = "a program unknown (\(error))"
            }
        }
        var description: String { "by \(program.isEmpty ? "a program unknown" : program), of a file changed at \(ctime.seconds)" }
    }
}
