import CVerneuil
import VerneuilFormat
import VerneuilSpool
import VerneuilStore
import VerneuilSystem

// A bucket may have a rule that deletes what nobody touched for a week
// (docs/REPLICATION.md). Chunks that don't change for longer are kept alive by touching each of
// them; but a touch (COPY) costs as much as a PUT, and touching all of them daily
// costs about a hundred times what storing them does. So each chunk's age is
// kept (ChunkAges: storing it counts), and only what comes near to
// `patrolMaxAge` is touched:
//
//     due(chunk) = maximum − 3 h − jitter(chunk),   jitter in 0 … 15 % of the maximum
//
// 3 h: one since ages are whole hours, one since a lane looks at least once an
// hour, one for the touching itself. The jitter is a hash of the chunk's name: what was stored at once is not due at
// once, for ever after. Where so much comes due that `touchesPerSecond` would
// not get through in time, it begins earlier.

/// Keeps the chunks of one database's last uploaded manifest alive on one target. Used under the copier's lock.
package struct Patrol {
    package enum Outcome: Equatable {
        /// Nothing is due for this many seconds.
        case idle(Double, touched: Int)
        /// More is due now.
        case more(touched: Int)
        /// The store has lost a chunk.
        case missing(Fingerprint)
        case failed(String)
    }

    private let database: SpoolDatabase
    private let target: ReplicationTarget
    private let options: ReplicationOptions
    /// Touches in flight, and chunks touched by one call.
    static let slice = 32
    /// Chunks that one look at the list finds work for.
    static let queueLimit = 8192

    private var list: [Fingerprint] = []
    private var ages: ChunkAges?
    private var stamp: FileStatus?
    /// What is due, the most urgent last.
    private var queue: [Fingerprint] = []
    /// Where those stand in the list.
    private var places: [Fingerprint: [Int]] = [:]
    /// No look before this time (seconds since 1970), unless the clock was set back behind the other.
    private var restUntil: Int64 = .min
    private var restSince: Int64 = .min

    package init(_ database: SpoolDatabase, _ target: ReplicationTarget, _ options: ReplicationOptions) {
        self.database = database
        self.target = target
        self.options = options
    }

    private var maximum: Int { Int(options.patrolMaxAge / 3600) }

    /// The age in hours at which something is touched whose name has the hash `hash`.
    static func due(_ options: ReplicationOptions, hash: UInt64) -> Int {
        let jitter = options.patrolMaxAge / 3600 * 0.15 * (Double(hash >> 11) / 0x1p53)
        return max(0, Int(options.patrolMaxAge / 3600) - 3 - Int(jitter))
    }

    /// Whether no process has touched the chunk in this hour or the one before.
    private func isUntouched(_ chunk: Fingerprint, since hour: UInt16) -> Bool {
        guard let place = places[chunk]?.first, let then = ages?.hours[place] else { return true }
        return ChunkAges.age(then, at: hour).map { $0 >= min(2, maximum) } ?? true
    }

    package mutating func walk() -> Outcome {
        do {
            let now = options.clock()
            if queue.isEmpty && now < restUntil && now >= restSince { return .idle(Double(restUntil - now), touched: 0) }
            let found = try Files.status("\(database.directory)/stored.\(target.identifier)")
            guard let found, let stored = database.storedChunks(target.identifier) else { return rest(now, 3600, touched: 0) }
            if queue.isEmpty || found.inode != stamp?.inode || found.modified != stamp?.modified {
                stamp = found
                list = stored
                if let seconds = try look(now) { return rest(now, seconds, touched: 0) }
            }
            let next = Array(queue.suffix(Self.slice))
            // Eight processes that have the database open all have this queue.
            try ages?.refresh(next.flatMap { places[$0] ?? [] })
            let batch = next.filter { isUntouched($0, since: ChunkAges.hour(now)) }
            let answers = ChunkTouches.run(batch, target.store, .background)
            var done: [Int] = []
            for (chunk, answer) in zip(batch, answers) {
                if case .success(true) = answer { done += places[chunk] ?? [] }
            }
            try ages?.touch(done, hour: ChunkAges.hour(now))
            for (chunk, answer) in zip(batch, answers) {
                switch answer {
                case .success(true): continue
                case .success(false):
                    queue = []
                    return .missing(chunk)
                case .failure(let error):
                    queue = []
                    return .failed("\(error)")
                }
            }
            queue.removeLast(next.count)
            if queue.isEmpty { restUntil = .min }
            return .more(touched: batch.count)
        } catch {
            queue = []
            return .failed("\(error)")
        }
    }

    private mutating func rest(_ now: Int64, _ seconds: Double, touched: Int) -> Outcome {
        restSince = now
        restUntil = now + Int64(seconds)
        list = []
        ages = nil
        stamp = nil
        places = [:]
        return .idle(seconds, touched: touched)
    }

    /// Fills the queue. Answers for how many seconds there is nothing to do; nil: there is.
    private mutating func look(_ now: Int64) throws(SystemError) -> Double? {
        let known = ChunkAges(database, target.identifier, list: list)
        if !known.isWritten { try ChunkAges.write(database, target.identifier, list: list, hours: known.hours) }
        ages = known
        queue = []
        let hour = ChunkAges.hour(now)
        // How many hours are left for how many chunks.
        var left = [Int](repeating: 0, count: list.count)
        var histogram = [Int](repeating: 0, count: maximum + 1)
        for (i, chunk) in list.enumerated() {
            guard chunk != Chunk.zeroFingerprint else {
                left[i] = .max
                continue
            }
            left[i] = ChunkAges.age(known.hours[i], at: hour).map { max(0, Self.due(options, hash: chunk.secondary) - $0) } ?? 0
            histogram[min(left[i], maximum)] += 1
        }
        // What has to begin now, so that nothing is late.
        var horizon = 0
        var waiting = 0
        for hours in histogram.indices {
            waiting += histogram[hours]
            if hours > 0 && Double(waiting) > Double(hours) * 3600 * options.touchesPerSecond { horizon = hours }
        }
        let urgent = left.indices.filter { left[$0] <= horizon }
        guard !urgent.isEmpty else {
            // What has to begin early is seen in time if the list is looked at each hour.
            return Double(3600 - now % 3600)
        }
        places = [:]
        for index in urgent.sorted(by: { left[$0] < left[$1] }) {
            if places[list[index]] != nil { continue }
            if queue.count >= Self.queueLimit { break }
            places[list[index]] = []
            queue.append(list[index])
        }
        for (i, chunk) in list.enumerated() where places[chunk] != nil { places[chunk]?.append(i) }
        queue.reverse()
        return nil
    }
}
