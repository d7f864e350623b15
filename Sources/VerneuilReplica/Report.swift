import Logging

/// What operators should hear of, beside the error that a caller gets.
enum Report {
    private static let logger = Logger(label: "verneuil.replica")

    static func warning(_ message: String) { logger.warning("\(message)") }
    static func info(_ message: String) { logger.info("\(message)") }
}
