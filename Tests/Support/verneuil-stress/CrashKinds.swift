import VerneuilSystem

/// The file operations of spool, replication and the directory store, by kind: what is done, and to what. The scenarios together
/// do all of them; and they do nothing else, so that a new one is not forgotten here.
struct CrashKinds {
    static let known = Set(
        """
        fchmod STORE/chunks/.tmp
        fchmod STORE/manifests/.tmp
        fsetxattr db/0.db
        ftruncate spool/BOOT/databases/PATH/FILE/EPOCH/base.new
        ftruncate spool/BOOT/databases/PATH/FILE/EPOCH/base.pool
        ftruncate spool/BOOT/databases/PATH/FILE/EPOCH/pool
        ftruncate spool/BOOT/databases/PATH/FILE/EPOCH/table
        link STORE/manifests/MANIFEST
        link spool/BOOT/databases/PATH/FILE/control
        mkdir STORE/chunks
        mkdir STORE/manifests
        mkdir spool
        mkdir spool/BOOT
        mkdir spool/BOOT/databases
        mkdir spool/BOOT/databases/PATH
        mkdir spool/BOOT/databases/PATH/FILE
        mkdir spool/BOOT/databases/PATH/FILE/EPOCH
        mkdir spool/BOOT/manifests
        open STORE/.lock
        open STORE/chunks/.tmp
        open STORE/manifests/.tmp
        open spool/BOOT/databases/PATH/.tmp
        open spool/BOOT/databases/PATH/FILE/.tmp
        open spool/BOOT/databases/PATH/FILE/EPOCH/base.new
        open spool/BOOT/databases/PATH/FILE/EPOCH/base.pool
        open spool/BOOT/databases/PATH/FILE/EPOCH/base.progress.new
        open spool/BOOT/databases/PATH/FILE/EPOCH/pool
        open spool/BOOT/databases/PATH/FILE/EPOCH/table
        open spool/BOOT/databases/PATH/FILE/ages.TARGET.new
        open spool/BOOT/databases/PATH/FILE/basechunk.TARGET.new
        open spool/BOOT/databases/PATH/FILE/builder.lock
        open spool/BOOT/databases/PATH/FILE/stored.TARGET.new
        open spool/BOOT/databases/PATH/FILE/target.TARGET.new
        open spool/BOOT/databases/PATH/copier.lock
        open spool/BOOT/databases/PATH/lineage.TARGET.new
        open spool/BOOT/manifests/MANIFEST.new
        pwrite STORE/chunks/.tmp
        pwrite STORE/manifests/.tmp
        pwrite spool/BOOT/databases/PATH/FILE/.tmp
        pwrite spool/BOOT/databases/PATH/FILE/EPOCH/base.new
        pwrite spool/BOOT/databases/PATH/FILE/EPOCH/base.pool
        pwrite spool/BOOT/databases/PATH/FILE/EPOCH/base.progress.new
        pwrite spool/BOOT/databases/PATH/FILE/EPOCH/pool
        pwrite spool/BOOT/databases/PATH/FILE/EPOCH/table
        pwrite spool/BOOT/databases/PATH/FILE/ages.TARGET.new
        pwrite spool/BOOT/databases/PATH/FILE/basechunk.TARGET.new
        pwrite spool/BOOT/databases/PATH/FILE/control
        pwrite spool/BOOT/databases/PATH/FILE/stored.TARGET.new
        pwrite spool/BOOT/databases/PATH/FILE/target.TARGET.new
        pwrite spool/BOOT/databases/PATH/lineage.TARGET.new
        pwrite spool/BOOT/manifests/MANIFEST.new
        rename STORE/chunks/CHUNK
        rename STORE/manifests/MANIFEST
        rename spool/BOOT/databases/PATH/.tmp
        rename spool/BOOT/databases/PATH/FILE/EPOCH/base
        rename spool/BOOT/databases/PATH/FILE/EPOCH/base.progress
        rename spool/BOOT/databases/PATH/FILE/ages.TARGET
        rename spool/BOOT/databases/PATH/FILE/basechunk.TARGET
        rename spool/BOOT/databases/PATH/FILE/path
        rename spool/BOOT/databases/PATH/FILE/stored.TARGET
        rename spool/BOOT/databases/PATH/FILE/target.TARGET
        rename spool/BOOT/databases/PATH/hurry
        rename spool/BOOT/databases/PATH/lineage.TARGET
        rename spool/BOOT/databases/PATH/takeover.TARGET
        rename spool/BOOT/manifests/MANIFEST
        rmdir spool/BOOT
        rmdir spool/BOOT/databases
        rmdir spool/BOOT/databases/PATH
        rmdir spool/BOOT/databases/PATH/.tmp
        rmdir spool/BOOT/databases/PATH/.tmp/EPOCH
        rmdir spool/BOOT/databases/PATH/FILE
        rmdir spool/BOOT/databases/PATH/FILE/EPOCH
        rmdir spool/BOOT/manifests
        unlink STORE/manifests/.tmp
        unlink spool/BOOT/databases/PATH/.tmp/EPOCH/base
        unlink spool/BOOT/databases/PATH/.tmp/EPOCH/pool
        unlink spool/BOOT/databases/PATH/.tmp/EPOCH/table
        unlink spool/BOOT/databases/PATH/.tmp/ages.TARGET
        unlink spool/BOOT/databases/PATH/.tmp/builder.lock
        unlink spool/BOOT/databases/PATH/.tmp/control
        unlink spool/BOOT/databases/PATH/.tmp/path
        unlink spool/BOOT/databases/PATH/.tmp/stored.TARGET
        unlink spool/BOOT/databases/PATH/.tmp/target.TARGET
        unlink spool/BOOT/databases/PATH/FILE/.tmp
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/base
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/base.new
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/base.pool
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/base.progress
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/pool
        unlink spool/BOOT/databases/PATH/FILE/EPOCH/table
        unlink spool/BOOT/databases/PATH/FILE/control
        unlink spool/BOOT/databases/PATH/FILE/stored.TARGET
        unlink spool/BOOT/databases/PATH/FILE/target.x.new
        unlink spool/BOOT/databases/PATH/copier.lock
        unlink spool/BOOT/databases/PATH/hurry
        unlink spool/BOOT/databases/PATH/lineage.TARGET
        unlink spool/BOOT/manifests/.tmp
        unlink spool/BOOT/manifests/MANIFEST
        """.split(separator: "\n").map { String($0) })

