// Running a command: environ and posix_spawn's types differ between systems in
// ways that Swift sees.
#ifndef VRN_PROCESS_H
#define VRN_PROCESS_H
#include "vrn_system.h"
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

extern char **environ;

/// Starts "/bin/sh -c command" in a process group of its own, with signals as
/// a fresh process has them, nothing on standard input, and standard error
/// dropped. *out reads its standard output. Its pid, or -errno.
static inline pid_t vrn_spawn_shell(const char *command, int *out) {
  int ends[2];
#ifdef __linux__
  if (pipe2(ends, O_CLOEXEC) < 0)
    return -errno;
#else
  if (pipe(ends) < 0)
    return -errno;
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
#endif

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_init(&attributes);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);

  pid_t pid;
  char *const arguments[] = {(char *)"sh", (char *)"-c", (char *)command, 0};
  int code = posix_spawn(&pid, "/bin/sh", &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  close(ends[1]);
  if (code != 0) {
    close(ends[0]);
    return -code;
  }
  *out = ends[0];
  return pid;
}

static inline int vrn_poll(struct pollfd *one, int milliseconds) {
  int r;
  vrn_gate_leave();
  do {
    r = poll(one, 1, milliseconds);
  } while (r < 0 && errno == EINTR);
  vrn_gate_enter();
  return r < 0 ? -errno : r;
}

static inline pid_t vrn_waitpid(pid_t pid, int *status) {
  pid_t r;
  vrn_gate_leave();
  do {
    r = waitpid(pid, status, 0);
  } while (r < 0 && errno == EINTR);
  vrn_gate_enter();
  return r < 0 ? -errno : r;
}

/// Whether whoever started this process wants the signal ignored, as nohup(1) does with SIGHUP.
static inline int vrn_signal_is_ignored(int signal) {
  struct sigaction action;
  return sigaction(signal, 0, &action) == 0 && action.sa_handler == SIG_IGN;
}

/// A signal of the set, which must be blocked, or -errno: -EAGAIN where none came in that time.
static inline int vrn_sigtimedwait(const sigset_t *set, const struct timespec *time) {
#ifdef __linux__
  int r = sigtimedwait(set, 0, time);
  return r < 0 ? -errno : r;
#else
  sigset_t pending;
  nanosleep(time, 0);
  for (int s = 1; s < NSIG && sigpending(&pending) == 0; s++)
    if (sigismember(&pending, s) == 1 && sigismember(set, s) == 1)
      return s;
  return -EAGAIN;
#endif
}

/// One datagram to a Unix socket; a path that begins with '@' is in Linux's abstract name space. 0 or -errno.
static inline int vrn_send_datagram(const void *path, size_t n, const void *bytes, size_t count) {
  struct sockaddr_un to;
  memset(&to, 0, sizeof to);
  to.sun_family = AF_UNIX;
  if (n == 0 || n >= sizeof to.sun_path)
    return -ENAMETOOLONG;
  memcpy(to.sun_path, path, n);
  if (to.sun_path[0] == '@')
    to.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  if (fd < 0)
    return -errno;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  ssize_t r = sendto(fd, bytes, count, 0, (struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
  int code = r < 0 ? -errno : 0;
  close(fd);
  return code;
}

/// A directory's file system: its magic number (statfs(2)) where the system has those, and the bytes that this user may fill. 0 or -errno.
static inline int vrn_file_system(const char *path, uint64_t *magic, int64_t *free_bytes) {
#ifdef __linux__
  struct statfs s;
  if (statfs(path, &s) < 0)
    return -errno;
  *magic = (uint64_t)s.f_type & 0xFFFFFFFF;
  *free_bytes = (int64_t)s.f_bavail * (int64_t)s.f_bsize;
#else
  struct statvfs s;
  if (statvfs(path, &s) < 0)
    return -errno;
  *magic = 0;
  *free_bytes = (int64_t)s.f_bavail * (int64_t)s.f_frsize;
#endif
  return 0;
}

#endif
