#include "replica_test.h"
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void log_line(void *context, int code, const char *text) {
  (void)context;
  printf("log %d %s\n", code, text);
  fflush(stdout);
}

int replica_test_log_to_stdout(void) { return sqlite3_config(SQLITE_CONFIG_LOG, log_line, (void *)0); }

int replica_test_fork(int (*child)(void *), void *context, int seconds) {
  fflush(stdout);
  pid_t pid = fork();
  if (pid < 0)
    return -1;
  if (pid == 0)
    _exit(child(context));
  for (int i = 0; i < seconds * 100; i++) {
    int status;
    if (waitpid(pid, &status, WNOHANG) == pid)
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    usleep(10000);
  }
  kill(pid, SIGKILL);
  waitpid(pid, 0, 0);
  return -1;
}

int replica_test_limit_file_size(long bytes) {
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit r = {(rlim_t)bytes, (rlim_t)bytes};
  return setrlimit(RLIMIT_FSIZE, &r);
}
