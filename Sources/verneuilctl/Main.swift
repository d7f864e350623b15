import CVerneuil
import ArgumentParser
import VerneuilCore
import VerneuilFormat
import VerneuilReplica
import VerneuilStore
import VerneuilSystem

/// Exit statuses (docs/VERNEUILCTL.md): 0, 1 where the work failed, 2 where the command line is wrong.
@main
enum Main {
    static func main() {
        do {
            var command = try Verneuilctl.parseAsRoot()
            if let tool = command as? any Tool {
                try tool.perform(Context(tool.global.over(tool.root.global)))
            } else if command is Verneuilctl {
                // No command at all.
                Terminal.write(Verneuilctl.helpMessage() + "\n", to: STDERR_FILENO)
                exit(2)
            } else {
                try command.run()
            }
        } catch let code as ExitCode {
            exit(code.rawValue)
        } catch let error where error is any WorkError {
            Terminal.complain("\(error)")
            exit(1)
        } catch {
            // Help, the version, completion scripts: wanted, so on standard output.
            if Verneuilctl.exitCode(for: error) != .success {
                Terminal.complain(UsageError.describe(error))
                exit(2)
            }
            let message = Verneuilctl.fullMessage(for: error)
            if !message.isEmpty { Terminal.write(message + "\n", to: STDOUT_FILENO) }
            exit(0)
        }
    }
}

/// An error of the work, not of the command line; describes itself in one or two lines.
protocol WorkError: Error {}

/// What went wrong and what to do.
struct Failure: WorkError, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

extension ConfigurationError: WorkError {}
extension ReplicaError: WorkError {}
extension StoreError: WorkError {}
extension SystemError: WorkError {}
extension FormatError: WorkError {}
