import TestServers
import Testing
import VerneuilS3
import VerneuilStore
import VerneuilSystem

/// Conditions on PUT: kept where the store keeps them, and known where not.
@Suite struct ConditionalPutTests {
    static let strict = S3Server.underTest([.ceph, .ministack]).filter(\.keepsConditions)

    @Test(arguments: strict) func conditionsHold(kind: S3Server.Kind) throws {
        let store = try Stores(.shared(kind)).make()
        try store.prepare()
        // Twice each: what is found out the first time must serve the second.
        for key in ["a", "b"] {
            let first = try store.put(PutRequest(.manifests, key, [1], condition: .ifAbsent))
            let again = failure { () throws(StoreError) in
                try store.put(PutRequest(.manifests, key, [2], condition: .ifAbsent))
            }
            #expect(again?.kind == .conditionFailed)
            let second = try store.put(PutRequest(.manifests, key, [3], condition: .ifTag(first)))
            let stale = failure { () throws(StoreError) in
                try store.put(PutRequest(.manifests, key, [4], condition: .ifTag(first)))
            }
            #expect(stale?.kind == .conditionFailed)
            let third = try store.put(PutRequest(.manifests, key, [5], condition: .ifTag(second)))
            #expect(third != second)
            #expect(try store.body(.manifests, key) == [5])
            let missing = failure { () throws(StoreError) in
                try store.put(PutRequest(.manifests, "\(key)-missing", [4], condition: .ifTag(first)))
            }
            #expect(missing?.kind == .conditionFailed)
            #expect(try store.body(.manifests, "\(key)-missing") == nil)
        }
        let known = store.status.conditionalWrites
        #expect(known.ifAbsent == true && known.ifTag == true)
        #expect(known.bareTags == (kind == .ceph))
    }

    /// The first conditional PUT of a process finds the condition broken: nothing may be stored while finding out.
    @Test(arguments: S3Server.underTest([.ceph, .ministack, .rclone]))
    func aBrokenConditionIsSeenBeforeAnythingIsKnown(kind: S3Server.Kind) throws {
        let stores = try Stores(.shared(kind))
        try stores.make().put(PutRequest(.manifests, "k", [1]))
        for condition in [PutCondition.ifAbsent, .ifTag("0123456789abcdef0123456789abcdef")] {
            let error = failure { () throws(StoreError) in
                try stores.make().put(PutRequest(.manifests, "k", [2], condition: condition))
            }
            #expect(error?.kind == .conditionFailed)
        }
        #expect(try stores.make().body(.manifests, "k") == [1])
    }

    @Test func aStoreThatIgnoresConditionsIsFoundOut() throws {
        let store = try Stores(.rclone()).make()
        try store.prepare()
        let absent = failure { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "k", [1], condition: .ifAbsent))
        }
        #expect(absent?.kind == .conditionUnsupported)
        let tag = try store.put(PutRequest(.manifests, "k", [2]))
        let tagged = failure { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "k", [3], condition: .ifTag(tag)))
        }
        #expect(tagged?.kind == .conditionUnsupported)
        #expect(store.status.conditionalWrites.ifAbsent == false)
        #expect(store.status.conditionalWrites.ifTag == false)
        // Known now: no request is made.
        let requests = store.counters.requests
        for condition in [PutCondition.ifAbsent, .ifTag(tag)] {
            let error = failure { () throws(StoreError) in
                try store.put(PutRequest(.manifests, "other", [3], condition: condition))
            }
            #expect(error?.kind == .conditionUnsupported)
        }
        #expect(store.counters.requests == requests)
    }

    @Test(arguments: strict) func ofManyWritersOneWins(kind: S3Server.Kind) throws {
        let stores = try Stores(.shared(kind))
        let setup = try stores.make()
        try setup.prepare()
        for round in 0..<10 {
            let condition: PutCondition
            switch try setup.get(GetRequest(.manifests, "k", limit: 10)) {
            case .found(_, let tag): condition = .ifTag(tag)
            default: condition = .ifAbsent
            }
            let lock = Lock()
            nonisolated(unsafe) var outcomes: [Result<String, StoreError>] = []
            for writer in 0..<6 {
                // Stores of their own, as processes have: each finds out by itself.
                let store = try stores.make()
                store.put(
                    PutRequest(
                        .manifests, "k", [UInt8(round), UInt8(writer)], condition: condition, urgency: .interactive)
                ) { result in
                    lock.withLock {
                        _ = store
                        outcomes.append(result)
                        lock.signal()
                    }
                }
            }
            lock.withLock { while outcomes.count < 6 { lock.wait() } }
            var winners: [String] = []
            for outcome in outcomes {
                switch outcome {
                case .success(let tag): winners.append(tag)
                case .failure(let error): #expect(error.kind == .conditionFailed, "\(error)")
                }
            }
            #expect(winners.count == 1, "\(outcomes)")
        }
    }

    /// The PUT arrived, its answer did not: the retry is refused by what the first try stored.
    @Test func aLostAnswerIsNotMistakenForAnotherWriter() throws {
        let proxy = try FaultProxy(to: .ceph())
        let store = try Stores(endpoint: proxy.endpoint).make()
        try store.prepare()
        try store.put(PutRequest(.manifests, "warm", [1], condition: .ifAbsent))
        try proxy.set([FaultProxy.Rule("lost_response", match: "PUT .*/k$", times: 1)])
        let tag = try store.put(PutRequest(.manifests, "k", [1, 2, 3], condition: .ifAbsent))
        #expect(store.counters.staleConnections == 1)
        guard case .found([1, 2, 3], tag) = try store.get(GetRequest(.manifests, "k", limit: 10)) else {
            Issue.record("another object")
            return
        }
        try store.put(PutRequest(.manifests, "warm", [2], condition: .ifTag(try tagOf("warm", in: store))))
        try proxy.set([FaultProxy.Rule("lost_response", match: "PUT .*/k$", times: 1)])
        _ = try store.put(PutRequest(.manifests, "k", [4, 5], condition: .ifTag(tag)))
        #expect(try store.body(.manifests, "k") == [4, 5])
    }

    private func tagOf(_ key: String, in store: S3Store) throws -> String {
        guard case .found(_, let tag) = try store.get(GetRequest(.manifests, key, limit: 1 << 20)) else { return "" }
        return tag
    }

    /// The same, but another writer was there in between.
    @Test func anotherWriterAfterALostAnswerIsSeen() throws {
        let proxy = try FaultProxy(to: .ceph())
        let stores = Stores(endpoint: proxy.endpoint)
        let store = try stores.make()
        try store.prepare()
        try store.put(PutRequest(.manifests, "warm", [1], condition: .ifAbsent))
        try store.put(PutRequest(.manifests, "k", [9]))
        try proxy.set([FaultProxy.Rule("reset_request", match: "PUT .*/k$", times: 1)])
        let error = failure { () throws(StoreError) in
            try store.put(PutRequest(.manifests, "k", randomBytes(10_000), condition: .ifAbsent))
        }
        #expect(error?.kind == .conditionFailed)
        #expect(try store.body(.manifests, "k") == [9])
    }
}
