import VerneuilFormat
import VerneuilSystem

/// Who wrote a manifest: stands in its `generated_by`, behind the program's name.
///
///     verneuil-swift 0.1 (machine 8d3f0c6b1a2e4f50, file 51c07aa9e2b4d631)
///
/// Both are hashes. `machine` is of the installation's id (machine-id(5)) and
/// the same after a reboot; `file` is of the boot and the database's device and
/// inode: who has the same is on the same machine, now, with the same file.
struct WriterMark: Equatable {
    /// Empty where the machine has no id.
    var machine: String
    var file: String

    init(machine: String, file: String) {
        self.machine = machine
        self.file = file
    }

    init(_ identity: WriterIdentity, device: UInt64, inode: UInt64) {
        machine = identity.machine.isEmpty ? "" : Self.hash("machine \(identity.machine)")
        file = Self.hash("file \(identity.boot) \(device) \(inode)")
    }

    /// nil: the manifest is of another program, or says nothing.
    init?(generatedBy: String) {
        guard let start = generatedBy.lastIndex(of: "("), generatedBy.last == ")" else { return nil }
        var machine = ""
        var file: String?
        for part in generatedBy[generatedBy.index(after: start)...].dropLast().split(separator: ",") {
            let words = part.split(separator: " ")
            guard words.count == 2 else { continue }
            if words[0] == "machine" { machine = String(words[1]) }
            if words[0] == "file" { file = String(words[1]) }
        }
        guard let file else { return nil }
        self.init(machine: machine, file: file)
    }

    func generatedBy(_ program: String) -> String {
        "\(program) (" + (machine.isEmpty ? "" : "machine \(machine), ") + "file \(file))"
    }

    private static func hash(_ text: String) -> String {
        let digits = String(FingerprintKey.mangling.primary(Array(text.utf8)), radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }
}

/// What tells this machine from others that claim the same host name.
public struct WriterIdentity: Sendable, Hashable {
    /// Kept over reboots; empty: not known.
    public var machine: String
    /// Changes with each boot.
    public var boot: String

    public init(machine: String = Host.machineID(), boot: String = Host.bootID()) {
        self.machine = machine
        self.boot = boot
    }
}
