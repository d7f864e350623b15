import CVerneuil
import VerneuilReplication

// SQLite sets `locking_mode` for all databases of a connection, those attached
// later included, but tells the main database's file alone. So each file knows its
// connection (SQLITE_FCNTL_PDB), and with that the others of it. All of them
// are used by one thread at a time: the connection's.

/// `file` belongs to `connection`, and has the locking mode that others of it have.
func join(_ file: UnsafeMutablePointer<vrn_file>, _ connection: OpaquePointer?) {
    var isExclusive = false
    visit(connection) { tracker in isExclusive = isExclusive || tracker.isExclusive }
    vrn_file_set_connection(file, UnsafeMutableRawPointer(connection))
    if isExclusive { withTracker(file) { $0.willSetLockingMode(exclusive: true) } }
}

/// `PRAGMA locking_mode` was given to `file`.
func setLockingMode(_ file: UnsafeMutablePointer<vrn_file>, exclusive: Bool) {
    withTracker(file) { $0.willSetLockingMode(exclusive: exclusive) }
    // Of a single database, too: which of the two it is can't be told, and needn't be.
    visit(OpaquePointer(file.pointee.connection)) { $0.willSetLockingMode(exclusive: exclusive) }
}

private func visit(_ connection: OpaquePointer?, _ body: (Tracker) -> Void) {
    guard let connection else { return }
    withoutActuallyEscaping(body) { body in
        withUnsafePointer(to: body) { context in
            vrn_file_visit(UnsafeRawPointer(connection), { file, context in
                guard let file, let context, file.pointee.tracker != nil else { return }
                let body = context.assumingMemoryBound(to: ((Tracker) -> Void).self).pointee
                withTracker(file, body)
            }, UnsafeMutableRawPointer(mutating: context))
        }
    }
}
