import CVerneuil
import VerneuilFormat
import VerneuilSystem

// ROOT/                                        as configured
//   verneuil-BOOT/                             everything of this boot (S4)
//     databases/MANGLED-PATH/copier.lock
//     databases/MANGLED-PATH/DEVICE-INODE/     one database: SpoolDatabase
//     manifests/MANIFEST-NAME                  the last manifest uploaded ("tap")
//
// BOOT is derived from the kernel's boot id: what another boot left may be a
// torn part of what was written (nothing here is ever synced), so nobody can
// even name it, and whoever comes first removes it, when nobody waits for that.

/// The spooling directory: what stands between commits and uploads. Holds no
/// credential, and is its owner's alone unless configured otherwise (S8). Safe from any thread and process.
public struct SpoolDirectory: Sendable, Hashable {
    /// As configured.
    public let root: String
    /// This boot's part of it.
    public let boot: String
    /// Of the directories made here. Files get the same without the x bits.
    public let permissions: UInt32

    static let prefix = "verneuil-"

    /// - Parameters:
    ///   - root: made where it doesn't exist.
    ///   - permissions: of directories; 0700 keeps other users out. Bits for
    ///     others than the owner are set whatever the umask is: several users share the directory when they say so.
    ///   - bootID: another one, for tests.
    public init(_ root: String, permissions: UInt32 = 0o700, bootID: String? = nil) {
        self.root = root
        self.permissions = permissions & 0o7777
        let id = bootID ?? Host.bootID()
        let print = FingerprintKey.mangling.fingerprint(Array(id.utf8))
        self.boot = "\(root)/\(Self.prefix)\(hex(print.primary))"
    }

    var fileMode: UInt32 { permissions & 0o666 }

    /// Makes the directories and removes what other boots left.
    public func prepare() throws(SystemError) {
        try makeDirectories()
        try removeOtherBoots()
    }

    /// What there must be before anything is spooled. Takes no time, whatever is in the directory.
    public func makeDirectories() throws(SystemError) {
        try make(root)
        try make(boot)
        try make("\(boot)/databases")
        try make("\(boot)/manifests")
    }

    /// Removes what other boots left. That may be four times each database, and take as long as that takes.
    public func removeOtherBoots() throws(SystemError) {
        let mine = Files.lastComponent(of: boot)
        for name in try Files.list(root) where name.hasPrefix(Self.prefix) && name != mine {
            // Another user's leftovers may not be ours to remove; they are never read in any case.
            try? Files.removeTree("\(root)/\(name)")
        }
    }

    // MARK: making files and directories

    func make(_ path: String) throws(SystemError) {
        if vrn_access(path, W_OK | X_OK) == 0 { return }
        try Files.makeDirectories(path, mode: permissions)
        if permissions & 0o077 != 0 { _ = vrn_chmod(path, permissions) }
        // The root itself stays who made it.
        guard Self.isSuperuser, path != root else { return }
        let fd = vrn_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
        if fd >= 0 { give(Descriptor(owning: fd, path: path)) }
    }

    /// Opens a file for reading and writing; makes it where it isn't there.
    func open(_ path: String, _ flags: Int32 = 0) throws(SystemError) -> Descriptor {
        let file = try Descriptor(path, O_RDWR | O_CREAT | O_NOFOLLOW | flags, mode: fileMode)
        admit(file)
        return file
    }

    /// Writes a file by a rename.
    ///
    /// - Parameter isOnlyWriter: as of `Files.writeAtomically`; most are written under the copier's lock.
    package func write(_ bytes: [UInt8], to path: String, isOnlyWriter: Bool = true) throws(SystemError) {
        try Files.writeAtomically(bytes, to: path, mode: fileMode, isOnlyWriter: isOnlyWriter) { admit($0) }
    }

    private func admit(_ file: borrowing Descriptor) {
        // Modes by `open` are cut by the umask; where others were invited, they are let in.
        if permissions & 0o077 != 0 { _ = vrn_fchmod(file.fd, fileMode) }
        if Self.isSuperuser { give(file) }
    }

    /// Asked each time, and no static: a commit and our threads could come to its first use at once in a forked child (docs/VFS.md).
    private static var isSuperuser: Bool { geteuid() == 0 }

