// What tests of replicas need and Swift can't call: fork(2), variadic functions.
#ifndef REPLICA_TEST_H
#define REPLICA_TEST_H

/// Sends SQLite's error log to standard output. Before SQLite's first use.
int replica_test_log_to_stdout(void);
/// Runs `child` in a forked child, which exits with its answer; answers the
/// exit status, or 128 + the signal that ended it, or -1 after `seconds`.
int replica_test_fork(int (*child)(void *), void *context, int seconds);
/// Files beyond `bytes` can't be written, with an error and not a signal.
int replica_test_limit_file_size(long bytes);

#endif
