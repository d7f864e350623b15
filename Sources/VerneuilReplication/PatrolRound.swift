import Logging
import VerneuilFormat
import VerneuilSpool

/// What a target's copier does where there is nothing to upload: it sees that what is stored stays alive, first the
/// manifest, then some of the chunks that are due. Used under the copier's lock.
final class PatrolRound {
    enum Outcome {
        /// Come again after so many seconds.
        case again(Double)
        /// Another machine has the manifest: nothing here is ours to see to.
        case fenced
        case lostChunk(Fingerprint)
        case lostManifest(String)
    }

    private let database: SpoolDatabase
    private let target: ReplicationTarget
    private let options: ReplicationOptions
    private let fence: ManifestFence
    private let metrics: TargetMetrics
    private let logger: Logger
    private let mark: WriterMark
    private var patrol: Patrol

    init(
        _ database: SpoolDatabase, _ target: ReplicationTarget, _ options: ReplicationOptions, _ fence: ManifestFence,
        _ metrics: TargetMetrics, _ logger: Logger
    ) {
        self.database = database
        self.target = target
        self.options = options
        self.fence = fence
        self.metrics = metrics
        self.logger = logger
        mark = WriterMark(options.identity, device: database.device, inode: database.inode)
        patrol = Patrol(database, target, options)
    }

    func run() -> Outcome {
        do {
            switch try fence.keepAlive(mark) {
            case .touched: metrics.touches.increment()
            case .young: break
            }
        } catch let error as ManifestFence.Vanished {
            return .lostManifest("\(error)")
        } catch is ManifestFence.Fenced {
            return .fenced
        } catch {
            return failed("\(error)")
        }
        if !fence.lineage.fencedBy.isEmpty { return .fenced }
        switch patrol.walk() {
        case .idle(let seconds, let touched):
            metrics.touches.increment(by: touched)
            return .again(max(1, min(seconds, 3600)))
        case .more(let touched):
            metrics.touches.increment(by: touched)
            return .again(options.passInterval)
        case .failed(let reason): return failed(reason)
        case .missing(let chunk): return .lostChunk(chunk)
        }
    }

    private func failed(_ reason: String) -> Outcome {
        metrics.failures.increment()
        logger.warning(
            "what is stored could not be touched; it will be tried again",
            metadata: ["database": "\(database.path)", "store": "\(target.store.name)", "reason": "\(reason)"])
        return .again(60)
    }
}
