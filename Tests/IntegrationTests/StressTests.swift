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

    @Test(.timeLimit(.minutes(5)))
    func killedWritersAndCopiersLeaveCommittedStatesThatNeverGoBack() throws {
        let kills = isQuick ? 30 : 300
        let seed = UInt32.random(in: 1...UInt32.max)
        let result = try Products.shell("'\(Self.program)' kill --seed \(seed) --kills \(kills)", seconds: 240)
        print(result.output)
        #expect(result.status == 0 && result.output.contains("kill ok"), "seed \(seed): \(result)")
    }
}