    private var seen: Set<String> = []

    /// - Parameter operations: as faultio writes them down, names relative to the arena.
    mutating func see(_ operations: [String]) {
        for line in operations {
            let words = line.split(separator: " ")
            // One that failed has changed nothing.
            guard words.count > 1, !(words.count > 2 && words[words.count - 2] == "-1") else { continue }
            let name = words[1]
            // What SQLite writes, and would without us.
            if name.hasPrefix("db/") && words[0] != "fsetxattr" { continue }
            seen.insert("\(words[0]) \(Self.general(String(name)))")
        }
    }

    /// nil: all kinds were seen, and no others.
    var complaint: String? {
        let missing = Self.known.subtracting(seen).sorted()
        let new = seen.subtracting(Self.known).sorted()
        if missing.isEmpty && new.isEmpty { return nil }
        return "No scenario has (any more), Crash.swift:\n  \(missing.joined(separator: "\n  "))"
            + "\nNot in the list of kinds, CrashKinds.swift:\n  \(new.joined(separator: "\n  "))"
    }

    /// The name without what differs from one database, boot or process to another.
    private static func general(_ name: String) -> String {
        var parts: [String] = []
        for part in name.split(separator: "/").map(String.init) {
            let last = parts.last ?? ""
            if part.hasPrefix("verneuil-") {
                parts.append("BOOT")
            } else if part.hasPrefix("#") {
                parts.append("PATH")
            } else if part.hasPrefix(".tmp.") {
                parts.append(".tmp")
            } else if part.hasPrefix("store.") {
                parts.append("STORE")
            } else if part.hasPrefix("epoch.") {
                parts.append("EPOCH")
            } else if last == "PATH" && part.contains("-") {
                parts.append("FILE")
            } else if last == "chunks" || last == "manifests" {
                parts.append(last == "chunks" ? "CHUNK" : part.hasSuffix(".new") ? "MANIFEST.new" : "MANIFEST")
            } else {
                // "stored.TARGET.new"
                let words = part.split(separator: ".").map { (word: Substring) -> String in
                    word.count > 8 && word.allSatisfy { $0.isHexDigit } ? "TARGET" : String(word)
                }
                parts.append((part.hasPrefix(".") ? "." : "") + words.joined(separator: "."))
            }
        }
        return parts.joined(separator: "/")
    }
}
