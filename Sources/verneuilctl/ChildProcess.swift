#if canImport(Glibc)
import Glibc
#elseif canImport(Darwin)
import Darwin
#endif

enum ChildProcess {
    /// Runs a program to its end: its exit status, or 128 and the signal's number.
    static func run(_ words: [String]) throws -> Int32 {
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        arguments.append(nil)
        defer { for argument in arguments { free(argument) } }
        var pid = pid_t()
        let failure = posix_spawnp(&pid, words[0], nil, nil, arguments, environ)
        if failure != 0 { throw Failure("can't run \(words[0]): \(String(cString: strerror(failure)))") }
        // Interrupts are meant for the shell, which gets them as well.
        signal(SIGINT, SIG_IGN)
        signal(SIGQUIT, SIG_IGN)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 {
            if errno != EINTR { throw Failure("waiting for \(words[0]): \(String(cString: strerror(errno)))") }
        }
        let signalNumber = status & 0x7F
        return signalNumber == 0 ? (status >> 8) & 0xFF : 128 + signalNumber
    }
}
