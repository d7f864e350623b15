import CVerneuil
import ArgumentParser
import VerneuilSystem

/// Exit statuses (SYSTEM 8): 0, 1 where the work failed, 2 where the command line is wrong.
@main
enum Main {
    static func main() {
        do {
            var command = try Verneuilctl.parseAsRoot()
            if let tool = command as? any Tool {
                try tool.perform(try Context(tool.global.over(tool.root.global)))
            } else if command is Verneuilctl {
                // No command at all.
                Terminal.write(Verneuilctl.helpMessage() + "\n", to: STDERR_FILENO)
                exit(2)
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            Terminal.complain(failure.description)
            exit(1)
        } catch {
            // Help, the version, completion scripts: wanted, so on standard output.
            let isUsage = Verneuilctl.exitCode(for: error) != .success
            let message = Verneuilctl.fullMessage(for: error)
            if !message.isEmpty { Terminal.write(message + "\n", to: isUsage ? STDERR_FILENO : STDOUT_FILENO) }
            exit(isUsage ? 2 : 0)
        }
    }
}

/// What went wrong and what to do, in one or two lines.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
