// A line of the log, on the standard error of a process that isn't ours, at times in the middle of a commit of its: a reader
// that is gone must not kill it (SIGPIPE), and one that doesn't read must not stop it. What can't be written at once is dropped.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "vrn_log.h"
#include "vrn_system.h"
#include <poll.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static unsigned dropped;

unsigned vrn_log_take_dropped(void) { return __atomic_exchange_n(&dropped, 0, __ATOMIC_RELAXED); }

/// Without waiting; -1 and EAGAIN where that can't be.
static ssize_t write_now(const void *line, size_t n) {
  struct pollfd end = {.fd = STDERR_FILENO, .events = POLLOUT};
  // A socket, as services have (systemd). For others this is an error that has no consequence.
  ssize_t r = send(STDERR_FILENO, line, n, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (r >= 0 || errno != ENOTSOCK)
    return r;
  // A pipe that is ready takes PIPE_BUF bytes; files always are.
  errno = EAGAIN;
  if (poll(&end, 1, 0) != 1 || !(end.revents & POLLOUT))
    return -1;
#ifdef RWF_NOWAIT
  // Somebody else may have filled it since.
  struct stat st;
  if (fstat(STDERR_FILENO, &st) == 0 && S_ISFIFO(st.st_mode)) {
    struct iovec all = {.iov_base = (void *)line, .iov_len = n};
    r = pwritev2(STDERR_FILENO, &all, 1, -1, RWF_NOWAIT);
    if (r >= 0 || errno != EOPNOTSUPP)
      return r;
  }
#endif
  return write(STDERR_FILENO, line, n);
}

void vrn_log_write(const void *line, size_t n, unsigned reported) {
  int e = errno;
  sigset_t pipe, old, pending;
  ssize_t r;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  sigemptyset(&pending);
  sigpending(&pending);
  if (pthread_sigmask(SIG_BLOCK, &pipe, &old) != 0)
    return;
  r = write_now(line, n);
  if (r < 0) {
    if (errno == EPIPE && !sigismember(&pending, SIGPIPE)) {
      // This thread's, by what it wrote just now.
#ifdef __linux__
      struct timespec none = {0, 0};
      while (sigtimedwait(&pipe, 0, &none) < 0 && errno == EINTR) {
      }
#else
      int signal;
      sigpending(&pending);
      if (sigismember(&pending, SIGPIPE))
        sigwait(&pipe, &signal);
#endif
    }
    __atomic_add_fetch(&dropped, reported + 1, __ATOMIC_RELAXED);
  }
  pthread_sigmask(SIG_SETMASK, &old, 0);
  errno = e;
}
