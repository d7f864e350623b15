import CVerneuil
import VerneuilFormat
import VerneuilSystem

/// A store in a plain directory: `chunks/` and `manifests/` below it, one file
/// per object, named by its key as it is (a `%2F` in a key stays those three
/// characters). The same names and bytes as in S3, so that either can be
/// copied to the other with any tool.
///
/// What it promises, and why:
/// - *Readers see all of an object or none of it.* A body is written to
///   `.tmp.*` in the same directory and then renamed.
/// - *What is stored survives a power failure*, with `sync` (the default): a
///   file is synced before its rename, `chunks/` before a manifest that may
///   name what is in it, and `manifests/` after.
/// - *Conditions hold between processes.* `ifAbsent` publishes with link(2),
///   which fails where the name is taken. `ifTag` compares and renames under an
///   exclusive flock(2) of `.lock`, which unconditional PUTs share; the kernel
///   drops it with its holder. Who can't get it in 5 s answers `.unavailable`.
/// - *A missing disk is not an empty store.* Only `prepare` makes directories;
///   without them, everything else answers `.noSuchSpace`. It makes the store's own only beside something else:
///   an empty directory above it may be a mount point without its disk.
/// - Files get the permissions of their directory (without execution), which
///   `prepare` makes private (0700): chmod `chunks` and `manifests` to share.
///
/// All work is done on the calling thread, before the call returns; nothing is
/// retried, and urgency is ignored. Safe from any thread and after fork(2).
public final class DirectoryStore: ObjectStore {
    /// Absolute path of the directory.
    public let path: String
    private let sync: Bool

    /// Entries that one `list` answers at most. Every page reads the whole directory.
    private static let pageSize = 10_000
    private static let temporaryPrefix = ".tmp."
    /// Age from which a temporary file is a dead writer's, in seconds.
    private static let temporaryLifetime: Int64 = 3600

    /// - Parameters:
    ///   - path: the directory; relative to the working directory of this
    ///     moment. Nothing is looked at or made before the first call.
    ///   - sync: whether objects survive a power failure. Without, a machine
    ///     crash may leave empty or missing objects behind names that were stored.
    public init(path: String, sync: Bool = true) {
        if path.hasPrefix("/") || path.isEmpty {
            self.path = path
        } else if let working = getcwd(nil, 0) {
            self.path = "\(String(cString: working))/\(path)"
            free(working)
        } else {
            self.path = path
        }
        self.sync = sync
    }

    public var name: String { "directory \(path)" }

    // MARK: Operations

    public func get(
        _ request: GetRequest, completion: @escaping @Sendable (Result<GetResult, StoreError>) -> Void
    ) {
        completion(perform("GET", request.space, request.key) { (file) throws(Failure) in
            guard let found = try read(file, limit: request.limit) else {
                try requireDirectory(of: request.space)
                return .missing
            }
            if found.tag == request.unlessTag { return .notModified }
            return .found(body: found.body, tag: found.tag)
        })
    }

    public func put(
        _ request: PutRequest, completion: @escaping @Sendable (Result<String, StoreError>) -> Void
    ) {
        completion(perform("PUT", request.space, request.key) { (file) throws(Failure) in
            let mode = try requireDirectory(of: request.space).mode & 0o666
            if sync && request.space == .manifests {
                try system { () throws(SystemError) in
                    try Files.syncDirectory(of: "\(directory(of: .chunks))/.")
                }
            }
            let temporary = Files.temporaryName(beside: file)
            defer { _ = vrn_unlink(temporary) }  // its name, where it has not been renamed
            try system { () throws(SystemError) in
                let new = try Descriptor(temporary, O_WRONLY | O_CREAT | O_EXCL, mode: mode)
                // Whatever the umask: the directory decides.
                try SystemError.check(vrn_fchmod(new.fd, mode), "fchmod", temporary)
                try new.write(request.body, at: 0)
                if sync { try new.sync() }
                try new.close()
            }
            switch request.condition {
            case .always:
                try withLock(LOCK_SH) { () throws(Failure) in
                    try system { () throws(SystemError) in try Files.rename(temporary, to: file) }
                }
            case .ifAbsent:
                let r = vrn_link(temporary, file)
                if r == -EEXIST { throw .refused(.conditionFailed, "there is such an object already") }
                try system { () throws(SystemError) in try SystemError.check(r, "link", file) }
            case .ifTag(let expected):
                try withLock(LOCK_EX) { () throws(Failure) in
                    let found = try read(file, limit: .max)?.tag
                    guard found == expected else {
                        throw .refused(
                            .conditionFailed, "expected entity tag \(expected), found \(found ?? "no such object")")
                    }
                    try system { () throws(SystemError) in try Files.rename(temporary, to: file) }
                }
            }
            if sync && request.space == .manifests {
                try system { () throws(SystemError) in try Files.syncDirectory(of: file) }
            }
            return Self.tag(request.body)
        })
    }

