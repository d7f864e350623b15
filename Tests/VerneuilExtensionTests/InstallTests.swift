import Foundation
import ProductSupport
import TestServers
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

    /// Lines of docs/INSTALL.md that can be run.
    private static func documented() throws -> [String] {
        try Document("docs/INSTALL.md").blocks.filter { $0.info == "sh" && $0.reason == nil }.flatMap(\.lines)
    }

    @Test func theCommandsThatInstallAreRun() throws {
        let prefix = here.file("local")
        var scripts = 0
        for line in try Self.documented() where !line.hasPrefix("cc ") {
            #expect(line.hasPrefix("scripts/"), "\(line): who runs this?")
            scripts += 1
            let program = try Program.run(
                ["bash", "-euc", line.replacing("/usr/local", with: prefix)],
                environment: ["VERNEUIL_DIST": Self.dist.get().path, "VERNEUIL_DIST_READY": "1", "VERNEUIL_DEB_COMPRESSION": "none"],
                directory: Self.repository)
            #expect(program.status == 0, "\(line): \(program)")
            #expect(here.files("local").isEmpty != line.contains("--prefix") || line.contains("--uninstall"), "\(line): \(here.files("local"))")
        }
        #expect(scripts >= 3 && !here.exists("local"))
    }

    @Test func aCProgramLinksTheInstalledLibrary() throws {
        let prefix = here.file("usr")
        try script("install", "--prefix", prefix, "--skip-build")
        // As the documentation says.
        let command = try #require(Self.documented().first { $0.hasPrefix("cc ") })
        try here.write([UInt8](Data(contentsOf: URL(fileURLWithPath: "\(Self.repository)/Tests/Support/c-program/program.c"))), to: "program.c")
        let compiled = try Program.run(
            ["bash", "-euc", command.replacing("cc ", with: "cc -std=c11 -Wall -Wextra -Werror -g -fsanitize=address ", maxReplacements: 1)],
            environment: ["PKG_CONFIG_PATH": "\(prefix)/lib/pkgconfig"], directory: here.path)
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

    /// Never the service manager itself: its checker, where there is one, and then the command of the unit.
    @Test func theUnitIsWellFormedAndItsCommandUploadsUntilItIsStopped() throws {
        let prefix = here.file("usr")
        try script("install", "--prefix", prefix, "--skip-build")
        let unit = "\(prefix)/lib/systemd/system/verneuil-flush@.service"
        let lines = try String(contentsOfFile: unit, encoding: .utf8).components(separatedBy: "\n").filter { !$0.hasPrefix("#") && !$0.isEmpty }
        for line in lines { #expect(line.contains(/^(\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.+)$/), "\(line)") }
        func value(_ key: String) throws -> String {
            String(try #require(lines.first { $0.hasPrefix("\(key)=") }, "no \(key)").dropFirst(key.count + 1))
        }
        if try Program.run(["sh", "-c", "command -v systemd-analyze"]).status == 0 {
            try here.write([UInt8](Data(contentsOf: URL(fileURLWithPath: unit))), to: "unit/verneuil-flush@root.service")
            let checked = try Program.run(["timeout", "60", "systemd-analyze", "verify", "--man=no", here.file("unit/verneuil-flush@root.service")])
            // What it says about the machine's other units is none of ours.
            let ours = checked.errors.split(separator: "\n").filter { $0.contains("verneuil") }
            #expect(ours.isEmpty, "\(checked)")
        }

        // As systemd would: its variables, its words, its signal and its time.
        var environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("VERNEUIL_") }
        for assignment in try value("Environment").split(separator: " ") {
            let parts = assignment.split(separator: "=", maxSplits: 1)
            environment[String(parts[0])] = String(parts[1])
        }
        #expect(environment["VERNEUIL_CONFIG"] == "@/etc/verneuil.json" && environment["VERNEUIL_SPOOL"] == "/var/spool/verneuil")
        environment["VERNEUIL_CONFIG"] = here.configuration()
        environment["VERNEUIL_SPOOL"] = here.file("spool")
        let written = try here.extended(
            "file:app.db?vfs=verneuil", "CREATE TABLE t AS SELECT 42 AS x", config: "{\"replication_spooling_dir\": \"\(here.file("spool"))\"}")
        #expect(written.status == 0 && !here.exists("store"), "\(written)")
        let words = try value("ExecStart").split(separator: " ").map { $0 == "${VERNEUIL_SPOOL}" ? here.file("spool") : String($0) }
        #expect(words[0] == "\(prefix)/bin/verneuilctl" && words.contains("--watch"))
        let service = Process()
        service.executableURL = URL(fileURLWithPath: words[0])
        service.arguments = Array(words.dropFirst())
        service.environment = environment
        try service.run()
        let end = Date(timeIntervalSinceNow: 60)
        while here.files("store/manifests").isEmpty, Date() < end { usleep(20_000) }
        service.terminate()
        service.waitUntilExit()
        #expect(service.terminationReason == .exit && service.terminationStatus == 0)
        let restored = try here.verneuilctl("restore", "--source-path", "app.db", "--out", "restored.db")
        #expect(restored.status == 0, "\(restored)")
        #expect(try here.bytes("restored.db") == here.bytes("app.db"))
    }

    /// SwiftPM adds to its archive, and takes nothing out.
    @Test func theStaticLibraryIsMadeOfTheObjectsThatThereAreNow() throws {
        let build = try String(contentsOfFile: "\(Self.repository)/scripts/build", encoding: .utf8)
        #expect(!build.contains("$products/libverneuil_static.a"), "the archive of SwiftPM, with what was removed from the sources in it")
        let list = try String(contentsOfFile: "\(Self.repository)/.build/release/verneuil_static.product/Objects.LinkFileList", encoding: .utf8)
        #expect(build.contains("verneuil_static.product/Objects.LinkFileList") && list.split(separator: "\n").count > 100)
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
        // Links between documents lead to documents; sources are not installed.
        let documents = files.filter { $0.hasPrefix("share/doc/verneuil/") && $0.hasSuffix(".md") }
        #expect(documents.contains("share/doc/verneuil/README.md") && documents.contains("share/doc/verneuil/docs/RECOVERY.md"))
        for document in documents {
            let text = String(decoding: try here.bytes("opt/verneuil/\(document)"), as: UTF8.self)
            for link in text.matches(of: #/\]\(([^)#:\s]+(?:\.md|LICENSE))(#[^)]*)?\)/#) {
                let target = URL(fileURLWithPath: "\(prefix)/\(document)").deletingLastPathComponent().appendingPathComponent(String(link.output.1))
                #expect(FileManager.default.fileExists(atPath: target.path), "\(document): \(link.output.1)")
            }
        }
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

    /// README's first command, with what was built: all comparisons, and that each of them was made.
    @Test(arguments: [[], ["--s3"]]) func theDemonstrationHolds(options: [String]) throws {
        let port = SupervisedProcess.freePort(count: 2)
        let program = try Program.run(
            ["timeout", "300", "\(Self.repository)/scripts/demo"] + options,
            environment: ["VERNEUIL_DIST": Self.dist.get().path, "VERNEUIL_DIST_READY": "1", "TMPDIR": here.path, "PORT": "\(port)"])
        #expect(program.status == 0, "\(program)")
        let lines = program.text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
        #expect(lines.filter { $0.hasPrefix("same: ") }.count == 8 && !program.text.contains("DIFFERENT"), "\(program)")
        #expect(lines.contains { $0.hasPrefix("All comparisons held.") } && program.text.contains(options.isEmpty ? "the directory" : "an S3 server"), "\(program)")
    }

    /// While it writes: the writer ends with it, with whatever feeds it, and no file is left. That the writer takes so long is
    /// its input's doing.
    @Test(arguments: [SIGTERM, SIGINT]) func anInterruptedDemonstrationLeavesNothing(signal: Int32) throws {
        try here.write(
            Array(
                """
                #!/bin/bash
                case "$*" in
                  *"vfs=verneuil :memory:"*) { head -n 30; echo '.shell touch "$TMPDIR/writing"'; sleep 600; } | /usr/bin/sqlite3 "$@" ;;
                  *) exec /usr/bin/sqlite3 "$@" ;;
                esac

                """.utf8), to: "tools/sqlite3")
        #expect(chmod(here.file("tools/sqlite3"), 0o755) == 0)
        let temporary = here.file("tmp")
        try FileManager.default.createDirectory(atPath: temporary, withIntermediateDirectories: true)
        // As a terminal starts it: signals that this process blocks or ignores are inherited.
        let unblocked = """
            import os, signal, sys
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execv(sys.argv[1], sys.argv[1:])
            """
        let demonstration = Process()
        demonstration.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        demonstration.arguments = ["python3", "-c", unblocked, "\(Self.repository)/scripts/demo"]
        demonstration.environment = try ProcessInfo.processInfo.environment.merging([
            "VERNEUIL_DIST": Self.dist.get().path, "VERNEUIL_DIST_READY": "1", "TMPDIR": temporary,
            "PATH": "\(here.file("tools")):\(ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin")",
        ]) { $1 }
        demonstration.standardOutput = FileHandle.nullDevice
        try demonstration.run()
        let end = Date(timeIntervalSinceNow: 120)
        while !here.exists("tmp/writing"), demonstration.isRunning, Date() < end { usleep(20_000) }
        #expect(try here.exists("tmp/writing") && running(with: temporary) >= 4)
        kill(demonstration.processIdentifier, signal)
        demonstration.waitUntilExit()
        #expect(demonstration.terminationReason == .exit && demonstration.terminationStatus == 128 + signal)
        #expect(try FileManager.default.contentsOfDirectory(atPath: temporary) == ["writing"])
        // What is told to end may take a moment on a busy machine.
        let gone = Date(timeIntervalSinceNow: 60)
        while try running(with: temporary) > 0, Date() < gone { usleep(50_000) }
        #expect(try running(with: temporary) == 0)
    }

    /// Processes that have this in their environment, zombies not counted.
    private func running(with text: String) throws -> Int {
        try Program.run(["bash", "-c", "grep -lsaF -- \"$1\" /proc/[0-9]*/environ", "bash", text]).text.split(separator: "\n").count
    }

    /// A restored file that differs by one bit is no success.
    @Test func theDemonstrationFailsWhereAComparisonDoes() throws {
        let real = try Self.dist.get(), dist = here.file("dist")
        try FileManager.default.createDirectory(atPath: dist, withIntermediateDirectories: true)
        try FileManager.default.createSymbolicLink(atPath: "\(dist)/libverneuil_vfs.so", withDestinationPath: real.file("libverneuil_vfs.so"))
        try here.write(
            Array("#!/bin/bash\n'\(real.file("verneuilctl"))' \"$@\" || exit\nprintf x | dd of=\"${@: -1}\" bs=1 seek=5000 conv=notrunc status=none\n".utf8),
            to: "dist/verneuilctl")
        #expect(chmod("\(dist)/verneuilctl", 0o755) == 0)
        let program = try Program.run(
            ["timeout", "300", "\(Self.repository)/scripts/demo"],
            environment: ["VERNEUIL_DIST": dist, "VERNEUIL_DIST_READY": "1", "TMPDIR": here.path])
        #expect(program.status == 1 && program.text.contains("DIFFERENT") && program.text.contains("The comparisons above differ."), "\(program)")
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
