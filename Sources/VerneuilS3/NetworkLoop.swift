import CVerneuil
import NIOCore
import NIOPosix
import Synchronization
import VerneuilSystem

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#else
import Darwin
#endif

/// The event loop on which all stores of a process do their network I/O: one
/// thread, started on first use and kept until the process ends.
///
/// It lives inside other people's processes, therefore:
/// - Signals are blocked on its thread: the host's handlers never run there.
/// - SwiftNIO sets SIGPIPE to ignored for the whole process when it makes its
///   first socket. That is provoked here, and the host's disposition restored.
///   Writes to a broken connection then leave a SIGPIPE pending on our thread,
///   where it is blocked for good. (`keepsSIGPIPEIgnored` switches this off.)
/// - SwiftNIO ends the process where it can't make its thread or descriptors.
///   Both are tried first, so that scarcity is an error like any other.
/// - A child of fork(2) gets its own: see ProcessLocal. While the process forks,
///   the thread stands still (vrn_fork.c).
final class NetworkLoop: Sendable {
    private static let shared = ProcessLocal<NetworkLoop>()

    static var current: any EventLoop {
        get throws(SystemError) { try shared.value(NetworkLoop.init).loop }
    }

    private let group: MultiThreadedEventLoopGroup
    private let loop: any EventLoop

    private init() throws(SystemError) {
        try Self.tryDescriptors()
        try Threads.spawn("vrn-probe") {}

        var all = sigset_t()
        var mask = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &mask)
        defer { pthread_sigmask(SIG_SETMASK, &mask, nil) }

        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        loop = group.next()
        loop.execute { vrn_gate_join() }
        vrn_gate_set_caller { NetworkLoop.passGate() }

        var disposition = sigaction()
        sigaction(SIGPIPE, nil, &disposition)
        var pair: [Int32] = [-1, -1]
        #if os(Linux)
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        #else
        let kind = SOCK_STREAM
        #endif
        try SystemError.check(socketpair(AF_UNIX, kind, 0, &pair) < 0 ? -vrn_errno() : 0, "socketpair", "")
        let channel = try? ClientBootstrap(group: group).withConnectedSocket(pair[0]).wait()
        if let channel { try? channel.close().wait() } else { _ = vrn_close(pair[0]) }
        _ = vrn_close(pair[1])
        if !S3Process.keepsSIGPIPEIgnored { sigaction(SIGPIPE, &disposition, nil) }
    }

    /// The thread waits for the network in NIO's code, which knows of no gate: it is woken to pass through.
    private static func passGate() {
        shared.existing?.loop.execute {
            vrn_gate_leave()
            vrn_gate_enter()
        }
    }

    /// Fails where a few descriptors can't be had. Descriptors 0 to 2 that the
    /// host has closed are filled with /dev/null, as SQLite does: a stray
    /// printf must not end up in a connection.
    private static func tryDescriptors() throws(SystemError) {
        var opened: [Int32] = []
        defer { for fd in opened { _ = vrn_close(fd) } }
        while opened.count < 8 {
            // The lowest free one, which vrn_open would avoid.
            let fd = open("/dev/null", O_RDWR | O_CLOEXEC)
            try SystemError.check(fd < 0 ? -vrn_errno() : fd, "open", "/dev/null")
            if fd > 2 { opened.append(fd) }
        }
    }
}

/// What the S3 client does to the process that it lives in.
public enum S3Process {
    private static let flag = Atomic<Bool>(false)

    /// Whether SIGPIPE stays ignored once the client has started, as SwiftNIO
    /// leaves it. For programs that use the same copy of SwiftNIO themselves,
    /// whose own threads need that; false by default, which suits hosts that
    /// know nothing of SwiftNIO. Set it before the first operation of a store.
    public static var keepsSIGPIPEIgnored: Bool {
        get { flag.load(ordering: .relaxed) }
        set { flag.store(newValue, ordering: .relaxed) }
    }
}
