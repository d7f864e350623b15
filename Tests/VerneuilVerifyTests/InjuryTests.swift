import CVerneuil
import FormatTestSupport
import ReplicaTestSupport
import Testing
import VerneuilStore
import VerneuilSystem
import VerneuilVerify

/// Does harm to a store in 10,000 ways, each of its own seed: all of it is found, and none is invented.
@Suite struct InjuryTests {
    static let seeds: UInt64 = 10_000

    @Test(arguments: [(true, false), (true, true), (false, false), (false, true)])
    func everyInjuryIsFoundAndNoneIsInvented(bundles: Bool, hasBase: Bool) throws {
        let layout = InjuredStore.Layout(bundles: bundles, hasBase: hasBase)
        let injured = try InjuredStore(layout, seed: bundles ? 1 : 2)
        let verifier = Verifier(injured.store)
        let scratch = Files.temporaryName(beside: "/tmp/verneuil-injury")
        try Files.writeAtomically(injured.database, to: scratch)
        defer { try? Files.remove(scratch) }
        let newest = injured.manifest
        let name = InjuredStore.name

        var counts: [String: (harm: Int, harmless: Int)] = [:]
        let first: UInt64 = (bundles ? 0 : 1) + (hasBase ? 0 : 2)
        for seed in stride(from: first, to: Self.seeds, by: 4) {
            var random = SeededGenerator(seed: seed)
            let injury = try #require(InjuredStore.Injury.allCases.randomElement(using: &random))
            let done = try injured.injure(injury, &random)
            var options = VerificationOptions()
            options.deep = true
            if done.needsReference {
                // Good in itself: who doesn't know better, must say so.
                let alone = verifier.verify(name: name, options: options)
                #expect(alone.outcome == .good, "seed \(seed), \(injury): invented \(alone.findings)")
                options.against = scratch
            }
            let deep = verifier.verify(name: name, options: options)
            let keys = done.objects.map(\.key)
            if done.isHarm {
                #expect(deep.outcome == .bad, "seed \(seed), \(injury) of \(keys): not found")
                let isNamed = deep.findings.contains { finding in
                    keys.contains { finding.object.contains($0) || $0 == name }
                }
                #expect(isNamed, "seed \(seed), \(injury) of \(keys): \(deep.findings)")
                #expect(deep.findings.allSatisfy { !$0.expected.isEmpty && !$0.found.isEmpty })
            } else {
                #expect(deep.outcome == .good, "seed \(seed), \(injury) of \(keys): invented \(deep.findings)")
                let shallow = verifier.verify(name: name)
                #expect(shallow.outcome == .good, "seed \(seed), \(injury) of \(keys), by list: invented \(shallow.findings)")
            }
            if injury == .missing || injury == .emptied {
                #expect(verifier.verify(name: name).outcome == .bad, "seed \(seed), \(injury) of \(keys): not found by list")
            }
            if injury == .staleManifest {
                var options = VerificationOptions()
                options.lastUploaded = { $0 == name ? newest : nil }
                // What is older than what this machine uploaded waits a moment for a copier; a few times will do.
                if seed % 512 == first { #expect(verifier.verify(name: name, options: options).outcome == .bad) }
            }
            counts["\(injury)", default: (0, 0)].harm += done.isHarm ? 1 : 0
            counts["\(injury)", default: (0, 0)].harmless += done.isHarm ? 0 : 1
            try injured.heal(done)
            if seed % 400 == first {
                #expect(verifier.verify(name: name, options: options).outcome == .good, "seed \(seed): not healed")
            }
        }
        // The test itself: each kind came up, and those that must do harm did.
        for injury in InjuredStore.Injury.allCases {
            let count = try #require(counts["\(injury)"])
            switch injury {
            case .unreferenced, .otherEncoding, .none: #expect(count.harm == 0 && count.harmless > 100, "\(injury) \(count)")
            default: #expect(count.harm > 100, "\(injury) \(count)")
            }
        }
    }
}
