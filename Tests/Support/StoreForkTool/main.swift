// Uses a store in a parent, then in children forked from it while it is busy:
//
//     store-fork-tool ENDPOINT KEY SECRET BUCKET CHILDREN OBJECTS
//
// The parent uploads, forks CHILDREN times, and uploads on meanwhile. Each
// child uploads OBJECTS objects of its own and reads them back, then ends
// without exit handlers. Exit status 0: all of them succeeded.

import CForkSupport
import VerneuilS3
import VerneuilStore
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

func upload(_ store: S3Store, _ name: String, _ count: Int) throws(StoreError) {
    for i in 0..<count {
        let body = [UInt8](repeating: UInt8(truncatingIfNeeded: i), count: 65_536)
        try store.put(PutRequest(.chunks, "\(name)-\(i)", body, urgency: .interactive))
        guard case .found(let found, _) = try store.get(GetRequest(.chunks, "\(name)-\(i)", limit: 1 << 20)),
            found == body
        else {
            print("\(name)-\(i) came back changed")
            exit(1)
        }
    }
}

func run() throws -> Int32 {
    let arguments = CommandLine.arguments
    guard arguments.count == 7, let children = Int(arguments[5]), let objects = Int(arguments[6]) else { return 2 }
    let configuration = S3Configuration(
        region: "us-east-1", endpoint: arguments[1], chunkBucket: arguments[4], manifestBucket: arguments[4],
        domainAddressing: false, createBucketsOnDemand: true)
    let store = try S3Store(
        configuration, credentials: StaticCredentials(accessKeyID: arguments[2], secretAccessKey: arguments[3]))
    try store.prepare()
    try upload(store, "parent-before", 2)

    // Busy while it forks: children are born with requests in flight.
    let lock = Lock()
    nonisolated(unsafe) var unfinished = 0
    nonisolated(unsafe) var failures = 0
    var pids: [Int32] = []
    for child in 0..<children {
        lock.withLock { unfinished += 1 }
        store.put(PutRequest(.chunks, "parent-\(child)", [UInt8](repeating: 7, count: 65_536), urgency: .interactive)) {
            result in
            lock.withLock {
                if case .failure(let error) = result {
                    print("parent: \(error)")
                    failures += 1
                }
                unfinished -= 1
                lock.signal()
            }
        }
        let pid = vrn_test_fork()
        if pid == 0 {
            do throws(StoreError) { try upload(store, "child-\(child)", objects) } catch {
                print("child \(child): \(error)")
                _exit(1)
            }
            _exit(store.counters.puts == objects ? 0 : 3)
        }
        if pid < 0 { return 4 }
        pids.append(pid)
    }
    for pid in pids {
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        if status != 0 {
            print("child \(pid): status \(status)")
            failures += 1
        }
    }
    lock.withLock { while unfinished > 0 { lock.wait() } }
    try upload(store, "parent-after", 2)
    return failures == 0 ? 0 : 1
}

do {
    exit(try run())
} catch {
    print(error)
    exit(1)
}
