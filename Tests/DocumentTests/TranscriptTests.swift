import ProductSupport
import Testing

/// Documents show terminals; what they show is what happens.
@Suite struct TranscriptTests {
    @Test func theTourInTheReadmePrintsWhatItSays() throws {
        let tour = try Transcript("README.md", section: "A tour of two minutes")
        #expect(try Transcript("README.md").steps.count == tour.steps.count, "the tour has all of README's terminals")
        #expect(tour.steps.count >= 6)
        let differences = try tour.differences(in: Workspace())
        #expect(differences == [])
    }

    /// Each scenario by itself, after what all of them begin with.
    @Test(arguments: try Document("docs/RECOVERY.md").sections.filter { $0 != "The example" && $0 != "Drills" })
    func recovery(scenario: String) throws {
        let steps = try Transcript("docs/RECOVERY.md", section: scenario)
        #expect(steps.steps.count >= 2)
        let start = try Transcript("docs/RECOVERY.md", section: "The example")
        let differences = try (start + steps).differences(in: Workspace())
        #expect(differences == [])
    }

    /// The two above have their own order of things.
    @Test(arguments: try Document.with("console").filter { $0 != "README.md" && $0 != "docs/RECOVERY.md" })
    func commandsOf(document: String) throws {
        let steps = try Transcript(document)
        #expect(!steps.steps.isEmpty)
        let differences = try steps.differences(in: Workspace())
        #expect(differences == [])
    }

    @Test func aTranscriptThatIsWrongIsFound() throws {
        var transcript = try Transcript("README.md", section: "A tour of two minutes")
        transcript.steps = [
            .init(command: "echo one", expected: "o…e\n", line: 1), .init(command: "echo one", expected: "two\n", line: 2),
            .init(command: "exit", expected: "", line: 3), .init(command: "true", expected: "", line: 4),
        ]
        let differences = try transcript.differences(in: Workspace())
        #expect(differences.count == 2 && differences[0].contains("line 2") && differences[1].contains("line 3"), "\(differences)")
    }
}
