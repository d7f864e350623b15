import CVerneuil
import VerneuilSystem

// Unlinking takes the longer the more is unlinked, and a spool may take four times the database. So a commit removes only
// what is small; all else is left to a builder that nobody waits for.

extension SpoolDirectory {
    /// A name beside `path` of what nobody is at work on any more, whichever processes live: `sweep` removes it.
    static func abandonedName(beside path: String) -> String {
        let parts = Files.lastComponent(of: Files.temporaryName(beside: path)).split(separator: ".")
        return "\(Files.directory(of: path))/.tmp.0.\(parts.last ?? "0")"
    }
}

extension SpoolDatabase {
    /// Bytes of older epochs that a commit removes at most: up to 15 ms on a busy machine's ext4, where they stand in pieces of 64 KiB.
    public static let removedWithinCommit: Int64 = 32 << 20

    /// Removes all epochs but those in `keep`, and those after `keep`'s largest. False: that would be more than `most` bytes,
    /// and the rest stands.
    @discardableResult
    func removeEpochs(except keep: Set<UInt64>, atMost most: Int64 = .max) throws(SystemError) -> Bool {
        let newest = keep.max() ?? 0
        return try removeEpochs(atMost: most) { $0 < newest && !keep.contains($0) } == 0
    }

    /// Takes at least `wanted` bytes from what stands of the epochs before `epoch`, or all there are; and little more than
    /// the larger of that and `step`. Whoever reads them finds that they were given up (R9). Answers how many bytes it were.
    func cutEpochs(before epoch: UInt64, by wanted: UInt64, step: UInt64) throws(SystemError) -> UInt64 {
        var cut: UInt64 = 0
        for old in try epochs().sorted() where old < epoch {
            for name in ["pool", "base.pool"] {
                let path = "\(epochPath(old))/\(name)"
                let fd = vrn_open(path, O_WRONLY | O_NOFOLLOW, 0)
                if fd < 0 { continue }
                let file = Descriptor(owning: fd, path: path)
                var status = try file.status()
                while status.size > 0 {
                    if cut >= wanted { return cut }
                    let before = status.allocated
                    try file.truncate(to: max(0, status.size - Int64(clamping: max(wanted - cut, step))))
                    status = try file.status()
                    cut &+= UInt64(max(0, before - status.allocated))
                }
            }
        }
        return cut
    }

    /// Removes the epochs before `epoch`, as far as that is no more than `most` bytes. Answers how many bytes of them stand.
    func removeEpochs(before epoch: UInt64, atMost most: Int64) throws(SystemError) -> UInt64 {
        try removeEpochs(atMost: most) { $0 < epoch }
    }

    private func removeEpochs(atMost most: Int64, _ isOld: (UInt64) -> Bool) throws(SystemError) -> UInt64 {
        var left = most
        var standing: UInt64 = 0
        for epoch in try epochs() where isOld(epoch) {
            if most != .max {
                let bytes = allocatedBytes(ofEpoch: epoch)
                if bytes > left {
                    standing &+= UInt64(bytes)
                    continue
                }
                left -= bytes
            }
            try Files.removeTree(epochPath(epoch))
        }
        return standing
    }
}
