import CVerneuil
import ArgumentParser
import VerneuilCore
import VerneuilFormat
import VerneuilSystem

struct ManifestCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "manifest",
        abstract: "Fetches a database's manifest, as it is stored or decoded.",
        discussion: """
            What is written to the file (or standard output) are the stored bytes, usually compressed. With --json it is \
            their meaning, verified. What stands at FILE is replaced where it is such output, or empty; anything else \
            only with --force, and a database never.

              verneuilctl manifest --json --hostname db1.example.com /srv/app/app.db
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Argument(
        help: ArgumentHelp(
            "The database's path, or a manifest: file://…, http(s)://…, s3://… or verneuil://….", valueName: "source"))
    var source: String

    @Option(help: ArgumentHelp("The machine that replicates it (default: this one).", valueName: "host"))
    var hostname: String?

    @Option(name: .shortAndLong, help: ArgumentHelp("Write to this file.", valueName: "file"))
    var out: String?

    @Flag(help: "Replace a file that is no manifest.")
    var force = false

    @Flag(help: "Decode it: length, ctime, fingerprints, the list of chunks.")
    var json = false

    func validate() throws {
        try Self.refuseEmpty(source, "<source>")
        try Self.refuseEmpty(hostname, "--hostname")
        try Self.refuseEmpty(out, "--out")
        if out == nil, force { throw ValidationError("--force goes with --out.") }
        if hostname != nil, source.contains("://") { throw ValidationError("--hostname goes with a database's path.") }
    }

    func perform(_ context: Context) throws {
        let reference =
            source.contains("://") ? try ManifestReference(source) : .stored(DatabaseName(host: hostname, path: source))
        let engine = try Engine(try context.configuration())
        let stored = try engine.manifest(reference)
        let output = json ? Array((describe(reference, try engine.resolve(stored)).text + "\n").utf8) : stored
        guard let out else {
            if !json, Terminal.outputIsTerminal {
                throw Failure("a manifest is binary: send it to a file with --out, or decode it with --json")
            }
            return try Terminal.write(output)
        }
        guard let path = Files.canonical(out) else { throw Failure("\(out): can't be written: there is no such directory") }
        try checkReplaceable(path)
        try Files.writeAtomically(output, to: path, mode: 0o644)
    }

    private func checkReplaceable(_ out: String) throws {
        // Another file would take the name of a device, which is the whole system's.
        if let status = try Files.status(out), !status.isRegularFile {
            throw Failure(status.isDirectory ? "\(out): Is a directory: choose another --out" : "\(out) is not a regular file: choose another --out")
        }
        let start = try Files.read(out, prefix: 16)
        // The likely slip is to name the database itself.
        if start == Array("SQLite format 3\0".utf8) {
            throw Failure("\(out) is a SQLite database, which a manifest must not replace: choose another --out")
        }
        if force || start.isEmpty { return }
        let size = try Files.status(out)?.size ?? 0
        let there = size <= Int64(Body.maximumLength) ? try Files.read(out) ?? [] : []
        if (try? StoredManifest(decoding: there)) != nil || isDescription(there) { return }
        throw Failure("\(out) is no manifest (\(Files.describe(start: start, size: size))), and is not replaced: choose another --out, or --force")
    }

    /// Whether it is what --json writes.
    private func isDescription(_ text: [UInt8]) -> Bool {
        guard text.first == UInt8(ascii: "{"), case .object(let members)? = (try? JSON(parsing: text))?.value else { return false }
        return members.contains { $0.key == "contents_fingerprint" }
    }

    private func describe(_ reference: ManifestReference, _ manifest: Manifest) -> JSON {
        .object([
            "name": .string(reference.description),
            "length": .number(manifest.length),
            "ctime": .string("\(manifest.ctime).\(padded(Int64(manifest.ctimeNanoseconds)))"),
            "generated_by": .string(String(decoding: manifest.generatedBy, as: UTF8.self)),
            "header_fingerprint": .string(manifest.headerFingerprint.hexadecimal),
            "contents_fingerprint": .string(manifest.contentsFingerprint.hexadecimal),
            "base_chunk": manifest.baseChunk.map { .string($0.chunkName) } ?? .null,
            "bundled_chunks": .array(manifest.bundled.map { .number($0.index) }),
            "chunks": .array(manifest.chunks.map { .string($0.chunkName) }),
        ])
    }

    private func padded(_ nanoseconds: Int64) -> String {
        let digits = String(nanoseconds)
        return String(repeating: "0", count: max(0, 9 - digits.count)) + digits
    }
}

extension Fingerprint {
    /// As it is in chunk names, without the separator.
    var hexadecimal: String { chunkName.split(separator: "%2F").joined() }
}
