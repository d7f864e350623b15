import CVerneuil

/// What identifies this machine.
public enum Host {
    /// The name that manifests carry (FORMAT 5): the first line of
    /// /etc/hostname, or a fixed name where that can't be read.
    public static func name(from file: String = "/etc/hostname") -> String {
        guard let bytes = (try? Files.read(file, limit: 1 << 16)) ?? nil else { return "no.hostname.verneuil" }
        let line = bytes.prefix { $0 != 0x0A }
        return String(decoding: line, as: UTF8.self)
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
