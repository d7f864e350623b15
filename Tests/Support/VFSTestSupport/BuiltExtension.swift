import CVerneuil
import VerneuilSystem

/// The loadable extension, as built.
public enum BuiltExtension {
    /// VERNEUIL_EXTENSION, or the one beside the tests.
    public static func path() throws -> String {
        if let path = getenv("VERNEUIL_EXTENSION") { return String(cString: path) }
        var candidates: [String] = []
        if let directory = getenv("VERNEUIL_TEST_BINARIES") { candidates.append(String(cString: directory)) }
        candidates += CommandLine.arguments.map { Files.directory(of: $0) }
        for directory in candidates {
            let path = "\(directory)/libverneuil_vfs.so"
            if vrn_access(path, R_OK) == 0 { return path }
        }
        throw SystemError("find libverneuil_vfs.so (or set VERNEUIL_EXTENSION)", candidates.joined(separator: ":"), ENOENT)
    }
}
