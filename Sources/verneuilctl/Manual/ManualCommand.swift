import ArgumentParser
import VerneuilCore
import VerneuilSystem

/// Writes the manual from what the commands say of themselves; for the build.
struct ManualCommand: Tool {
    static let configuration = CommandConfiguration(
        commandName: "generate-manual",
        abstract: "Writes the man pages, or the reference in Markdown.",
        discussion: """
              verneuilctl generate-manual --out man1
              verneuilctl generate-manual --markdown
            """,
        shouldDisplay: false)

    @ParentCommand var root: Verneuilctl
    @OptionGroup var global: GlobalOptions

    @Option(help: ArgumentHelp("Write the man pages into this directory.", valueName: "directory"))
    var out: String?

    @Flag(help: "Print the reference in Markdown.")
    var markdown = false

    func validate() throws {
        if (out == nil) != markdown { throw ValidationError("Give either --out, or --markdown.") }
    }

    func perform(_ context: Context) throws {
        let manual = try Manual(dump: Verneuilctl._dumpHelp())
        guard let out else { return try Terminal.write(Array(MarkdownManual(manual).text.utf8)) }
        try Files.makeDirectories(out, mode: 0o755)
        for page in manual.pages {
            try Files.writeAtomically(Array(ManPage(page, of: manual).text.utf8), to: "\(out)/\(page.name).1", mode: 0o644)
        }
    }
}
