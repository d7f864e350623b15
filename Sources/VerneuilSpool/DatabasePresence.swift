import VerneuilSystem

extension SpoolDatabase {
    /// What the database's path shows, from where this process stands: it may be another container, which has the spool
    /// and not the database, and volumes come and go.
    public enum Presence: Sendable, Equatable {
        /// The file is there.
        case here
        /// It isn't; another file may be.
        case gone(isReplaced: Bool)
        /// Nothing can be told, for this reason.
        case unseen(String)
    }

    /// Whether the file is still there. That it isn't is proven where its directory is, and on the file's device: then this
    /// is the place where it was.
    public func presence() throws(SystemError) -> Presence {
        func isHere(_ status: FileStatus?) -> Bool { status?.inode == inode && status?.device == device }
        if isHere(try Files.status(path)) { return .here }
        let parent = Files.directory(of: path)
        guard let directory = try Files.status(parent), directory.isDirectory else { return .unseen("there is no directory \(parent)") }
        if directory.device != device { return .unseen("\(parent) is on another device than the database was") }
        // Once more: the directory may have come since, and the file with it.
        let status = try Files.status(path)
        return isHere(status) ? .here : .gone(isReplaced: status != nil)
    }
}
