import CVerneuil

/// What a directory's file system is, as far as that matters.
struct FileSystemType {
    var name: String
    /// On another machine.
    var isRemote = false
    var isMemory = false
    /// That this user may fill.
    var freeBytes: Int64

    /// nil where it can't be asked.
    init?(of path: String) {
        var magic: UInt64 = 0
        var free: Int64 = 0
        guard vrn_file_system(path, &magic, &free) == 0 else { return nil }
        freeBytes = free
        // statfs(2) has the list.
        switch magic {
        case 0xEF53: name = "ext4"
        case 0x5846_5342: name = "xfs"
        case 0x9123_683E: name = "btrfs"
        case 0x2FC1_2FC1: name = "zfs"
        case 0xF2F5_2010: name = "f2fs"
        case 0x794C_7630: name = "overlay"
        case 0x0102_1994, 0x8584_58F6:
            name = "in memory (tmpfs)"
            isMemory = true
        case 0x6969:
            name = "NFS"
            isRemote = true
        case 0xFF53_4D42, 0xFE53_4D42, 0x517B:
            name = "SMB"
            isRemote = true
        case 0x00C3_6400:
            name = "CephFS"
            isRemote = true
        case 0x0102_1997:
            name = "9P"
            isRemote = true
        case 0x6573_5546: name = "FUSE"
        default: name = "type 0x\(String(magic, radix: 16))"
        }
    }
}
