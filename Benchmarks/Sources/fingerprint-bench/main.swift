// Fingerprints per second on one core, accelerated and portable:
//   swift run -c release --package-path Benchmarks fingerprint-bench
// CPU time of this thread, best of some rounds, so that a busy machine shows
// the same numbers as an idle one.

import Foundation
import VerneuilFormat

func cpuSeconds() -> Double {
    var t = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)
    return Double(t.tv_sec) + Double(t.tv_nsec) / 1e9
}

func padded(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
}

/// - Parameter bytes: to fingerprint in each round.
func measure(_ name: String, size: Int, bytes: Int, _ hash: (UnsafeRawBufferPointer) -> Fingerprint) {
    var input = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) }
    let calls = max(1, bytes / max(1, size))
    var best = Double.infinity
    var check: UInt64 = 0
    for round in 0..<7 {
        input[size / 2] = UInt8(round)
        let start = cpuSeconds()
        input.withUnsafeBytes { buffer in
            for _ in 0..<calls { check ^= hash(buffer).secondary }
        }
        best = min(best, cpuSeconds() - start)
    }
    let rate = Double(size * calls) / best
    print(
        padded(name, 12), padded("\(size)", 8),
        padded(String(format: "%.2f", rate / 1e9), 8), padded(String(format: "%.1f", best / Double(calls) * 1e9), 12),
        check == 0 ? "" : " ")
}

let key = FingerprintKey.chunk
print(key.isAccelerated ? "carry-less multiply: yes" : "carry-less multiply: not on this CPU")
print(padded("path", 12), padded("bytes", 8), padded("GB/s", 8), padded("ns/call", 12))
for size in [8, 16, 100, 256, 4096, 65_536, 1 << 20] {
    measure("fingerprint", size: size, bytes: size < 256 ? 16 << 20 : 512 << 20) { key.fingerprint($0) }
}
for size in [100, 4096, 65_536] {
    measure("portable", size: size, bytes: 16 << 20) { key.portableFingerprint($0) }
}
