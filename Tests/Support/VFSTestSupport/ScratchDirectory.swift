import CVerneuil
import VerneuilSystem

/// A directory of a test's own, removed with its last reference. In memory where that can be had: these tests are
/// about calls, not about disks.
public final class ScratchDirectory: Sendable {
    public let path: String

    public init(_ label: String = "vfs") throws {
        let base = vrn_access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        path = try Files.canonical(base).map { "\($0)/verneuil-\(label)-\(getpid())-\(UInt32.random(in: 0 ... .max))" }
            ?? { throw SystemError("realpath", base, ENOENT) }()
        try Files.makeDirectories(path, mode: 0o755)
    }

    deinit { try? Files.removeTree(path) }

    public func file(_ name: String) -> String { "\(path)/\(name)" }
}

/// What this process has open, by descriptor: what it refers to.
public func openDescriptors(under prefix: String) -> [Int32: String] {
    var found: [Int32: String] = [:]
    for name in (try? Files.list("/proc/self/fd")) ?? [] {
        guard let fd = Int32(name) else { continue }
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(PATH_MAX)) { buffer in
            let count = readlink("/proc/self/fd/\(name)", buffer.baseAddress!, buffer.count)
            guard count > 0 else { return }
            let target = String(decoding: UnsafeRawBufferPointer(buffer)[..<count], as: UTF8.self)
            if target.hasPrefix(prefix) { found[fd] = target }
        }
    }
    return found
}
