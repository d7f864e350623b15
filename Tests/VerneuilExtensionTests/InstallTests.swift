import Foundation
import ProductSupport
import Testing

/// What scripts/install and scripts/package-deb make of what was built.
@Suite(.serialized) struct InstallTests {
    let here: Workspace
    init() throws { here = try Workspace() }

    private static let repository = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// Built once for all tests of the suite: the static library takes its time.
    private static let dist = Result { () throws -> Workspace in
        let dist = try Workspace()
        let built = try Program.run(
            ["\(repository)/scripts/build", "--all", "--skip-build"], environment: ["VERNEUIL_DIST": dist.path])
        guard built.status == 0 else { throw Failed(program: built) }
        return dist
    }
    struct Failed: Error { var program: Program }

    @discardableResult
    private func script(_ name: String, _ arguments: String..., environment: [String: String] = [:]) throws -> Program {
        let program = try Program.run(
            ["\(Self.repository)/scripts/\(name)"] + arguments,
            environment: environment.merging(["VERNEUIL_DIST": Self.dist.get().path, "VERNEUIL_DIST_READY": "1"]) { $1 },
            directory: here.path)
        try #require(program.status == 0, "\(program)")
        return program
    }

    @Test func aCProgramLinksTheInstalledLibrary() throws {
        let prefix = here.file("usr")
        try script("install", "--prefix", prefix, "--skip-build")
        // As the documentation says, and nothing but pkg-config's words.
        let compiled = try Program.run(
            [
                "bash", "-euc",
                "cc -std=c11 -Wall -Wextra -Werror -g -fsanitize=address \"$1\" $(pkg-config --cflags --libs verneuil) -o program", "_",
                "\(Self.repository)/Tests/Support/c-program/program.c",
            ], environment: ["PKG_CONFIG_PATH": "\(prefix)/lib/pkgconfig"], directory: here.path)
        try #require(compiled.status == 0, "\(compiled)")
        // Held until the process ends, by design: the configuration's replicas, behind a tagged pointer.
        try here.write(Array("leak:VerneuilReplica8ReplicasO\n".utf8), to: "known")
        let run = try Program.run(
            [here.file("program"), here.file("app.db"), here.file("spool"), here.configuration()],
            environment: ["ASAN_OPTIONS": "detect_leaks=1", "LSAN_OPTIONS": "print_suppressions=0:suppressions=\(here.file("known"))"])
        #expect(run.status == 0, "\(run)")
        #expect(!run.errors.contains("Sanitizer"), "\(run)")
        let words = run.text.split(separator: " ")
        let manifest = try #require(here.files("store/manifests").first)
        try #require(words.count == 3, "\(run)")
        #expect(String(words[0]) == manifest)
        #expect(Int(words[1]) == (try here.bytes("store/manifests/\(manifest)").count))
        let decoded = try here.verneuilctl("manifest", "--json", "app.db")
        #expect(decoded.text.contains(words[2]), "\(decoded)")

        // Nothing of what is inside gets in the way of the program's own names.
        let names = try Program.run(["nm", "-g", "--defined-only", "\(prefix)/lib/libverneuil.a"]).text
            .split(separator: "\n").compactMap { $0.split(separator: " ").count == 3 ? $0.split(separator: " ")[2] : nil }
        #expect(names.count == 7 && names.allSatisfy { $0.hasPrefix("verneuil_") || $0 == "sqlite3_verneuilvfs_init" }, "\(names)")
    }

