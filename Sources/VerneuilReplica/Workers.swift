import VerneuilSystem

/// A few threads for short jobs: unpacking, verifying and writing chunks.
/// Completion handlers of stores run on the network's threads and must not
/// block; they leave their work here. Threads start on demand and end after
/// some idle seconds. Belongs to the process that made it: a forked child makes
/// its own (`ProcessLocal`).
final class Workers: @unchecked Sendable {
    typealias Job = @Sendable () -> Void

    private let lock = Lock()
    private let limit: Int
    private var urgent = Queue<Job>()
    private var normal = Queue<Job>()
    /// Jobs in both queues.
    private var queued = 0
    private var threads = 0
    private var idle = 0

    init(limit: Int) {
        self.limit = max(1, limit)
    }

    /// Urgent jobs go first: somebody waits for them.
    func submit(urgent isUrgent: Bool, _ job: @escaping Job) {
        lock.lock()
        if isUrgent { urgent.append(job) } else { normal.append(job) }
        queued += 1
        // An idle thread that was woken before, and hasn't run yet, has a job already.
        if idle >= queued {
            lock.signal()
        } else if threads < limit {
            threads += 1
            lock.unlock()
            do throws(SystemError) {
                try Threads.spawn("verneuil-chunk") { self.run() }
                return
            } catch {
                // No thread to be had (a limit on processes): others will do the job, or else this one.
                lock.lock()
                threads -= 1
                let alone = threads == 0
                lock.unlock()
                if alone { drain() }
                return
            }
        }
        lock.unlock()
    }

    private func next() -> Job? {
        guard let job = urgent.popFirst() ?? normal.popFirst() else { return nil }
        queued -= 1
        return job
    }

    private func run() {
        lock.lock()
        while true {
            if let job = next() {
                lock.unlock()
                job()
                lock.lock()
                continue
            }
            idle += 1
            let woken = lock.wait(until: MonotonicTime.now.advanced(seconds: 5))
            idle -= 1
            if !woken, queued == 0 {
                threads -= 1
                lock.unlock()
                return
            }
        }
    }

    private func drain() {
        while let job = lock.withLock({ next() }) { job() }
    }
}

/// First in, first out.
struct Queue<Element> {
    private var elements: [Element?] = []
    private var head = 0

    mutating func append(_ element: Element) { elements.append(element) }

    mutating func popFirst() -> Element? {
        guard head < elements.count else { return nil }
        let element = elements[head].take()
        head += 1
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        } else if head > 1024, head > elements.count / 2 {
            elements.removeFirst(head)
            head = 0
        }
        return element
    }
}
