import CVerneuil

/// A system call that failed: which, on what, and why.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call's name, such as "open".
    public var operation: String
    /// The file it was about; empty where there is none.
    public var path: String
    /// The value of errno.
    public var code: Int32

    public init(_ operation: String, _ path: String, _ code: Int32) {
        self.operation = operation
        self.path = path
        self.code = code
    }

    public var description: String {
        // What to do about it is the same everywhere; about others it is up to who was at work.
        let reason = String(cString: strerror(code)) + (code == ENOSPC || code == EDQUOT ? "; free some space there" : "")
        return path.isEmpty ? "\(operation): \(reason)" : "\(operation) \(path): \(reason)"
    }

    /// Throws where `result`, from a `vrn_` function, is negative.
    @inlinable @discardableResult
    public static func check<T: SignedInteger>(
        _ result: T, _ operation: @autoclosure () -> String, _ path: @autoclosure () -> String
    ) throws(SystemError) -> T {
        if result < 0 { throw SystemError(operation(), path(), Int32(-result)) }
        return result
    }
}
