import ArgumentParser

/// What is promised when things go wrong, put to the test with real processes, files and signals.
@main
struct VerneuilStress: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verneuil-stress",
        abstract: "Tries to make replication break its promises. Exits with 0 where it could not, with 1 where it could.",
        subcommands: [
            Oracle.self, Kill.self, Crash.self, FailingCalls.self, Foreign.self, Many.self, Bounds.self, Stall.self,
            OraclePlayer.self, KillWriter.self, KillCopier.self, CrashPlayer.self, FailingCallsPlayer.self, ManyPlayer.self,
            ForeignHand.self, BoundsWriter.self, StallWriter.self, StallReader.self,
        ])
}
