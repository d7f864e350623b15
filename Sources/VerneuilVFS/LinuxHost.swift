import CVerneuil

// What SQLite asks of its host beside files: extensions, randomness, time.

@c
package func verneuil_linux_vfs_xDlOpen(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ path: UnsafePointer<CChar>?
) -> UnsafeMutableRawPointer? {
    dlopen(path, RTLD_NOW | RTLD_GLOBAL)
}

@c
package func verneuil_linux_vfs_xDlError(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ size: Int32, _ out: UnsafeMutablePointer<CChar>?
) {
    guard let out, size > 0 else { return }
    guard let message = dlerror() else {
        out[0] = 0
        return
    }
    let count = min(strlen(message), Int(size) - 1)
    memcpy(out, message, count)
    out[count] = 0
}

package typealias DynamicSymbol = @convention(c) () -> Void

@c
package func verneuil_linux_vfs_xDlSym(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ library: UnsafeMutableRawPointer?, _ name: UnsafePointer<CChar>?
) -> DynamicSymbol? {
    guard let name else { return nil }
    return unsafeBitCast(dlsym(library, name), to: DynamicSymbol?.self)
}

@c
package func verneuil_linux_vfs_xDlClose(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ library: UnsafeMutableRawPointer?
) {
    if let library { dlclose(library) }
}

/// Fills `out` with random bytes, with which SQLite seeds its own generator.
/// Never waits: early at boot, before the kernel has collected enough, they
/// come from /dev/urandom as in the unix VFS.
@c
package func verneuil_linux_vfs_xRandomness(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ count: Int32, _ out: UnsafeMutablePointer<CChar>?
) -> Int32 {
    guard let out, count > 0 else { return 0 }
    let bytes = UnsafeMutableRawBufferPointer(start: out, count: Int(count))
    if vrn_random_now(bytes.baseAddress, bytes.count) == bytes.count { return count }
    let fd = vrn_open("/dev/urandom", O_RDONLY, 0)
    if fd >= 0 {
        let got = vrn_read(fd, bytes.baseAddress, bytes.count)
        _ = vrn_close(fd)
        if got == bytes.count { return count }
    }
    // No randomness to be had (a chroot without /dev, no free descriptor): something
    // that differs between processes and calls is all that SQLite needs then.
    var seed = timespec()
    clock_gettime(CLOCK_REALTIME, &seed)
    var state = UInt64(bitPattern: Int64(seed.tv_sec)) &* 1_000_000_007 &+ UInt64(seed.tv_nsec)
    state ^= UInt64(getpid()) << 32 ^ UInt64(UInt(bitPattern: out))
    for i in bytes.indices {
        // SplitMix64
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ state >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        bytes[i] = UInt8(truncatingIfNeeded: mixed ^ mixed >> 31)
    }
    return count
}

/// Sleeps for at least so many microseconds; answers how many.
@c
package func verneuil_linux_vfs_xSleep(_ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ microseconds: Int32) -> Int32 {
    sleepMicroseconds(Int64(microseconds))
    return microseconds
}

/// A signal's handler runs, and the sleep goes on.
func sleepMicroseconds(_ count: Int64) {
    guard count > 0 else { return }
    var left = timespec(tv_sec: Int(count / 1_000_000), tv_nsec: Int(count % 1_000_000) * 1000)
    withUnsafeMutablePointer(to: &left) { while nanosleep($0, $0) < 0, vrn_errno() == EINTR {} }
}

/// The time in milliseconds of the Julian calendar: since noon, 24 November 4714 BC.
@c
package func verneuil_linux_vfs_xCurrentTimeInt64(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ time: UnsafeMutablePointer<sqlite3_int64>?
) -> Int32 {
    // 1970 began on day 2,440,587.5 of that calendar.
    let unixEpoch: Int64 = 24_405_875 * 8_640_000
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    time.unsafelyUnwrapped.pointee = unixEpoch + Int64(now.tv_sec) * 1000 + Int64(now.tv_nsec) / 1_000_000
    return SQLITE_OK
}

/// The same in days.
@c
package func verneuil_linux_vfs_xCurrentTime(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ time: UnsafeMutablePointer<Double>?
) -> Int32 {
    var milliseconds: sqlite3_int64 = 0
    let result = verneuil_linux_vfs_xCurrentTimeInt64(vfs, &milliseconds)
    time.unsafelyUnwrapped.pointee = Double(milliseconds) / 86_400_000
    return result
}

/// errno of the call that failed last in this thread, for sqlite3_system_errno().
@c
package func verneuil_linux_vfs_xGetLastError(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ size: Int32, _ out: UnsafeMutablePointer<CChar>?
) -> Int32 {
    vrn_errno()
}

// System calls that a test could replace: there are none. The methods exist because
// programs call them in a VFS of version 3 without looking whether they are there.

@c
package func verneuil_linux_vfs_xSetSystemCall(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ name: UnsafePointer<CChar>?, _ call: sqlite3_syscall_ptr?
) -> Int32 {
    name == nil ? SQLITE_OK : SQLITE_NOTFOUND
}

@c
package func verneuil_linux_vfs_xGetSystemCall(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ name: UnsafePointer<CChar>?
) -> sqlite3_syscall_ptr? { nil }

@c
package func verneuil_linux_vfs_xNextSystemCall(
    _ vfs: UnsafeMutablePointer<sqlite3_vfs>?, _ name: UnsafePointer<CChar>?
) -> UnsafePointer<CChar>? { nil }
