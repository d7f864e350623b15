import CVerneuil
import Synchronization

/// What identifies this machine.
public enum Host {
    /// In place of a name that can't be read (FORMAT 5).
    public static let unknownName = "no.hostname.verneuil"

    /// The name that manifests carry (FORMAT 5): the first line of
    /// /etc/hostname, or a fixed name where that can't be read. The same for the life of the process, once it is known.
    ///
    /// Safe from any thread.
    public static func name() -> String { (try? knownName()) ?? unknownName }

    /// As `name()`, for what must not be stored under a wrong name.
    ///
    /// - Throws: where the name can't be read now, and may be later: no descriptor, no memory.
    public static func knownName() throws(SystemError) -> String {
        if let known = UnsafePointer<CChar>(bitPattern: known.load(ordering: .acquiring)) { return String(cString: known) }
        let name = try name(from: "/etc/hostname")
        // Never freed. No lock: none is held in a forked child, nor over the file.
        if let copy = strdup(name) {
            let (isFirst, _) = known.compareExchange(expected: 0, desired: UInt(bitPattern: copy), ordering: .acquiringAndReleasing)
            if !isFirst { free(copy) }
        }
        return name
    }
    /// A C string's address; 0: not known yet.
    private static let known = Atomic<UInt>(0)

    static func name(from file: String) throws(SystemError) -> String {
        do throws(SystemError) {
            guard let bytes = try Files.read(file, limit: 1 << 16) else { return unknownName }
            return String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
        } catch {
            if [EMFILE, ENFILE, ENOMEM, EINTR, EAGAIN].contains(error.code) { throw error }
            return unknownName
        }
    }

    /// The same for the life of an installation, and of no other (machine-id(5)); empty where there is none, as in many containers.
    public static func machineID(from files: [String] = ["/etc/machine-id", "/var/lib/dbus/machine-id"]) -> String {
        for file in files {
            guard let bytes = (try? Files.read(file, limit: 4096)) ?? nil else { continue }
            let id = String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
            if id.utf8.count == 32 { return id }
        }
        return ""
    }

    /// Changes at every boot. Where the kernel has none, the boot time stands in.
    public static func bootID() -> String {
        if let bytes = (try? Files.read("/proc/sys/kernel/random/boot_id", limit: 4096)) ?? nil, !bytes.isEmpty {
            return String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
        }
        if let bytes = (try? Files.read("/proc/stat", limit: 1 << 20)) ?? nil {
            for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") where line.hasPrefix("btime ") {
                return String(line.dropFirst(6))
            }
        }
        return "unknown-boot"
    }
}