    public func touch(
        _ space: ObjectSpace, _ key: String, urgency: Urgency,
        completion: @escaping @Sendable (Result<Bool, StoreError>) -> Void
    ) {
        completion(perform("TOUCH", space, key) { (file) throws(Failure) in
            let r = vrn_touch(file)
            if r == -ENOENT {
                try requireDirectory(of: space)
                return false
            }
            try system { () throws(SystemError) in try SystemError.check(r, "utimensat", file) }
            return true
        })
    }

    public func list(
        _ space: ObjectSpace, prefix: String, after: String?, urgency: Urgency,
        completion: @escaping @Sendable (Result<ObjectPage, StoreError>) -> Void
    ) {
        completion(perform("LIST", space, nil) { (directory) throws(Failure) in
            try requireDirectory(of: space)
            var names = try system { () throws(SystemError) in try Files.list(directory) }
            names.removeAll { name in
                name.hasPrefix(Self.temporaryPrefix) || !name.utf8.starts(with: prefix.utf8)
                    || after.map { !$0.utf8.lexicographicallyPrecedes(name.utf8) } ?? false
            }
            names.sort { $0.utf8.lexicographicallyPrecedes($1.utf8) }
            var entries: [ObjectPage.Entry] = []
            for name in names.prefix(Self.pageSize) {
                let status = try system { () throws(SystemError) in try Files.status("\(directory)/\(name)") }
                guard let status, status.isRegularFile else { continue }
                entries.append(.init(key: name, size: Int(status.size), modified: status.modified.seconds))
            }
            return ObjectPage(entries: entries, isTruncated: names.count > Self.pageSize)
        })
    }

    /// Makes `chunks` and `manifests`, and the directory itself where nothing speaks against it (`obstacle`);
    /// removes what writers that died more than an hour ago have left.
    public func prepare(completion: @escaping @Sendable (Result<Void, StoreError>) -> Void) {
        for space in ObjectSpace.allCases {
            let result = perform("PREPARE", space, nil) { (directory) throws(Failure) in
                if let obstacle = try system({ () throws(SystemError) in try obstacle() }) {
                    throw .refused(.noSuchSpace, obstacle)
                }
                try system { () throws(SystemError) in
                    try Files.makeDirectories(path)
                    try Files.makeDirectory(directory)
                    let now = wallClock().seconds
                    for name in try Files.list(directory) where name.hasPrefix(Self.temporaryPrefix) {
                        let leftover = "\(directory)/\(name)"
                        if let status = try Files.status(leftover, followLinks: false),
                            status.modified.seconds < now - Self.temporaryLifetime
                        {
                            try Files.remove(leftover)
                        }
                    }
                }
            }
            if case .failure = result { return completion(result) }
        }
        completion(.success(()))
    }

    /// Why `prepare` makes no directory at `path`; nil: it does, or there is one. A disk that isn't mounted leaves its mount point
    /// empty: a new store would hide under the old one as soon as the disk is back.
    package func obstacle() throws(SystemError) -> String? {
        var above = path
        while try Files.status(above) == nil {
            while above.count > 1, above.last == "/" { above.removeLast() }
            above = Files.directory(of: above)
        }
        guard above != path, try Files.status(above)?.isDirectory == true, try Files.list(above).isEmpty else { return nil }
        return "\(above) is empty: is a disk not mounted? Make \(path) once if this is where it belongs (mkdir -p)"
    }

    // MARK: Parts

    private enum Failure: Error {
        case system(SystemError)
        case refused(StoreError.Kind, String)
    }

    private func directory(of space: ObjectSpace) -> String { "\(path)/\(space.rawValue)" }

    /// Runs an operation on the file of `key`, or on the space's directory
    /// where there is no key, and dresses its errors.
    private func perform<T>(
        _ operation: String, _ space: ObjectSpace, _ key: String?, _ body: (String) throws(Failure) -> T
    ) -> Result<T, StoreError> {
        let directory = directory(of: space)
        do throws(Failure) {
            if path.isEmpty || path.utf8.contains(0) {
                throw .refused(.invalid, "the path of a directory store must be a path, found \"\(path)\"")
            }
            guard let key else { return .success(try body(directory)) }
            if let flaw = Self.flaw(ofKey: key) { throw .refused(.invalid, flaw) }
            return .success(try body("\(directory)/\(key)"))
        } catch {
            let (kind, reason) = Self.explain(error)
            let subject = key.map { "\(space.rawValue)/\($0)" } ?? space.rawValue
            return .failure(StoreError(kind, store: name, operation: "\(operation) \(subject)", reason: reason))
        }
    }

