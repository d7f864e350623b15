import VerneuilSystem

/// Runs what waits for disks and networks on a thread of its own: a blocked
/// thread of Swift concurrency's pool is one that all other tasks lack.
func onThreadOfItsOwn<Value: Sendable, Failure: Error>(
    _ name: String, _ work: @escaping @Sendable () throws(Failure) -> Value
) async throws(Failure) -> Value {
    let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
        let run: @Sendable () -> Void = {
            continuation.resume(returning: Result { () throws(Failure) in try work() })
        }
        // Where no thread can be had, slowly is better than not at all.
        do throws(SystemError) { try Threads.spawn(name, run) } catch { run() }
    }
    return try result.get()
}
