import CommitCounters
import Glibc

// commit-counter EXTENSION DIRECTORY MEBIBYTES...
// What a single-row commit costs with SQLite's unix VFS and with replication, in counters; a line for each size.
if let status = CommitCounters.runIfChild(CommandLine.arguments) { exit(status) }
let sizes = CommandLine.arguments.dropFirst(3).compactMap { Int($0) }
guard sizes.count == CommandLine.arguments.count - 3, !sizes.isEmpty else {
    print("usage: commit-counter EXTENSION DIRECTORY MEBIBYTES...")
    exit(2)
}
do {
    for size in sizes {
        for vfs in ["unix", "verneuil"] {
            let counters = try CommitCounters.measure(
                ext: CommandLine.arguments[1], vfs: vfs, directory: CommandLine.arguments[2], mebibytes: size)
            print(
                "\(vfs) mebibytes=\(size) calls=\(counters.systemCalls) syncs=\(counters.syncs) read=\(counters.bytesRead) written=\(counters.bytesWritten) hashed=\(counters.bytesHashed) allocations=\(counters.allocations)"
            )
        }
    }
} catch {
    print("commit-counter: \(error)")
    exit(1)
}