    /// Why `key` can't be a file name here, if it can't.
    private static func flaw(ofKey key: String) -> String? {
        let bytes = key.utf8
        if bytes.isEmpty || key == "." || key == ".." { return "\"\(key)\" can't be the name of a file" }
        if bytes.contains(UInt8(ascii: "/")) || bytes.contains(0) {
            return "a key must not contain '/' or NUL in a directory store"
        }
        if bytes.count > 255 { return "a key has 255 bytes at most in a directory store, this one \(bytes.count)" }
        if key.hasPrefix(temporaryPrefix) { return "keys that begin with \(temporaryPrefix) are for unfinished files" }
        return nil
    }

    private static func explain(_ failure: Failure) -> (StoreError.Kind, String) {
        switch failure {
        case .refused(let kind, let reason): return (kind, reason)
        case .system(let error):
            switch error.code {
            case EACCES, EPERM, EROFS: return (.denied, error.description)
            // A directory that went away under the operation.
            case ENOENT: return (.noSuchSpace, error.description)
            case ENAMETOOLONG, EINVAL, EISDIR, ENOTDIR, ELOOP: return (.invalid, error.description)
            case EFBIG: return (.tooLarge, error.description)
            default: return (.unavailable, error.description)
            }
        }
    }

    @discardableResult
    private func system<T: ~Copyable>(_ body: () throws(SystemError) -> T) throws(Failure) -> T {
        do throws(SystemError) { return try body() } catch { throw .system(error) }
    }

    @discardableResult
    private func requireDirectory(of space: ObjectSpace) throws(Failure) -> FileStatus {
        let directory = directory(of: space)
        let status = try system { () throws(SystemError) in try Files.status(directory) }
        guard let status, status.isDirectory else {
            throw .refused(
                .noSuchSpace, "there is no directory \(directory): not made yet, or its file system is not mounted")
        }
        return status
    }

    private func read(_ file: String, limit: Int) throws(Failure) -> (body: [UInt8], tag: String)? {
        let fd = vrn_open(file, O_RDONLY, 0)
        if fd == -ENOENT { return nil }
        let object = try system { () throws(SystemError) in
            Descriptor(owning: try SystemError.check(fd, "open", file), path: file)
        }
        let size = try system { () throws(SystemError) in try object.status().size }
        if size > Int64(limit) {
            throw .refused(.tooLarge, "the object has \(size) bytes, more than the \(limit) that it may have")
        }
        // A published file never changes, so that its size stays true.
        let body = try system { () throws(SystemError) in try object.read(count: Int(size), at: 0) }
        return (body, Self.tag(body))
    }

    /// Like S3's, a tag is of the content: touching or copying an object does not change it.
    private static func tag(_ body: [UInt8]) -> String {
        let fingerprint = FingerprintKey.chunk.fingerprint(body)
        return hexadecimal(fingerprint.primary) + hexadecimal(fingerprint.secondary)
    }

    private static func hexadecimal(_ word: UInt64) -> String {
        let digits = String(word, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Runs `body` with a flock(2) of the store's lock file.
    private func withLock<T>(_ kind: Int32, _ body: () throws(Failure) -> T) throws(Failure) -> T {
        let file = "\(path)/.lock"
        let lock = try system { () throws(SystemError) in
            // Another user's file: flock(2) asks for no more than reading, but NFS does.
            let fd = vrn_open(file, O_RDWR | O_CREAT, 0o666)
            return Descriptor(
                owning: try SystemError.check(fd == -EACCES ? vrn_open(file, O_RDONLY, 0) : fd, "open", file),
                path: file)
        }
        let deadline = MonotonicTime.now.advanced(seconds: 5)
        while true {
            let r = vrn_flock(lock.fd, kind | LOCK_NB)
            if r == 0 {
                // Not by close(2) alone: a child that was forked meanwhile has the same lock open, for as long as it lives.
                defer { _ = vrn_flock(lock.fd, LOCK_UN) }
                return try body()
            }
            if r != -EWOULDBLOCK && r != -EINTR {
                throw .system(SystemError("flock", lock.path, -r))
            }
            if deadline < .now {
                throw .refused(.unavailable, "\(lock.path) is held by another process for more than 5 s")
            }
            Threads.pause(microseconds: 2000)
        }
    }
}
