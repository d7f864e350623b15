import ArgumentParser
import CVerneuil
import VerneuilCore
import VerneuilSystem

struct ShellCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "shell",
        abstract: "Opens a replica in the sqlite3 shell.",
        discussion: """
            The shell loads the extension and opens the replica; chunks are fetched as queries need them. What follows -- goes to \
            the shell: its options, and SQL.

              verneuilctl shell --source-path /srv/app/app.db -- -box 'SELECT count(*) FROM sqlite_schema'
            """)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions
    @OptionGroup var replica: ReplicaOptions

    @Option(help: ArgumentHelp("The shell.", valueName: "program"))
    var executable = "sqlite3"

    @Option(help: ArgumentHelp("The extension (default: libverneuil_vfs.so near verneuilctl).", valueName: "file"))
    var vfs: String?

    @Argument(help: ArgumentHelp("The shell's options, and SQL.", valueName: "arguments"))
    var arguments: [String] = []

    func perform(_ context: Context) throws {
        let reference = try replica.reference()
        let configuration = try context.configuration()
        var manifestFile: String?
        defer { if let manifestFile { try? Files.remove(manifestFile) } }
        let vfs = try findExtension()
        let name: String
        // What isn't there is said here: the shell would complain, and go on with an empty database.
        let engine = try Engine(configuration)
        let manifest = try engine.manifest(reference)
        switch reference {
        case .file(let path):
            name = Files.canonical(path) ?? path
        case .stored(let database):
            name = "verneuil://\(database.host)\(database.path)"
        case .url, .object:
            // The shell opens a copy; what it needs of the chunks still comes from the stores.
            let path = Files.temporaryName(beside: "\(configuration.temporaryDirectory ?? "/var/tmp")/manifest")
            try Files.writeAtomically(manifest, to: path)
            manifestFile = path
            name = path
        }
        if let text = global.over(root.global).config { setenv("VERNEUIL_CONFIG", Context.specification(text), 1) }
        var words = [
            executable, "-bail", "-cmd", ".load \(quoted(vfs))",
            "-cmd", ".open \(quoted("file:\(percentEncoded(name))?vfs=verneuil_snapshot"))",
            "-cmd", Self.check,
        ]
        if !arguments.contains(where: { $0 == "-bail" || $0 == "--bail" }) { words += ["-cmd", ".bail off"] }
        let status = try ChildProcess.run(words + [":memory:"] + arguments)
        if status != 0 { throw ExitCode(status) }
    }

    /// A shell that can't open a database complains, and has one in memory instead, which has no file. In all versions of SQLite
    /// the name of the constraint is in the message, and the shell ends with it.
    private static let check = """
        CREATE TEMP TABLE opened(file CONSTRAINT "the replica could not be opened" CHECK (file <> '')); \
        INSERT INTO opened SELECT file FROM pragma_database_list WHERE name = 'main'; \
        DROP TABLE opened
        """

    private func findExtension() throws -> String {
        if let vfs {
            guard let path = Files.canonical(vfs), try Files.status(path)?.isRegularFile == true else {
                throw Failure("--vfs \(vfs): there is no such file; give the path of libverneuil_vfs.so")
            }
            return path
        }
        let name = "libverneuil_vfs.so"
        let directory = Files.directory(of: Files.canonical("/proc/self/exe") ?? CommandLine.arguments[0])
        let candidates = ["\(directory)/\(name)", "\(directory)/../lib/\(name)", "\(directory)/../lib/verneuil/\(name)"]
        for candidate in candidates {
            if try Files.status(candidate) != nil, let path = Files.canonical(candidate) { return path }
        }
        throw Failure("\(name) is not beside verneuilctl, nor in ../lib: say where it is with --vfs")
    }

    /// For the shell's dot commands: C's escapes, in double quotes.
    private func quoted(_ text: String) -> String { JSON.quoted(text) }

    /// For a `file:` URI's path.
    private func percentEncoded(_ path: String) -> String {
        var out = ""
        for byte in path.utf8 {
            let isPlain = Character(Unicode.Scalar(byte)).isASCII && "%?#\"'".utf8.firstIndex(of: byte) == nil && byte > 0x20
            if isPlain && byte < 0x7F {
                out.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                let hex = String(byte, radix: 16, uppercase: true)
                out += hex.utf8.count == 1 ? "%0\(hex)" : "%\(hex)"
            }
        }
        return out
    }
}
