import VerneuilReplica

/// How a restore goes about its work.
///
/// ```swift
/// var options = RestoreOptions()
/// options.base = "/srv/yesterday.db"
/// options.progress = { done, total in print(done, "of", total, "bytes") }
/// try await Replication.restore(DatabaseSource(path: "/srv/app.db"), to: "/srv/restored.db", options: options)
/// ```
public struct RestoreOptions: Sendable {
    /// Replace a database that is in use, or was not closed properly, or a file that is no database.
    public var force = false
    /// The path of an older copy of the database: chunks that are there are not fetched.
    public var base: String?
    /// Read back what was written, before the file takes its name.
    public var verify = true
    /// Have SQLite check the database before the file takes its name (`PRAGMA integrity_check`): where it complains, the restore
    /// throws, and leaves what it wrote in `path.partial`.
    public var integrityCheck = false
    /// Called several times a second, with the bytes done and all bytes of the database; on the restore's thread.
    public var progress: @Sendable (_ done: UInt64, _ total: UInt64) -> Void = { _, _ in }

    /// Nothing is replaced that is seen to be in use, and everything is read back. A connection without a transaction isn't
    /// seen, and would go on writing to the file that was replaced: close it first.
    public init() {}

    var forCore: Restore.Options {
        var options = Restore.Options()
        options.force = force
        options.base = base
        options.verify = verify
        if integrityCheck { options.inspect = IntegrityCheck.inspect }
        options.progress = { [progress] in progress($0.done, $0.total) }
        return options
    }
}

/// Where the bytes of a restored database came from: `length` is the sum of all others.
public struct RestoreReport: Sendable, Hashable {
    /// Bytes of the database.
    public var length: UInt64
    /// Bytes from stores and caches.
    public var fetched: UInt64
    /// Bytes that the manifest itself had.
    public var bundled: UInt64
    /// Bytes that ``RestoreOptions/base`` had.
    public var fromBase: UInt64
    /// Bytes that an interrupted restore had left.
    public var resumed: UInt64
    /// Bytes of chunks that are all zero, which are not written.
    public var zero: UInt64

    init(_ report: Restore.Report) {
        length = report.length
        fetched = report.fetched
        bundled = report.bundled
        fromBase = report.fromBase
        resumed = report.resumed
        zero = report.zero
    }
}
