// Processes for tests: posix_spawn and the environment are awkward to reach from
// Swift without Foundation.
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H
// No system header: CVerneuil's are read with _GNU_SOURCE, and a module that reads them without doesn't go with it.

/// Starts `arguments[0]` (looked for in PATH), with `extra` ("NAME=VALUE") added to or replacing what is in this
/// process's environment. Its standard input and output are `in` and `out`, and its standard error too where
/// `errors` says so; -1: this process's. The process id, or -errno.
int test_spawn(const char *const arguments[], const char *const extra[], int in, int out, int errors);

/// waitpid: until the process has ended; its status.
int test_wait(int pid);

/// A pipe, closed on exec: 0 or -errno.
int test_pipe(int ends[2]);

/// Writing to a process that is gone is an error, not the end of this one.
void test_ignore_sigpipe(void);
#endif
