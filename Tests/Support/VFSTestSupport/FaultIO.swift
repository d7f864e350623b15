import CVerneuil
import VerneuilSystem

/// The preloaded library that makes system calls fail (Tests/Support/faultio).
public enum FaultIO {
    /// Compiles it, or another file of Tests/Support, with `cc` into `directory`; its path, for LD_PRELOAD.
    public static func build(_ file: String = "faultio/faultio.c", in directory: String) throws -> String {
        let source = "\(Files.directory(of: Files.directory(of: #filePath)))/\(file)"
        let library = "\(directory)/preloaded.so"
        let result = try Processes.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"])
        guard result.status == 0 else { throw SystemError("cc: \(result.output)", source, EINVAL) }
        return library
    }

    public static let isLoaded = dlsym(nil, "faultio_configure") != nil

    /// How many calls the plan has matched so far.
    public static var count: Int {
        typealias Count = @convention(c) () -> Int
        guard let symbol = dlsym(nil, "faultio_count") else { return 0 }
        return unsafeBitCast(symbol, to: Count.self)()
    }

    /// In a process that has it preloaded: a new plan, see faultio.c. An empty one lets everything through.
    public static func configure(_ plan: String) {
        typealias Configure = @convention(c) (UnsafePointer<CChar>) -> Void
        guard let symbol = dlsym(nil, "faultio_configure") else { return }
        unsafeBitCast(symbol, to: Configure.self)(plan)
    }
}
