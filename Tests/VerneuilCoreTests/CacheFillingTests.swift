import Foundation
import ProductSupport
import Testing
import VerneuilCore
import VerneuilFormat
import VerneuilReplication
import VerneuilSystem

/// What replication uploads gets into the caches, without the thread of the network, which tells of it.
@Suite struct CacheFillingTests {
    /// Names of this process's threads.
    private func threads() throws -> [String] {
        try Files.list("/proc/self/task").compactMap { try Files.read("/proc/self/task/\($0)/comm") }
            .map { String(decoding: $0, as: UTF8.self).trimmingCharacters(in: .newlines) }
    }

    @Test func anUploadedChunkIsCachedByAThreadOfItsOwn() throws {
        let here = try Workspace()
        var configuration = Configuration()
        try configuration.setSpoolingDirectory(here.file("spool"))
        configuration.targets = [.directory(.init(path: here.file("store"))), .local(.init(directory: here.file("cache")))]
        let engine = try Engine(configuration)
        let publish = try #require(engine.replicator?.didStoreChunk)
        let deadline = MonotonicTime.now.advanced(seconds: 60)
        var (i, wasSeen) = (0, false)
        repeat {
            let bytes = Array("chunk \(i)".utf8)
            publish(FingerprintKey.chunk.fingerprint(bytes), bytes)
            wasSeen = try threads().contains("verneuil-cache")
            i += 1
        } while !wasSeen && MonotonicTime.now < deadline
        #expect(wasSeen)
        engine.finishCaches()
        while here.files("cache").count < i, MonotonicTime.now < deadline { usleep(10_000) }
        #expect(here.files("cache").filter { !$0.contains(".tmp.") }.count == i)
    }
}
