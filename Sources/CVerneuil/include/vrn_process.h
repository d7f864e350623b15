// Running a command: environ and posix_spawn's types differ between systems in
// ways that Swift sees.
#ifndef VRN_PROCESS_H
#define VRN_PROCESS_H
#include "vrn_system.h"
#include <poll.h>
#include <spawn.h>

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
  do {
    r = poll(one, 1, milliseconds);
  } while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : r;
}

static inline pid_t vrn_waitpid(pid_t pid, int *status) {
  pid_t r;
  do {
    r = waitpid(pid, status, 0);
  } while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : r;
}

#endif
