import FormatTestSupport
import Foundation
import ReplicaTestSupport
import Testing
import VerneuilFormat
import VerneuilReplica
import VerneuilSystem

@Suite struct CacheFillerTests {
    /// A disk that takes nothing until it is told to.
    private final class Disk: @unchecked Sendable {
        private let lock = Lock()
        private var written: [UInt8] = []
        private var isStuck = true
        private var begun = false

        func write(_ bytes: [UInt8]) {
            lock.withLock {
                begun = true
                lock.broadcast()
                // For ever, but for a test that fails.
                let patience = MonotonicTime.now.advanced(seconds: 60)
                while isStuck, MonotonicTime.now < patience { lock.wait(until: patience) }
                #expect(!isStuck, "whoever adds a chunk waits for the disk")
                written.append(bytes[0])
            }
        }
        func waitForWriter() { lock.withLock { while !begun { lock.wait() } } }
        func recover() {
            lock.withLock {
                isStuck = false
                lock.broadcast()
            }
        }
        var all: [UInt8] { lock.withLock { written } }
    }

    private func chunk(_ i: UInt8, length: Int = 100) -> (name: Fingerprint, bytes: [UInt8]) {
        let bytes = [UInt8](repeating: i, count: length)
        return (FingerprintKey.chunk.fingerprint(bytes), bytes)
    }

    @Test func nobodyWaitsForTheDiskAndWhatDoesNotFitIsLeftOut() {
        let disk = Disk()
        let filler = CacheFiller(limit: 1000) { disk.write($1) }
        let (name, bytes) = chunk(0)
        filler.add(name, bytes)
        disk.waitForWriter()
        for i: UInt8 in 1..<100 { filler.add(chunk(i).name, chunk(i).bytes) }
        #expect(disk.all.isEmpty)
        filler.finish(within: 0.1)
        #expect(disk.all.isEmpty)
        disk.recover()
        filler.finish(within: 60)
        // The one that was being written counts.
        #expect(disk.all == Array(0..<10))
        // Alone, one may be of any length; and what comes later finds room again.
        for i: UInt8 in 100..<103 {
            filler.add(chunk(i).name, chunk(i, length: 5000).bytes)
            filler.finish(within: 60)
        }
        #expect(disk.all == Array(0..<10) + [100, 101, 102])
    }

    @Test func chunksGetIntoTheCache() throws {
        let scratch = try Scratch()
        let cache = CacheDirectory(local: scratch.file("cache"), shards: 4, capacity: 100)
        let filler = CacheFiller(cache)
        for i: UInt8 in 0..<50 { filler.add(chunk(i).name, chunk(i).bytes) }
        filler.finish(within: 60)
        for i: UInt8 in 0..<50 { #expect(cache.read(chunk(i).name, length: 100) == chunk(i).bytes) }
    }
}