    @Test func whatIsInstalledWorksAndIsRemovedWithoutATrace() throws {
        let prefix = here.file("opt/verneuil")
        try here.write(Array("kept".utf8), to: "opt/verneuil/lib/other")
        let before = here.files("opt")
        try script("install", "--prefix", prefix, "--skip-build")
        try script("install", "--prefix", prefix, "--skip-build")  // over itself
        let files = here.files("opt/verneuil")
        for file in [
            "bin/verneuilctl", "lib/libverneuil_vfs.so", "lib/libverneuil.a", "include/verneuil.h", "lib/pkgconfig/verneuil.pc",
            "share/man/man1/verneuilctl.1", "share/man/man1/verneuilctl-restore.1", "share/bash-completion/completions/verneuilctl",
            "share/zsh/site-functions/_verneuilctl", "share/fish/vendor_completions.d/verneuilctl.fish",
            "lib/systemd/system/verneuil-flush@.service",
        ] { #expect(files.contains(file), "\(file)") }
        #expect(!files.contains { $0.hasSuffix(".new") })
        let unit = String(decoding: try here.bytes("opt/verneuil/lib/systemd/system/verneuil-flush@.service"), as: UTF8.self)
        #expect(unit.contains("ExecStart=\(prefix)/bin/verneuilctl flush --watch") && !unit.contains("@prefix@"))

        // No Swift runtime is needed, nor named.
        for file in ["bin/verneuilctl", "lib/libverneuil_vfs.so"] {
            let libraries = try Program.run(["ldd", "\(prefix)/\(file)"]).text
            #expect(!libraries.contains("swift") && !libraries.contains("Foundation") && !libraries.contains("not found"), "\(libraries)")
            // Where else to look for libraries: nowhere, or beside itself.
            for line in try Program.run(["readelf", "-d", "\(prefix)/\(file)"]).text.split(separator: "\n") where line.contains("PATH)") {
                #expect(line.hasSuffix("[$ORIGIN]"), "\(line)")
            }
        }
        // The tool finds the extension where it was installed.
        #expect(try here.sqlite("app.db", "CREATE TABLE t(x)", "INSERT INTO t VALUES (42)").status == 0)
        let tool = "\(prefix)/bin/verneuilctl", config = ["VERNEUIL_CONFIG": here.configuration()]
        #expect(try Program.run([tool, "sync", "app.db"], environment: config, directory: here.path).status == 0)
        let shell = try Program.run(
            [tool, "shell", "--source-path", "app.db", "--", "SELECT x FROM t"], environment: config, directory: here.path)
        #expect(shell.status == 0 && shell.text == "42", "\(shell)")

        try script("install", "--uninstall", "--prefix", prefix)
        #expect(here.files("opt") == before)
        #expect(try FileManager.default.contentsOfDirectory(atPath: prefix) == ["lib"])
        #expect(try FileManager.default.contentsOfDirectory(atPath: "\(prefix)/lib") == ["other"])
    }

    /// The short form; scripts/try-deb installs it on a fresh Debian.
    @Test func theDebianPackageNeedsNoSwift() throws {
        let made = try script(
            "package-deb", "--skip-build", "--output", here.path, environment: ["VERNEUIL_DEB_COMPRESSION": "none"])
        let deb = made.text
        #expect(deb.hasPrefix(here.path) && deb.hasSuffix(".deb"))
        let contents = try Program.run(["dpkg-deb", "-c", deb]).text
        for line in contents.split(separator: "\n") {
            #expect(line.contains("root/root") && !line.contains("share/verneuil"), "\(line)")
        }
        for file in ["./usr/bin/verneuilctl", "./usr/lib/libverneuil_vfs.so", "./usr/share/man/man1/verneuilctl.1.gz"] {
            #expect(contents.contains(file), "\(file)")
        }
        let depends = try Program.run(["dpkg-deb", "-f", deb, "Depends"]).text
        #expect(depends.contains("libsqlite3-0") && depends.contains("libc6") && !depends.contains("swift"), "\(depends)")
        #expect(try Program.run(["dpkg-deb", "-x", deb, here.file("tree")]).status == 0)
        let version = try Program.run([here.file("tree/usr/bin/verneuilctl"), "--version"])
        #expect(version.status == 0 && deb.contains("_\(version.text)_"), "\(version)")
    }
}
