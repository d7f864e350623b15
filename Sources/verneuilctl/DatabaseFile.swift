import VerneuilSystem

/// A file that is to be replicated, before anything is done with it.
enum DatabaseFile {
    static func check(_ name: String) throws -> String {
        guard let path = Files.canonical(name), let status = try Files.status(path) else {
            throw Failure("there is no file \(name): give the path of a database")
        }
        guard status.isRegularFile else { throw Failure("there is no file \(name), but something else: give the path of a database") }
        // SQLite file format, 1.3. An empty file is a database without tables.
        let header = try Files.read(path, prefix: 20)
        guard header.isEmpty || (header.count == 20 && header.starts(with: Array("SQLite format 3\0".utf8))) else {
            throw Failure("\(name) is no SQLite database: nothing is stored; give the path of one")
        }
        if header.count == 20, header[18...].contains(2) {
            throw Failure("\(name) is in WAL mode, which is not replicated: run \"PRAGMA journal_mode=DELETE\" on it first")
        }
        return path
    }
}
