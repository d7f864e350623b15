import Foundation
import Testing

/// Runs `verneuil-stress` to its end, at most `seconds`; it must say that all is well. Where it doesn't, what it said is the failure.
/// It prints its seed and its figures.
private func stress(_ command: String, _ options: String = "", within seconds: Int) throws {
    let seed = UInt32.random(in: 1...UInt32.max)
    let result = try Products.shell("'\(Products.directory)/verneuil-stress' \(command) --seed \(seed) \(options)", seconds: seconds)
    print(result.output)
    let isTimeOut = result.status == 124
    #expect(
        result.status == 0 && result.output.contains("\(command) ok"),
        "\(command), seed \(seed)\(isTimeOut ? ", not done in \(seconds) s" : ""): \(result.output)\(result.errors)")
}

/// What costs time to look at: alone, beside nothing but what yields to it.
@Suite(.serialized) struct StressTimeTests {
    // P4, S1, S2
    @Test(.timeLimit(.minutes(3)))
    func aStoreThatIsNoUseCostsNeitherDiskNorMemoryNorTime() throws {
        try stress("bounds", "--seconds \(isQuick ? 4 : 12)", within: 120)
    }

    // R6, S6
    @Test(.timeLimit(.minutes(5)), arguments: isQuick ? [1] : [1, 1024])
    func theFirstCommitDoesNotStallAndTheSnapshotIsFinishedUnderCommits(mebibytes: Int) throws {
        try stress("stall", "--mebibytes \(mebibytes) --real 32", within: 240)
    }
}

/// Random applications, watched by an oracle, and processes that are killed; no time is measured. `scripts/test` runs these in a
/// process of their own, beside the others. Longer runs by hand: `verneuil-stress`.
@Suite(.serialized) struct StressTests {
    @Test(.timeLimit(.minutes(5)))
    func databaseStagedUploadedAndReplicaAreTheSameAfterRandomTransactions() throws {
        try stress("oracle", "--commits \(isQuick ? 1000 : 10_000) --databases 5 --processes 2", within: 240)
    }

    @Test(.timeLimit(.minutes(5)))
    func foreignWritersAreNoticedAndNothingIsEverMixed() throws {
        try stress("foreign", "--steps \(isQuick ? 20 : 120)", within: 240)
    }

    @Test(.timeLimit(.minutes(5)))
    func killedWritersAndCopiersLeaveCommittedStatesThatNeverGoBack() throws {
        try stress("kill", "--kills \(isQuick ? 30 : 300) --copiers 2", within: 240)
    }

    // R1 to R10: three deaths of each scenario, chosen at random; all of them by hand.
    @Test(.timeLimit(.minutes(5)))
    func aProcessThatDiesBeforeAnyFileOperationLeavesNothingThatPassesForWhole() throws {
        try stress("crash", "--deaths \(isQuick ? 1 : 3)", within: 240)
    }

    // Each form of failure at calls chosen at random; all of them by hand.
    @Test(.timeLimit(.minutes(5)))
    func failingCallsOfReplicationAreNotSeenByTheApplicationAndDoNotLast() throws {
        try stress("faults", "--calls \(isQuick ? 4 : 18) --one-error", within: 240)
    }

    // P3, P5
    @Test(.timeLimit(.minutes(5)), arguments: isQuick ? [1] : [1, 40])
    func eightProcessesUploadNoMoreThanOneAndNeverGoBack(databases: Int) throws {
        try stress("many", "--processes 8 --databases \(databases) --seconds 4", within: 240)
    }
}
