import CVerneuil

/// systemd's protocol for services that say when they are ready (sd_notify(3)): a datagram.
enum ServiceManager {
    /// Does nothing where no service manager asks for it.
    static func notify(_ state: String) {
        guard let path = getenv("NOTIFY_SOCKET").map({ Array(String(cString: $0).utf8) }), path.count > 1 else { return }
        _ = path.withUnsafeBytes { path in
            state.withCString { vrn_send_datagram(path.baseAddress, path.count, $0, strlen($0)) }
        }
    }
}
