import CSQLite
import Testing
import VFSTestSupport
import VerneuilSystem

/// docs/VFS.md against the header of the SQLite that is installed, and against the VFS.
@Suite struct Contract {
    @Test func `What VFS.md says of each method and file control is so`() throws {
        let header = String(decoding: try #require(try Files.read("/usr/include/sqlite3.h")), as: UTF8.self)
        let root = Files.directory(of: Files.directory(of: Files.directory(of: #filePath)))
        let document = String(decoding: try #require(try Files.read("\(root)/docs/VFS.md")), as: UTF8.self)

        var methods = 0
        for name in ["sqlite3_vfs", "sqlite3_io_methods"] {
            let start = try #require(header.firstRange(of: "struct \(name) {")).upperBound
            let body = header[start...].prefix(upTo: try #require(header[start...].firstRange(of: "\n};")).lowerBound)
            for method in body.matches(of: #/\*(x[A-Z]\w*)\)/#).map(\.output.1) {
                methods += 1
                #expect(document.contains("| `\(method)`") || document.contains(", `\(method)`"), "\(method) isn't in the tables")
            }
        }
        #expect(methods >= 34)

        let scratch = try ScratchDirectory("contract")
        let file = try RawFile(vfs: "linux", path: scratch.file("a.db"))
        let capabilities = try rows(of: "SQLITE_IOCAP_", in: document)
        for (name, value) in constants("SQLITE_IOCAP_", in: header) {
            if file.characteristics & value != 0 {
                #expect(document.contains("SQLITE_IOCAP_\(name)") && capabilities[name] == nil, "\(name)")
            } else {
                #expect(capabilities[name] != nil, "SQLITE_IOCAP_\(name) isn't in the table")
            }
        }

        let controls = try rows(of: "SQLITE_FCNTL_", in: document)
        let known = constants("SQLITE_FCNTL_", in: header)
        #expect(known.count >= 35)
        for (name, value) in known {
            let text = try #require(controls[name], "SQLITE_FCNTL_\(name) isn't in the table")
            // Room for whatever is answered; asks, where a number asks or sets.
            var argument: (Int64, Int64, Int64, Int64) = (-1, 0, 0, 0)
            let code = withUnsafeMutablePointer(to: &argument) { file.control(value, UnsafeMutableRawPointer($0)) }
            if name == "VFSNAME" || name == "TEMPFILENAME" { sqlite3_free(UnsafeMutableRawPointer(bitPattern: Int(argument.0))) }
            #expect((code == SQLITE_NOTFOUND) == text.hasPrefix("SQLITE_NOTFOUND"), "\(name) answers \(code)")
        }
    }

    private func constants(_ prefix: String, in header: String) -> [(name: String, value: Int32)] {
        header.split(separator: "\n").compactMap { line in
            let words = line.split(separator: " ")
            guard words.count >= 3, words[0] == "#define", words[1].hasPrefix(prefix) else { return nil }
            let text = words[2]
            let value = text.hasPrefix("0x") ? Int32(text.dropFirst(2), radix: 16) : Int32(text)
            return value.map { (String(words[1].dropFirst(prefix.count)), $0) }
        }
    }

    /// Of the table with this heading: what it says, by name.
    private func rows(of heading: String, in document: String) throws -> [String: String] {
        let lines = document.split(separator: "\n", omittingEmptySubsequences: false)
        let start = try #require(lines.firstIndex(of: "| \(heading) | |"))
        var rows: [String: String] = [:]
        for line in lines[(start + 2)...].prefix(while: { $0.hasPrefix("| ") }) {
            let cells = line.dropFirst(2).split(separator: " | ", maxSplits: 1)
            for name in cells[0].split(separator: ", ") { rows[String(name)] = String(cells[1]) }
        }
        return rows
    }
}
