import CVerneuil
import VerneuilSystem

/// What a program prints: `credential_process` of the shared files.
struct ProcessCredentials: CredentialProvider {
    let command: String
    /// Seconds after which the program is ended.
    var timeout = 60.0

    var name: String { "credential_process" }

    func load(_ context: CredentialContext) throws(CredentialError) -> S3Credentials {
        let output: [UInt8]
        do throws(SystemError) { output = try run() } catch {
            throw .failed("can't run credential_process: \(error)")
        }
        // Nothing of the output goes into a message: it holds secrets.
        guard let document = JSON(output) else {
            throw .failed(
                "credential_process failed, or did not print a JSON object (\(output.count) bytes); run it by hand to see why")
        }
        guard case .number("1")? = document["Version"] else {
            throw .failed("credential_process printed JSON without \"Version\": 1")
        }
        return try S3Credentials(document, token: "SessionToken", source: "credential_process")
    }

    /// Standard output of the command, empty where its exit status is not 0.
    private func run() throws(SystemError) -> [UInt8] {
        var fd: Int32 = -1
        let pid = vrn_spawn_shell(command, &fd)
        try SystemError.check(pid, "posix_spawn", "/bin/sh")
        let output = Descriptor(owning: fd, path: "credential_process")
        let deadline = MonotonicTime.now.advanced(seconds: timeout)
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        var isOverdue = false
        while true {
            let left = deadline.seconds(since: .now)
            var poll = pollfd(fd: output.fd, events: Int16(POLLIN), revents: 0)
            let ready = left > 0 && bytes.count < 1 << 20 ? vrn_poll(&poll, Int32(left * 1000) + 1) : 0
            if ready == 0 {
                isOverdue = true
                break
            }
            try SystemError.check(ready, "poll", output.path)
            let count = buffer.withUnsafeMutableBytes { vrn_read(output.fd, $0.baseAddress, $0.count) }
            if try SystemError.check(count, "read", output.path) == 0 { break }
            bytes += buffer[..<count]
        }
        if isOverdue { kill(-pid, SIGKILL) }
        var status: Int32 = 0
        // A host that ignores SIGCHLD reaps for us: then the output has to speak for itself.
        let waited = vrn_waitpid(pid, &status)
        if isOverdue { throw SystemError("credential_process", command, ETIMEDOUT) }
        return waited == pid && status != 0 ? [] : bytes
    }
}

extension S3Credentials {
    /// From the JSON document that programs, containers and instances answer with.
    init(_ document: JSON, token: String, source: String) throws(CredentialError) {
        guard let id = document["AccessKeyId"]?.text, let secret = document["SecretAccessKey"]?.text, !id.isEmpty,
            !secret.isEmpty
        else { throw .failed("\(source): the answer has no AccessKeyId and SecretAccessKey") }
        var expiration: Int64?
        if let text = document["Expiration"]?.text {
            guard let time = CivilTime(iso8601: text) else {
                throw .failed("the answer's Expiration is not a time: \"\(text)\"")
            }
            expiration = time.epoch
        }
        self.init(
            accessKeyID: id, secretAccessKey: secret, sessionToken: document[token]?.text, expiration: expiration,
            source: source)
    }
}
