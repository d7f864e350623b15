import Foundation
import Testing

/// Random applications, watched by an oracle, and processes that are killed. The program prints
/// its seed and its figures; where it fails, it says what differs. Longer runs by hand: `verneuil-stress`.
@Suite(.serialized) struct StressTests {
    static let program = "\(Products.directory)/verneuil-stress"

    @Test(.timeLimit(.minutes(5)))
    func databaseStagedUploadedAndReplicaAreTheSameAfterRandomTransactions() throws {
        let commits = isQuick ? 1000 : 10_000
        let seed = UInt32.random(in: 1...UInt32.max)
        let result = try Products.shell(
            "'\(Self.program)' oracle --seed \(seed) --commits \(commits) --databases 5 --processes 2", seconds: 240)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("oracle ok"), "seed \(seed): \(result)")
    }

    /// Runs the program to its end; it must say that all is well.
    private func stress(_ command: String, _ options: String) throws {
        let seed = UInt32.random(in: 1...UInt32.max)
        let result = try Products.shell("'\(Self.program)' \(command) --seed \(seed) \(options)", seconds: 240)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("\(command) ok"), "seed \(seed): \(result)")
    }

    @Test(.timeLimit(.minutes(5)))
    func foreignWritersAreNoticedAndNothingIsEverMixed() throws {
        try stress("foreign", "--steps \(isQuick ? 20 : 120)")
    }

    @Test(.timeLimit(.minutes(5)))
    func killedWritersAndCopiersLeaveCommittedStatesThatNeverGoBack() throws {
        let kills = isQuick ? 30 : 300
        let seed = UInt32.random(in: 1...UInt32.max)
        let result = try Products.shell("'\(Self.program)' kill --seed \(seed) --kills \(kills)", seconds: 240)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("kill ok"), "seed \(seed): \(result)")
    }

    // P4, S1, S2
    @Test(.timeLimit(.minutes(3)))
    func aStoreThatIsNoUseCostsNeitherDiskNorMemoryNorTime() throws {
        let seed = UInt32.random(in: 1...UInt32.max)
        let result = try Products.shell(
            "'\(Self.program)' bounds --seed \(seed) --seconds \(isQuick ? 4 : 12)", seconds: 120)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("bounds ok"), "seed \(seed): \(result)")
    }

    // R6, S6
    @Test(.timeLimit(.minutes(5)), arguments: isQuick ? [1] : [1, 1024])
    func theFirstCommitDoesNotStallAndTheSnapshotIsFinishedUnderCommits(mebibytes: Int) throws {
        let result = try Products.shell(
            "'\(Self.program)' stall --mebibytes \(mebibytes) --real 32", seconds: 240)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("stall ok"), "\(result)")
    }
}
