// A process that opens databases on behalf of a test, one command a line: words
// separated by tabs, an answer of words separated by tabs.
//
//   open ID VFS PATH FLAGS      CODE OUT-FLAGS       a file, through a VFS alone; no PATH: a temporary one
//   lock|unlock ID LEVEL        CODE LEVEL
//   reserved ID                 CODE 0|1
//   timeout ID MILLISECONDS     CODE
//   close ID                    CODE
//   sql-open ID VFS NAME FLAGS  CODE                 a connection
//   sql ID STATEMENTS           CODE ROW...
//   sql-timeout ID MILLISECONDS -
//   sql-close ID                CODE
//   descriptors PREFIX          COUNT                descriptors of files below a path
//   chdir PATH                  -
//   faults PLAN                 -                    of faultio, where it is preloaded
//   replicate SPOOL             CODE                 the VFS `verneuil`, replicating: see ReplicationInstallation
//   workload VFS DIRECTORY PLAN OUTCOME...           see FaultWorkload
//   list PATH                   NAME... or error and its text
//   store-prepare PATH          - or error           a directory store
//   store-put PATH KEY TAG      TAG or error         a manifest there; an empty TAG: without a condition
import CSQLite
import CVerneuil
import VFSTestSupport
import VerneuilStore
import VerneuilSystem

struct Tool {
    private var files: [String: RawFile] = [:]
    private var connections: [String: Connection] = [:]

    mutating func run(_ words: [String]) -> [String] {
        let id = words.count > 1 ? words[1] : ""
        switch (words[0], words.count) {
        case ("open", 5):
            do {
                let file = try RawFile(vfs: words[2], path: words[3].isEmpty ? nil : words[3], flags: Int32(words[4]) ?? 0)
                files[id] = file
                return ["0", "\(file.outFlags)"]
            } catch {
                return ["\(error.code)", "0"]
            }
        case ("lock", 3):
            guard let file = files[id], let level = Int32(words[2]) else { break }
            return ["\(file.lock(level))", "\(file.level)"]
        case ("unlock", 3):
            guard let file = files[id], let level = Int32(words[2]) else { break }
            return ["\(file.unlock(level))", "\(file.level)"]
        case ("reserved", 2):
            guard let file = files[id] else { break }
            let (code, reserved) = file.checkReserved()
            return ["\(code)", reserved ? "1" : "0"]
        case ("timeout", 3):
            guard let file = files[id], var value = Int32(words[2]) else { break }
            return ["\(file.control(SQLITE_FCNTL_LOCK_TIMEOUT, value: &value))"]
        case ("close", 2):
            guard let file = files.removeValue(forKey: id) else { break }
            return ["\(file.close())"]
        case ("sql-open", 5):
            let connection = Connection(words[3], vfs: words[2], flags: Int32(words[4]) ?? 0)
            connections[id] = connection
            return ["\(connection.openCode)"]
        case ("sql", 3):
            guard let connection = connections[id] else { break }
            let outcome = connection.execute(words[2])
            return ["\(outcome.code)"] + outcome.rows
        case ("sql-timeout", 3):
            guard let connection = connections[id], let value = Int32(words[2]) else { break }
            connection.setBusyTimeout(milliseconds: value)
            return ["-"]
        case ("sql-close", 2):
            guard let connection = connections.removeValue(forKey: id) else { break }
            return ["\(connection.close())"]
        case ("descriptors", 2):
            return ["\(openDescriptors(under: id).count)"]
        case ("chdir", 2):
            return [chdir(id) == 0 ? "-" : "failed"]
        case ("faults", 2):
            FaultIO.configure(id)
            return ["-"]
        case ("replicate", 2):
            return ["\(ReplicationInstallation.install(spool: id))"]
        case ("workload", 4):
            return FaultWorkload.run(vfs: id, in: words[2], plan: words[3])
        case ("list", 2):
            do throws(SystemError) { return try Files.list(id) } catch { return ["error", "\(error)"] }
        case ("store-prepare", 2):
            do throws(StoreError) { try DirectoryStore(path: id).prepare() } catch { return ["error", "\(error)"] }
            return ["-"]
        case ("store-put", 4):
            let condition = words[3].isEmpty ? PutCondition.always : .ifTag(words[3])
            do throws(StoreError) {
                return [try DirectoryStore(path: id).put(PutRequest(.manifests, words[2], [1, 2, 3], condition: condition))]
            } catch {
                return ["error", "\(error)"]
            }
        default: break
        }
        return ["what?"] + words
    }
}

precondition(LinuxVFSInstallation.isDone)
var tool = Tool()
while let line = readLine() {
    let words = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    let answer = Array((tool.run(words).joined(separator: "\t") + "\n").utf8)
    if vrn_write(1, answer, answer.count) != answer.count { break }
}
