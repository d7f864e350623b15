/// The reference, docs/VERNEUILCTL.md.
struct MarkdownManual {
    private(set) var text = ""

    init(_ manual: Manual) {
        text += """
            # verneuilctl

            The reference of the tool, written by `verneuilctl generate-manual --markdown` from its own help; a test compares them.
            What the commands print with `--json` is below.

            Results are on standard output, everything else on standard error. Progress bars and colours are for terminals alone, \
            colours not where `NO_COLOR` is set.

            | exit status | meaning |
            |---|---|
            | 0 | done |
            | 1 | failed; standard error says why, and what to do |
            | 2 | the command line is wrong |
            | 3 | `verify`: nothing bad was seen, but it can't be told |


            """
        for page in manual.pages {
            text += "## \(page.command)\n\n\(page.abstract)\n\n```\n\(page.synopsis)\n```\n\n"
            for block in page.discussion {
                switch block {
                case .text(let words): text += "\(words)\n\n"
                case .examples(let lines): text += "```sh\n\(lines.joined(separator: "\n"))\n```\n\n"
                }
            }
            let arguments = page.arguments.filter { !$0.isGlobal || page.name == manual.pages[0].name }
            if arguments.isEmpty { continue }
            text += "| argument | |\n|---|---|\n"
            for argument in arguments {
                let forms = argument.forms.map { "`\($0)`" }.joined(separator: ", ")
                text += "| \(forms) | \(argument.text.split(separator: "|").joined(separator: "\\|")) |\n"
            }
            text += "\n"
        }
        text += JSONShapes.markdown
    }
}
