import CVerneuil
import VerneuilFormat

/// A snapshot's database pages, as far as they are loaded, and what stands in
/// b-tree pages (https://sqlite.org/fileformat2.html). Nothing here waits.
///
/// The bytes are those that the writer stored, but what they say need not make
/// sense: every offset and count is checked before it is used, and whatever
/// doesn't fit is nil.
struct LoadedPages {
    let snapshot: Snapshot
    /// Bytes.
    let pageSize: Int
    /// Without what SQLite leaves free at the end of each page.
    let usable: Int
    /// The first 100 bytes of the database.
    let header: Page

    /// nil where the header isn't loaded, or is none.
    init?(_ snapshot: Snapshot) {
        guard let header = Self.bytes(of: snapshot, at: 0, count: 100) else { return nil }
        self.header = Page(header, usable: 100, start: 0)
        // Page size at 16, 1 standing for 65,536; bytes left free on each page at 20.
        let stated = Int(header[16]) << 8 | Int(header[17])
        pageSize = stated == 1 ? 65_536 : stated
        usable = pageSize - Int(header[20])
        guard pageSize >= 512, pageSize.nonzeroBitCount == 1, usable >= 480 else { return nil }
        self.snapshot = snapshot
    }

    /// A page by its number, counted from 1.
    subscript(_ number: UInt32) -> Page? {
        guard number > 0,
            let bytes = Self.bytes(of: snapshot, at: UInt64(number - 1) * UInt64(pageSize), count: pageSize)
        else { return nil }
        return Page(bytes, usable: usable, start: number == 1 ? 100 : 0)
    }

    func chunk(of page: UInt32) -> Int { Int(UInt64(page - 1) * UInt64(pageSize) / UInt64(Chunk.size)) }

    /// Bytes within one chunk, if it is loaded and they are all there.
    private static func bytes(of snapshot: Snapshot, at offset: UInt64, count: Int) -> [UInt8]? {
        let start = Int(offset % UInt64(Chunk.size))
        guard offset <= snapshot.length, UInt64(count) <= snapshot.length - offset, start + count <= Chunk.size,
            let address = snapshot.loadedAddress(ofChunk: Int(offset / UInt64(Chunk.size))),
            let chunk = UnsafeRawPointer(bitPattern: address)
        else { return nil }
        return [UInt8](UnsafeRawBufferPointer(start: chunk + start, count: count))
    }
}

/// A page's bytes, read with care. Offsets are from its beginning.
struct Page {
    let bytes: [UInt8]
    private let usable: Int
    /// Of the b-tree header: page 1 has the database's before it.
    private let start: Int

    init(_ bytes: [UInt8], usable: Int, start: Int) {
        self.bytes = bytes
        self.usable = min(usable, bytes.count)
        self.start = start
    }

    enum Kind: UInt8 {
        case indexInterior = 2
        case tableInterior = 5
        case indexLeaf = 10
        case tableLeaf = 13

        var isInterior: Bool { self == .indexInterior || self == .tableInterior }
    }
    var kind: Kind? { start < usable ? Kind(rawValue: bytes[start]) : nil }

    /// Where the cells are, in the order of their keys.
    var cells: [Int]? {
        guard let kind, let count = integer(at: start + 3, bytes: 2) else { return nil }
        let pointers = start + (kind.isInterior ? 12 : 8)
        guard pointers + 2 * Int(count) <= usable else { return nil }
        return (0..<Int(count)).compactMap { integer(at: pointers + 2 * $0, bytes: 2).map { Int($0) } }
    }

    /// The pages below an interior page, in the order of their keys; nil for other pages.
    var children: [UInt32]? {
        guard let kind, kind.isInterior, let cells, let last = integer(at: start + 8, bytes: 4) else { return nil }
        var children: [UInt32] = []
        children.reserveCapacity(cells.count + 1)
        for cell in cells {
            guard let child = integer(at: cell, bytes: 4) else { return nil }
            children.append(UInt32(child))
        }
        children.append(UInt32(last))
        return children
    }

    /// A row of a table's leaf: where its record begins, and the first overflow page, 0 where all of it is here.
    func row(at cell: Int) -> (record: Int, overflow: UInt32)? {
        guard let (payload, rowID) = varint(at: cell), let (_, record) = varint(at: rowID), payload <= UInt64(Int32.max)
        else { return nil }
        let most = usable - 35
        guard Int(payload) > most else { return (record, 0) }
        let least = (usable - 12) * 32 / 255 - 23
        let part = least + (Int(payload) - least) % (usable - 4)
        guard let overflow = integer(at: record + (part <= most ? part : least), bytes: 4) else { return nil }
        return (record, UInt32(overflow))
    }

    /// A record's column that is an integer; nil where it is none, or not here.
    func integer(inColumn column: Int, ofRecord record: Int) -> Int64? {
        guard let (size, first) = varint(at: record), size <= UInt64(usable) else { return nil }
        var type = first
        var value = record + Int(size)
        for i in 0...column {
            guard let (code, next) = varint(at: type), next <= record + Int(size) else { return nil }
            let length: Int
            switch code {
            case 0, 8, 9: length = 0
            case 1...4: length = Int(code)
            case 5: length = 6
            case 6, 7: length = 8
            case 10, 11: return nil
            default:
                guard code <= UInt64(Int32.max) else { return nil }
                length = (Int(code) - 12) / 2
            }
            if i == column {
                switch code {
                case 8, 9: return Int64(code) - 8
                case 1...6: return integer(at: value, bytes: length)
                default: return nil
                }
            }
            type = next
            value += length
        }
        return nil
    }

    /// Big-endian, not negative unless it has 8 bytes; nil beyond the page.
    func integer(at offset: Int, bytes count: Int) -> Int64? {
        guard offset >= 0, offset + count <= usable else { return nil }
        return bytes[offset..<offset + count].reduce(0) { $0 << 8 | Int64($1) }
    }

    /// SQLite's variable-length integer, and where it ends.
    func varint(at offset: Int) -> (value: UInt64, end: Int)? {
        var value: UInt64 = 0
        for i in 0..<9 {
            guard offset >= 0, offset + i < usable else { return nil }
            let byte = bytes[offset + i]
            if i == 8 { return (value << 8 | UInt64(byte), offset + 9) }
            value = value << 7 | UInt64(byte & 0x7F)
            if byte < 0x80 { return (value, offset + i + 1) }
        }
        return nil
    }
}
