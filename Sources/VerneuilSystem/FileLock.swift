import CVerneuil

/// A lock on all of a file, which lasts as long as this value.
///
/// It is an open file description lock (fcntl(2)): other processes and other threads that open the file are kept out alike,
/// and the process's death gives it back. A child that was forked meanwhile has no part in it, however long it lives (vrn_held.c).
///
///     guard let lock = try FileLock(Descriptor(path, O_RDWR | O_CREAT)) else { return .busy }
public struct FileLock: ~Copyable, Sendable {
    public let file: Descriptor
    // Used by whoever owns this value alone.
    private nonisolated(unsafe) let held: OpaquePointer

    /// nil where another has it. Doesn't wait.
    public init?(_ file: consuming Descriptor) throws(SystemError) {
        guard let held = vrn_held_list(file.fd) else { throw SystemError("lock", file.path, ENOMEM) }
        let result = vrn_ofd_lock(file.fd, Int16(F_WRLCK), 0, 0)
        if result < 0 {
            vrn_held_unlist(held)
            if result == -EAGAIN { return nil }
            throw SystemError("lock", file.path, -result)
        }
        self.file = file
        self.held = held
    }

    // In so many words: a child that was made by other means than fork(2) may have a descriptor.
    deinit {
        _ = vrn_ofd_lock(file.fd, Int16(F_UNLCK), 0, 0)
        vrn_held_unlist(held)
    }
}
