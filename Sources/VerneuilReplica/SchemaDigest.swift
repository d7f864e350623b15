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
        guard let pages = LoadedPages(snapshot) else { return nil }
        // Page size and reserved space; schema format to text encoding.
        let header = pages.header.bytes
        var content = [UInt8](header[16..<18]) + [header[20]] + header[44..<60]
        var pending: [(page: UInt32, isOverflow: Bool)] = [(1, false)]
        var visited = 0
        while let (number, isOverflow) = pending.popLast() {
            visited += 1
            guard visited <= mostPages, let page = pages[number] else { return nil }
            withUnsafeBytes(of: number.bigEndian) { content.append(contentsOf: $0) }
            content.append(contentsOf: page.bytes[(number == 1 ? 100 : 0)...])
            if isOverflow {
                guard let next = page.integer(at: 0, bytes: 4) else { return nil }
                if next != 0 { pending.append((UInt32(next), true)) }
            } else if page.kind == .tableInterior, let children = page.children {
                pending += children.map { ($0, false) }
            } else {
                guard page.kind == .tableLeaf, let cells = page.cells else { return nil }
                for cell in cells {
                    guard let row = page.row(at: cell) else { return nil }
                    if row.overflow != 0 { pending.append((row.overflow, true)) }
                }
            }
        }
        return FingerprintKey.directory.fingerprint(content)
    }
}
