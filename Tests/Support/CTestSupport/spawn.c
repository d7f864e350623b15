#define _GNU_SOURCE 1
#include "test_support.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int names_same(const char *a, const char *b) {
  size_t n = strcspn(a, "=");
  return strncmp(a, b, n) == 0 && b[n] == '=';
}

int test_spawn(const char *const arguments[], const char *const extra[], int in, int out, int errors) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t signals;
  size_t n = 0, m = 0, k = 0;
  char **environment;
  pid_t pid = 0;
  int code;
  while (environ[n] != 0)
    n++;
  while (extra != 0 && extra[m] != 0)
    m++;
  environment = calloc(n + m + 1, sizeof *environment);
  if (environment == 0)
    return -ENOMEM;
  for (size_t i = 0; i < n; i++) {
    int replaced = 0;
    for (size_t j = 0; j < m; j++)
      replaced |= names_same(extra[j], environ[i]);
    if (!replaced)
      environment[k++] = environ[i];
  }
  for (size_t j = 0; j < m; j++)
    environment[k++] = (char *)extra[j];
  posix_spawn_file_actions_init(&actions);
  if (in >= 0)
    posix_spawn_file_actions_adddup2(&actions, in, 0);
  if (out >= 0)
    posix_spawn_file_actions_adddup2(&actions, out, 1);
  if (out >= 0 && errors)
    posix_spawn_file_actions_adddup2(&actions, out, 2);
  // The threads that tests run on block signals, and a program that is to be killed by one should be.
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  code = posix_spawnp(&pid, arguments[0], &actions, &attributes, (char *const *)arguments, environment);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  free(environment);
  return code == 0 ? pid : -code;
}

int test_wait(int pid) {
  int status = -1;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    ;
  return status;
}

int test_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

void test_ignore_sigpipe(void) { signal(SIGPIPE, SIG_IGN); }
