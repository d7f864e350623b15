import CVerneuil
import Logging
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

// A bucket may have a rule that deletes what nobody touched for a week (SYSTEM
// 4). Chunks that don't change for longer are kept alive by touching each of them
// once per `patrolInterval`: a few after every pass, so that no upload waits
// for a patrol. How far it came stands beside the list of what is stored, and is as
// trustworthy: after a boot everything is uploaded again, and so is young.

/// Keeps the chunks of one database's last uploaded manifest alive on one target. Used under the copier's lock.
struct Patrol {
    enum Outcome: Equatable {
        /// Nothing is due for this many seconds.
        case idle(Double)
        /// More is due now.
        case more
        /// The store has lost a chunk.
        case missing(Fingerprint)
        case failed(String)
    }

    let database: SpoolDatabase
    let target: ReplicationTarget
    let interval: Double
    /// Chunks touched by one call.
    static let slice = 32

    private var path: String { "\(database.directory)/patrol.\(target.identifier)" }

    /// Where the round that is under way began and how far it came.
    private struct Round {
        /// Seconds since 1970.
        var began: Int64
        var next: Int

        init(began: Int64, next: Int) {
            self.began = began
            self.next = next
        }
        init?(_ bytes: [UInt8]) {
            let fields = String(decoding: bytes, as: UTF8.self).split(separator: " ")
            guard fields.count == 2, let began = Int64(fields[0]), let next = Int(fields[1]), next >= 0 else { return nil }
            self.init(began: began, next: next)
        }
        var bytes: [UInt8] { Array("\(began) \(next)".utf8) }
    }

    func walk() -> Outcome {
        do {
            guard let list = database.storedChunks(target.identifier) else { return .idle(interval) }
            let now = wallClock().seconds
            guard var round = try Files.read(path, limit: 100).flatMap(Round.init) else {
                // All of it was stored just now.
                try save(Round(began: now, next: list.count))
                return .idle(interval)
            }
            if round.next >= list.count {
                let age = Double(now - round.began)
                // A clock that was set back must not stop the patrol.
                if age >= 0 && age < interval { return .idle(interval - age) }
                round = Round(began: now, next: 0)
            }
            var touched = 0
            while round.next < list.count && touched < Self.slice {
                let chunk = list[round.next]
                round.next += 1
                if chunk == Chunk.zeroFingerprint { continue }
                touched += 1
                if try !target.store.touch(.chunks, chunk.chunkName, urgency: .background) { return .missing(chunk) }
            }
            try save(round)
            return round.next < list.count ? .more : .idle(interval)
        } catch {
            return .failed("\(error)")
        }
    }

    private func save(_ round: Round) throws(SystemError) {
        try Files.writeAtomically(round.bytes, to: path, isOnlyWriter: true)
    }
}

extension DatabaseCopier {
    /// Touches what is due on every target. Answers after how many seconds to come again.
    func patrol() -> Double? {
        guard let session = try? SpoolCopierSession.open(database) else { return nil }
        defer { withExtendedLifetime(session) {} }
        var soonest: Double?
        for target in replicator.targets {
            let wait: Double
            switch Patrol(database: database, target: target, interval: options.patrolInterval).walk() {
            case .idle(let seconds): wait = seconds
            case .more: wait = 1
            case .failed(let reason):
                logger.warning(
                    "chunks could not be touched; it will be tried again",
                    metadata: ["database": "\(database.path)", "reason": "\(reason)"])
                wait = 60
            case .missing(let chunk):
                logger.error(
                    "a chunk is missing in the store; taking a full snapshot",
                    metadata: [
                        "database": "\(database.path)", "store": "\(target.store.name)", "chunk": "\(chunk.chunkName)",
                    ])
                forgetAll()
                wait = 1
            }
            soonest = min(soonest ?? wait, wait)
        }
        return soonest.map { max(0.5, $0) }
    }
}
