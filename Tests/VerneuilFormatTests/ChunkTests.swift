import Testing
import VerneuilFormat

/// How a file is cut (FORMAT 2).
@Suite struct ChunkTests {
    @Test(
        arguments: [
            (0, 0, 0), (1, 1, 1), (512, 1, 512), (65_535, 1, 65_535), (65_536, 1, 65_536), (65_537, 2, 1),
            (131_072, 2, 65_536), (6 << 30, 98_304, 65_536), ((1 << 40) + 3, (1 << 24) + 1, 3),
        ] as [(UInt64, Int, Int)])
    func aFileIsCutEvery64KiB(length: UInt64, count: Int, last: Int) {
        #expect(Chunk.count(forLength: length) == count)
        #expect(Chunk.length(ofChunk: count - 1, databaseLength: length) == last)
        #expect(Chunk.length(ofChunk: count, databaseLength: length) == 0)
        #expect(Chunk.length(ofChunk: -1, databaseLength: length) == 0)
        if count > 1 { #expect(Chunk.length(ofChunk: count - 2, databaseLength: length) == Chunk.size) }
    }

    @Test func noLengthIsTooLargeToCut() {
        let count = Chunk.count(forLength: .max)
        #expect(count == 1 << 48)
        #expect(Chunk.length(ofChunk: count - 1, databaseLength: .max) == 65_535)
    }
}
