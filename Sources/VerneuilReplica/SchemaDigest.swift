import VerneuilFormat

/// A fingerprint of a snapshot's schema: of all pages of the sqlite_schema
/// table, and of the header fields on which their meaning depends.
///
/// SQLite keeps the schema of a database in memory and reads it again only when
/// the schema cookie in the header changes. A replica may move from one
/// database to another with the same cookie (a file that was replaced, or
/// restored, at the source). Equal digests prove that the schema is the same;
/// anything else means that SQLite has to be told (SnapshotHeader.swift).
///
/// Only pages that are loaded are looked at: there is no digest, rather than a
/// wait, where one is missing. SQLite has loaded them all where it has read the schema.
enum SchemaDigest {
    /// A schema of more pages than this has no digest, whatever its pages say.
    private static let mostPages = 10_000

    static func compute(_ snapshot: Snapshot) -> Fingerprint? {
        guard let first = snapshot.loadedBytes(at: 0, count: 100) else { return nil }
        // Page size at 16, 1 standing for 65,536; bytes that SQLite leaves free on each page at 20.
        let stated = Int(first[16]) << 8 | Int(first[17])
        let pageSize = stated == 1 ? 65_536 : stated
        guard pageSize >= 512, pageSize.nonzeroBitCount == 1, pageSize - Int(first[20]) >= 480 else { return nil }

        // Page size and reserved space; schema format to text encoding.
        var content = [UInt8](first[16..<18]) + [first[20]] + first[44..<60]
        var pending: [(page: UInt32, isOverflow: Bool)] = [(1, false)]
        var visited = 0
        while let (page, isOverflow) = pending.popLast() {
            visited += 1
            guard visited <= mostPages, page > 0,
                let bytes = snapshot.loadedBytes(at: UInt64(page - 1) * UInt64(pageSize), count: pageSize)
            else { return nil }
            withUnsafeBytes(of: page.bigEndian) { content.append(contentsOf: $0) }
            content.append(contentsOf: bytes[(page == 1 ? 100 : 0)...])
            if isOverflow {
                let next = bytes.bigEndian(at: 0)
                if next != 0 { pending.append((next, true)) }
            } else {
                guard let children = children(of: bytes, isFirst: page == 1, usable: pageSize - Int(first[20])) else {
                    return nil
                }
                pending.append(contentsOf: children)
            }
        }
        return FingerprintKey.directory.fingerprint(content)
    }

    /// The pages that a page of a table b-tree refers to; nil where it is none.
    private static func children(
        of bytes: ArraySlice<UInt8>, isFirst: Bool, usable: Int
    ) -> [(page: UInt32, isOverflow: Bool)]? {
        let header = isFirst ? 100 : 0
        let kind = bytes[header]
        guard kind == 5 || kind == 13 else { return nil }
        let cells = Int(bytes[header + 3]) << 8 | Int(bytes[header + 4])
        let pointers = header + (kind == 5 ? 12 : 8)
        guard pointers + 2 * cells <= usable else { return nil }
        var found: [(page: UInt32, isOverflow: Bool)] = []
        for i in 0..<cells {
            let cell = Int(bytes[pointers + 2 * i]) << 8 | Int(bytes[pointers + 2 * i + 1])
            if kind == 5 {
                guard cell + 4 <= usable else { return nil }
                found.append((bytes.bigEndian(at: cell), false))
                continue
            }
            // A leaf's cell: payload length, row id, payload, and the first overflow page where that is too long.
            guard let (payload, a) = bytes.varint(at: cell, end: usable), let (_, b) = bytes.varint(at: a, end: usable),
                payload <= UInt64(Int32.max)
            else { return nil }
            let most = usable - 35
            guard Int(payload) > most else { continue }
            let least = (usable - 12) * 32 / 255 - 23
            let part = least + (Int(payload) - least) % (usable - 4)
            let link = b + (part <= most ? part : least)
            guard link + 4 <= usable else { return nil }
            found.append((bytes.bigEndian(at: link), true))
        }
        if kind == 5 { found.append((bytes.bigEndian(at: header + 8), false)) }
        return found
    }
}

extension Snapshot {
    /// Bytes within one chunk, if it is loaded and they are all there.
    fileprivate func loadedBytes(at offset: UInt64, count: Int) -> ArraySlice<UInt8>? {
        guard offset <= length, UInt64(count) <= length - offset,
            Int(offset % UInt64(Chunk.size)) + count <= Chunk.size,
            let address = loadedAddress(ofChunk: Int(offset / UInt64(Chunk.size))),
            let chunk = UnsafeRawPointer(bitPattern: address)
        else { return nil }
        let start = Int(offset % UInt64(Chunk.size))
        return [UInt8](UnsafeRawBufferPointer(start: chunk + start, count: count))[...]
    }
}

extension ArraySlice<UInt8> {
    /// Of a page: indices are offsets in it.
    fileprivate func bigEndian(at i: Int) -> UInt32 {
        UInt32(self[i]) << 24 | UInt32(self[i + 1]) << 16 | UInt32(self[i + 2]) << 8 | UInt32(self[i + 3])
    }

    /// SQLite's variable-length integer, and where it ends.
    fileprivate func varint(at start: Int, end: Int) -> (UInt64, Int)? {
        var value: UInt64 = 0
        for i in 0..<9 {
            guard start + i < end else { return nil }
            let byte = self[start + i]
            if i == 8 { return (value << 8 | UInt64(byte), start + 9) }
            value = value << 7 | UInt64(byte & 0x7F)
            if byte < 0x80 { return (value, start + i + 1) }
        }
        return nil
    }
}