    /// What root makes belongs to the owner of the directory that it is in, and so in the end to that of ROOT, whose
    /// processes could not go on with it otherwise. That owner may put a link, or a link's target, in the way of any name here:
    /// so it is only done with what is root's, has no other name, and is found in a directory of the owner's.
    private func give(_ file: borrowing Descriptor) {
        let directory = vrn_open_directory_of(file.path)
        guard directory >= 0 else { return }
        defer { _ = vrn_close(directory) }
        var parent = stat()
        guard vrn_fstat(directory, &parent) == 0, parent.st_uid != 0 else { return }
        var (made, named) = (stat(), stat())
        guard vrn_fstat(file.fd, &made) == 0, made.st_uid == 0, made.st_nlink == 1 || FileStatus(made).isDirectory,
            vrn_fstatat(directory, Files.lastComponent(of: file.path), &named) == 0,
            named.st_dev == made.st_dev, named.st_ino == made.st_ino
        else { return }
        _ = vrn_fchown(file.fd, parent.st_uid, parent.st_gid)
    }

    // MARK: what is here

    /// Where the database at `path` (canonical), being file `inode` of `device`, is spooled.
    public func directory(path: String, device: UInt64, inode: UInt64) -> String {
        "\(boot)/databases/\(ManifestName.mangledPath(path))/\(hex(device))-\(hex(inode))"
    }

    /// All databases that have something here, in no order.
    ///
    /// - Parameter unreadable: called with the reason for each entry that can't be read; it keeps nobody from the others.
    public func databases(unreadable: (SystemError) -> Void = { _ in }) throws(SystemError) -> [SpoolDatabase] {
        var found: [SpoolDatabase] = []
        for mangled in try Files.list("\(boot)/databases") {
            let entry = "\(boot)/databases/\(mangled)"
            do throws(SystemError) {
                for name in try Files.list(entry) where !name.hasPrefix(".") {
                    do throws(SystemError) {
                        if let database = try SpoolDatabase(existing: "\(entry)/\(name)", in: self) { found.append(database) }
                    } catch { unreadable(error) }
                }
            } catch { unreadable(error) }
        }
        return found
    }

    /// Whether `name` is a temporary one (`Files.temporaryName`) of a process that is gone, or nobody's (`abandonedName`); or,
    /// since processes of other pid namespaces look like that as well and those whose pid was reused don't, is an hour old.
    static func isLeftover(_ name: String, in directory: String) -> Bool {
        let parts = name.split(separator: ".")
        guard name.hasPrefix(".tmp."), parts.count == 3, let pid = pid_t(parts[1]) else { return false }
        if pid == 0 { return true }
        if kill(pid, 0) != 0 && vrn_errno() == ESRCH { return true }
        let status = (try? Files.status("\(directory)/\(name)", followLinks: false)) ?? nil
        return status.map { $0.changed.seconds < wallClock().seconds - 3600 } ?? false
    }

    /// Removes what a crash left between two steps: half-removed databases, temporary files, snapshots that nobody will finish.
    public func sweep() {
        func sweep(_ directory: String, _ remove: (String) -> Void) {
            for name in (try? Files.list(directory)) ?? [] where Self.isLeftover(name, in: directory) {
                remove("\(directory)/\(name)")
            }
        }
        sweep("\(boot)/manifests") { try? Files.remove($0) }
        for database in (try? databases()) ?? [] { database.sweep() }
        for mangled in (try? Files.list("\(boot)/databases")) ?? [] {
            sweep("\(boot)/databases/\(mangled)") { try? Files.removeTree($0) }
        }
    }

    // MARK: the last uploaded manifests

    public func tapPath(_ manifestName: String) -> String { "\(boot)/manifests/\(manifestName)" }

    /// The manifest's bytes as last uploaded from this machine, during this boot.
    public func tap(_ manifestName: String) -> [UInt8]? {
        (try? Files.read(tapPath(manifestName), limit: 1 << 30)) ?? nil
    }

    public func setTap(_ manifestName: String, _ body: [UInt8]) throws(SystemError) {
        try make("\(boot)/manifests")
        try write(body, to: tapPath(manifestName))
    }
}

@inline(__always)
func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return digits
}
