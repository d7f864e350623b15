// faultio -- makes system calls fail, run short, or be the last that a process
// makes; or only writes down which calls were made.
//
// A test compiles it (cc -shared -fPIC -O1 -o faultio.so faultio.c) and preloads
// it (LD_PRELOAD). C because it stands in for libc's functions, several of them
// variadic. What to do is one string, in the variable FAULTIO or given to
// faultio_configure() at run time, of `key=value` joined by `;`:
//
//   calls=A,B   calls by name; without it, all of those below
//   path=REGEX  only calls on a file whose path matches this POSIX extended
//               expression. Descriptors count by the path they have now (one
//               that was unlinked ends in " (deleted)"), relative names as given.
//   thread=T    only calls by the process's first thread (`main`), or by all but that one (`other`)
//   at=N        act on the N-th matching call, counted from 1. 0, the default:
//               on none
//   times=K     and on the K-1 after it (default 1); 0: on all after it
//   errno=E     a name or number: the call fails with it and does nothing
//   effect=1    ... but is made first: an error that comes too late
//   short=K     reads and writes are cut to K bytes, 0 included
//   kill=before|after   SIGKILL, before or after the call is made
//   fork=1      a child is forked before the call, which does nothing and lives as long as the thread that called
//   log=FILE    a line for each matching call: NUMBER CALL PATH [DETAIL] RESULT,
//               with " !" at its end where it was acted on
//
// Names of calls: open (openat, creat; `create` stands for those that make or empty a file), read, write, pread, pwrite, ftruncate,
// fsync, fdatasync, lock (fcntl F_SETLK and F_OFD_SETLK, with or without
// waiting), getlk, fcntl (the rest of it), flock, fstat, stat, lstat, access,
// unlink (unlinkat), rename (renameat), link (linkat), symlink, mkdir, rmdir,
// readlink, getcwd, opendir, readdir, utimens, chmod, fchmod, fchown, fgetxattr, fsetxattr,
// fremovexattr, getrandom, fallocate, copy_file_range, mmap, close. And pthread_create, only where `calls` names it.
//
// Counting is per process and goes on in forked children; threads share it. A plan
// that has acted, and logs nothing, is over: the calls after it are not counted.
#define _GNU_SOURCE 1
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

// ---- what to do

static struct {
  int active;
  char calls[512]; // ",a,b," or empty
  int has_path;
  regex_t path;
  int thread; // 0, 'm' or 'o'
  long at, times;
  int error; // errno to give, 0: none
  int effect;
  long shorten; // bytes, -1: not
  int kill;     // 0, 'b' or 'a'
  int fork;
  int log;      // descriptor, -1: none
} plan = {.log = -1};

static atomic_long matches;

// Held while a call is matched, and while the plan is replaced: other threads may be in the middle of calls.
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;

static int idle(void) {
  return !plan.active ||
         (plan.log < 0 && plan.at > 0 && plan.times > 0 && matches >= plan.at + plan.times - 1);
}

// Calls of our own, and those that libc makes for us, are let through.
static __thread int inside;

static const struct {
  const char *name;
  int value;
} errors[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EINTR", EINTR},   {"EMFILE", EMFILE}, {"ENFILE", ENFILE},
    {"ENOMEM", ENOMEM}, {"EACCES", EACCES}, {"EPERM", EPERM},   {"EROFS", EROFS},   {"EDQUOT", EDQUOT},
    {"ENOENT", ENOENT}, {"EEXIST", EEXIST}, {"ENOLCK", ENOLCK}, {"EAGAIN", EAGAIN}, {"EDEADLK", EDEADLK},
    {"EBADF", EBADF},   {"EINVAL", EINVAL}, {"EFBIG", EFBIG},   {"ENOSYS", ENOSYS}, {"EOPNOTSUPP", EOPNOTSUPP},
    {"ENOTDIR", ENOTDIR}, {"ELOOP", ELOOP}, {"ENXIO", ENXIO},   {"ESTALE", ESTALE}, {"EISDIR", EISDIR},
};

static void die(const char *what, const char *detail) {
  dprintf(2, "faultio: %s: %s\n", what, detail);
  _exit(96);
}

static long number(const char *s) {
  char *end;
  long v = strtol(s, &end, 0);
  if (*s == 0 || *end != 0)
    die("not a number", s);
  return v;
}

static void set(const char *key, const char *value) {
  if (strcmp(key, "calls") == 0) {
    snprintf(plan.calls, sizeof plan.calls, ",%s,", value);
  } else if (strcmp(key, "path") == 0) {
    if (regcomp(&plan.path, value, REG_EXTENDED | REG_NOSUB) != 0)
      die("not a regular expression", value);
    plan.has_path = 1;
  } else if (strcmp(key, "thread") == 0) {
    if (strcmp(value, "main") != 0 && strcmp(value, "other") != 0)
      die("thread is main or other, not", value);
    plan.thread = value[0];
  } else if (strcmp(key, "at") == 0) {
    plan.at = number(value);
  } else if (strcmp(key, "times") == 0) {
    plan.times = number(value);
  } else if (strcmp(key, "effect") == 0) {
    plan.effect = number(value) != 0;
  } else if (strcmp(key, "fork") == 0) {
    plan.fork = number(value) != 0;
  } else if (strcmp(key, "short") == 0) {
    plan.shorten = number(value);
  } else if (strcmp(key, "errno") == 0) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
      if (strcmp(errors[i].name, value) == 0) {
        plan.error = errors[i].value;
        return;
      }
    plan.error = (int)number(value);
  } else if (strcmp(key, "kill") == 0) {
    if (strcmp(value, "before") != 0 && strcmp(value, "after") != 0)
      die("kill is before or after, not", value);
    plan.kill = value[0];
  } else if (strcmp(key, "log") == 0) {
    int fd = (int)syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0)
      die("can't open the log", value);
    // Out of the way of whoever counts on getting low descriptors.
    plan.log = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
    if (plan.log < 0)
      die("can't move the log's descriptor", value);
    syscall(SYS_close, fd);
  } else {
    die("unknown key", key);
  }
}

/// Begins anew: a new plan, and counting from 1. An empty one does nothing.
__attribute__((visibility("default"))) void faultio_configure(const char *text) {
  char copy[4096], *rest = copy, *item;
  inside++;
  pthread_mutex_lock(&gate);
  if (plan.has_path)
    regfree(&plan.path);
  if (plan.log >= 0)
    syscall(SYS_close, plan.log);
  memset(&plan, 0, sizeof plan);
  plan.log = -1;
  plan.shorten = -1;
  plan.times = 1;
  matches = 0;
  if (strlen(text) >= sizeof copy)
    die("too long", text);
  strcpy(copy, text);
  while ((item = strsep(&rest, ";")) != NULL) {
    char *value = strchr(item, '=');
    if (*item == 0)
      continue;
    if (value == NULL)
      die("not key=value", item);
    *value++ = 0;
    set(item, value);
    plan.active = 1;
  }
  pthread_mutex_unlock(&gate);
  inside--;
}

/// How many calls matched so far.
__attribute__((visibility("default"))) long faultio_count(void) { return matches; }

__attribute__((constructor)) static void begin(void) {
  const char *text = getenv("FAULTIO");
  if (text != NULL)
    faultio_configure(text);
}

// ---- one call

typedef struct {
  const char *name;
  char path[PATH_MAX];
  char detail[64];
  int creates; // an open that makes or empties a file
  long number; // among the matching calls; 0: doesn't match
  int act;
} call_t;

static void path_of(int fd, char *out) {
  char link[32];
  ssize_t n;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  n = syscall(SYS_readlink, link, out, (size_t)PATH_MAX - 1);
  out[n < 0 ? 0 : n] = 0;
}

static void path_at(int dir, const char *name, char *out) {
  if (name[0] == '/' || dir == AT_FDCWD) {
    snprintf(out, PATH_MAX, "%s", name);
  } else {
    size_t n;
    path_of(dir, out);
    n = strlen(out);
    snprintf(out + n, PATH_MAX - n, "/%s", name);
  }
}

/// Whether the call is one of those that the plan is about; `c->path` is set. With `gate` held.
static int matching_now(call_t *c) {
  char key[64];
  if (!plan.active)
    return 0;
  if (c->name[0] == 0)
    return 0;
  snprintf(key, sizeof key, ",%s,", c->name);
  if (plan.calls[0] != 0 && strstr(plan.calls, key) == NULL && !(c->creates && strstr(plan.calls, ",create,") != NULL))
    return 0;
  if (plan.thread != 0 && (syscall(SYS_gettid) == getpid()) != (plan.thread == 'm'))
    return 0;
  if (plan.has_path && regexec(&plan.path, c->path, 0, NULL, 0) != 0)
    return 0;
  c->number = ++matches;
  c->act = plan.at > 0 && c->number >= plan.at && (plan.times == 0 || c->number < plan.at + plan.times);
  return 1;
}

static int matching(call_t *c) {
  int result;
  pthread_mutex_lock(&gate);
  result = matching_now(c);
  pthread_mutex_unlock(&gate);
  return result;
}

static void report(const call_t *c, long result, int error) {
  char line[PATH_MAX + 256];
  int n;
  if (plan.log < 0)
    return;
  n = snprintf(line, sizeof line, "%ld %s %s%s %ld%s%s%s\n", c->number, c->name, c->path[0] ? c->path : "-", c->detail,
               result, result < 0 ? " " : "", result < 0 ? strerrorname_np(error) : "", c->act ? " !" : "");
  if (n > (int)sizeof line - 1)
    n = sizeof line - 1;
  syscall(SYS_write, plan.log, line, (size_t)n);
}

/// Before the call; nonzero where it is not to be made.
static int before(const call_t *c) {
  if (!c->act)
    return 0;
  if (plan.kill == 'b') {
    report(c, 0, 0);
    kill(getpid(), SIGKILL);
  }
  if (plan.fork && fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Its parent may have gone before.
    for (int i = 0; i < 60 && getppid() != 1; i++)
      sleep(1);
    _exit(0);
  }
  return plan.error != 0 && !plan.effect;
}

/// After it (or instead of it): what the program gets to see.
static long after(const call_t *c, long result, int error, long failure) {
  if (c->act && plan.error != 0) {
    result = failure;
    error = plan.error;
  }
  report(c, result, error);
  if (c->act && plan.kill == 'a')
    kill(getpid(), SIGKILL);
  errno = error;
  return result;
}

// Each function: pass through where there is no plan or the call is our own;
// find its path; count it; act. `FAIL` is its result when it fails.
#define REAL(name) ((__typeof__(&name))real(&real_##name, #name))
static void *real(_Atomic(void *) * cache, const char *name) {
  void *p = *cache;
  if (p == NULL) {
    p = dlsym(RTLD_NEXT, name);
    if (p == NULL)
      die("libc has no", name);
    *cache = p;
  }
  return p;
}

#define HOOK(T, function, parameters, arguments, label, FAIL, FIND_PATH, ...)                                          \
  static _Atomic(void *) real_##function;                                                                              \
  __attribute__((visibility("default"))) T function parameters {                                                       \
    call_t c;                                                                                                          \
    long result = (long)(FAIL);                                                                                        \
    int error;                                                                                                         \
    if (inside || idle())                                                                                        \
      return REAL(function) arguments;                                                                                 \
    inside++;                                                                                                          \
    error = errno;                                                                                                     \
    c.name = label;                                                                                                    \
    c.path[0] = c.detail[0] = 0;                                                                                       \
    c.act = c.creates = 0;                                                                                             \
    FIND_PATH;                                                                                                         \
    if (!matching(&c)) {                                                                                               \
      inside--;                                                                                                        \
      errno = error;                                                                                                   \
      return REAL(function) arguments;                                                                                 \
    }                                                                                                                  \
    __VA_ARGS__;                                                                                                       \
    if (!before(&c)) {                                                                                                 \
      errno = error;                                                                                                   \
      result = (long)REAL(function) arguments;                                                                         \
      error = errno;                                                                                                   \
    }                                                                                                                  \
    result = after(&c, result, error, (long)(FAIL));                                                                   \
    inside--;                                                                                                          \
    return (T)result;                                                                                                  \
  }

#define ON_FD path_of(fd, c.path)
#define ON_PATH snprintf(c.path, sizeof c.path, "%s", path)
#define ON_AT path_at(dir, path, c.path)
#define DETAIL(...) snprintf(c.detail, sizeof c.detail, " " __VA_ARGS__)
#define CUT(n)                                                                                                         \
  do {                                                                                                                 \
    if (c.act && plan.shorten >= 0 && (long)(n) > plan.shorten)                                                        \
      (n) = (size_t)plan.shorten;                                                                                      \
  } while (0)

// ---- reading and writing

HOOK(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n), "read", -1, ON_FD, DETAIL("%zu", n); CUT(n))
HOOK(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), "write", -1, ON_FD, DETAIL("%zu", n); CUT(n))
HOOK(ssize_t, pread, (int fd, void *p, size_t n, off_t at), (fd, p, n, at), "pread", -1, ON_FD,
     DETAIL("%zu@%ld", n, (long)at);
     CUT(n))
HOOK(ssize_t, pread64, (int fd, void *p, size_t n, off64_t at), (fd, p, n, at), "pread", -1, ON_FD,
     DETAIL("%zu@%ld", n, (long)at);
     CUT(n))
HOOK(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), "pwrite", -1, ON_FD,
     DETAIL("%zu@%ld", n, (long)at);
     CUT(n))
HOOK(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at), "pwrite", -1, ON_FD,
     DETAIL("%zu@%ld", n, (long)at);
     CUT(n))
HOOK(ssize_t, copy_file_range, (int in, off64_t *from, int fd, off64_t *to, size_t n, unsigned flags),
     (in, from, fd, to, n, flags), "copy_file_range", -1, ON_FD, DETAIL("%zu", n);
     CUT(n))

// ---- files by descriptor

HOOK(int, ftruncate, (int fd, off_t n), (fd, n), "ftruncate", -1, ON_FD, DETAIL("%ld", (long)n))
HOOK(int, ftruncate64, (int fd, off64_t n), (fd, n), "ftruncate", -1, ON_FD, DETAIL("%ld", (long)n))
HOOK(int, fsync, (int fd), (fd), "fsync", -1, ON_FD)
HOOK(int, fdatasync, (int fd), (fd), "fdatasync", -1, ON_FD)
HOOK(int, fstat, (int fd, struct stat *st), (fd, st), "fstat", -1, ON_FD)
HOOK(int, fstat64, (int fd, struct stat64 *st), (fd, st), "fstat", -1, ON_FD)
HOOK(int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n), "fallocate", -1, ON_FD,
     DETAIL("%ld@%ld", (long)n, (long)at))
HOOK(int, fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n), "fallocate", -1, ON_FD,
     DETAIL("%ld@%ld", (long)n, (long)at))
// These two answer the error instead of setting errno.
HOOK(int, posix_fallocate, (int fd, off_t at, off_t n), (fd, at, n), "fallocate", plan.error, ON_FD,
     DETAIL("%ld@%ld", (long)n, (long)at))
HOOK(int, posix_fallocate64, (int fd, off64_t at, off64_t n), (fd, at, n), "fallocate", plan.error, ON_FD,
     DETAIL("%ld@%ld", (long)n, (long)at))
HOOK(int, fchmod, (int fd, mode_t mode), (fd, mode), "fchmod", -1, ON_FD, DETAIL("%o", mode))
HOOK(int, fchown, (int fd, uid_t u, gid_t g), (fd, u, g), "fchown", -1, ON_FD)
HOOK(int, flock, (int fd, int op), (fd, op), "flock", -1, ON_FD, DETAIL("%d", op))
HOOK(ssize_t, fgetxattr, (int fd, const char *name, void *p, size_t n), (fd, name, p, n), "fgetxattr", -1, ON_FD,
     DETAIL("%.60s", name))
HOOK(int, fsetxattr, (int fd, const char *name, const void *p, size_t n, int flags), (fd, name, p, n, flags),
     "fsetxattr", -1, ON_FD, DETAIL("%.60s", name))
HOOK(int, fremovexattr, (int fd, const char *name), (fd, name), "fremovexattr", -1, ON_FD, DETAIL("%.60s", name))

// The descriptor is gone whatever close answers, as on Linux.
static _Atomic(void *) real_close;
__attribute__((visibility("default"))) int close(int fd) {
  call_t c;
  long result;
  int error;
  if (inside || idle() || fd == plan.log)
    return REAL(close)(fd);
  inside++;
  c.name = "close";
  c.path[0] = c.detail[0] = 0;
  c.act = c.creates = 0;
  ON_FD;
  if (!matching(&c)) {
    inside--;
    return REAL(close)(fd);
  }
  before(&c);
  result = REAL(close)(fd);
  error = errno;
  result = after(&c, result, error, -1);
  inside--;
  return (int)result;
}

static const char *fcntl_label(int op) {
  switch (op) {
  case F_SETLK:
  case F_SETLKW:
  case F_OFD_SETLK:
  case F_OFD_SETLKW:
    return "lock";
  case F_GETLK:
  case F_OFD_GETLK:
    return "getlk";
  default:
    return "fcntl";
  }
}
static void fcntl_detail(call_t *c, int op, void *argument) {
  if (fcntl_label(op)[0] == 'f') {
    snprintf(c->detail, sizeof c->detail, " %d", op);
  } else {
    const struct flock *l = argument;
    snprintf(c->detail, sizeof c->detail, " %s:%ld+%ld",
             l->l_type == F_RDLCK   ? "read"
             : l->l_type == F_WRLCK ? "write"
                                    : "none",
             (long)l->l_start, (long)l->l_len);
  }
}
// The third argument is an int or a pointer, or missing: a register in any case.
#define FCNTL(function)                                                                                                \
  static _Atomic(void *) real_##function;                                                                              \
  __attribute__((visibility("default"))) int function(int fd, int op, ...) {                                           \
    call_t c;                                                                                                          \
    long result = -1;                                                                                                  \
    int error;                                                                                                         \
    va_list list;                                                                                                      \
    void *argument;                                                                                                    \
    va_start(list, op);                                                                                                \
    argument = va_arg(list, void *);                                                                                   \
    va_end(list);                                                                                                      \
    if (inside || idle())                                                                                        \
      return REAL(function)(fd, op, argument);                                                                         \
    inside++;                                                                                                          \
    c.name = fcntl_label(op);                                                                                          \
    c.path[0] = c.detail[0] = 0;                                                                                       \
    c.act = c.creates = 0;                                                                                             \
    ON_FD;                                                                                                             \
    if (!matching(&c)) {                                                                                               \
      inside--;                                                                                                        \
      return REAL(function)(fd, op, argument);                                                                         \
    }                                                                                                                  \
    fcntl_detail(&c, op, argument);                                                                                    \
    error = errno;                                                                                                     \
    if (!before(&c)) {                                                                                                 \
      result = REAL(function)(fd, op, argument);                                                                       \
      error = errno;                                                                                                   \
    }                                                                                                                  \
    result = after(&c, result, error, -1);                                                                             \
    inside--;                                                                                                          \
    return (int)result;                                                                                                \
  }
FCNTL(fcntl)
FCNTL(fcntl64)

// ---- files by name

// A call that is made and then said to have failed must not leak its descriptor.
static int opened(const call_t *c, long result, int error) {
  if (c->act && plan.error != 0 && result >= 0)
    syscall(SYS_close, (int)result);
  return (int)after(c, result, error, -1);
}
#define OPEN(function, parameters, arguments, LAST, FIND_PATH)                                                         \
  static _Atomic(void *) real_##function;                                                                              \
  __attribute__((visibility("default"))) int function parameters {                                                     \
    call_t c;                                                                                                          \
    long result = -1;                                                                                                  \
    int error;                                                                                                         \
    va_list list;                                                                                                      \
    mode_t mode;                                                                                                       \
    va_start(list, LAST);                                                                                              \
    mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(list, mode_t) : 0;                           \
    va_end(list);                                                                                                      \
    if (inside || idle())                                                                                        \
      return REAL(function) arguments;                                                                                 \
    inside++;                                                                                                          \
    c.name = "open";                                                                                                   \
    c.path[0] = c.detail[0] = 0;                                                                                       \
    c.act = 0;                                                                                                         \
    c.creates = (flags & (O_CREAT | O_TRUNC)) != 0;                                                                    \
    FIND_PATH;                                                                                                         \
    if (!matching(&c)) {                                                                                               \
      inside--;                                                                                                        \
      return REAL(function) arguments;                                                                                 \
    }                                                                                                                  \
    DETAIL("0%o", flags);                                                                                              \
    error = errno;                                                                                                     \
    if (!before(&c)) {                                                                                                 \
      result = REAL(function) arguments;                                                                               \
      error = errno;                                                                                                   \
    }                                                                                                                  \
    result = opened(&c, result, error);                                                                                \
    inside--;                                                                                                          \
    return (int)result;                                                                                                \
  }
OPEN(open, (const char *path, int flags, ...), (path, flags, mode), flags, ON_PATH)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), flags, ON_PATH)
OPEN(openat, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), flags, ON_AT)
OPEN(openat64, (int dir, const char *path, int flags, ...), (dir, path, flags, mode), flags, ON_AT)

HOOK(int, stat, (const char *path, struct stat *st), (path, st), "stat", -1, ON_PATH)
HOOK(int, stat64, (const char *path, struct stat64 *st), (path, st), "stat", -1, ON_PATH)
HOOK(int, lstat, (const char *path, struct stat *st), (path, st), "lstat", -1, ON_PATH)
HOOK(int, lstat64, (const char *path, struct stat64 *st), (path, st), "lstat", -1, ON_PATH)
HOOK(int, access, (const char *path, int mode), (path, mode), "access", -1, ON_PATH)
HOOK(int, unlink, (const char *path), (path), "unlink", -1, ON_PATH)
HOOK(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), "unlink", -1, ON_AT)
HOOK(int, mkdir, (const char *path, mode_t mode), (path, mode), "mkdir", -1, ON_PATH)
HOOK(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), "mkdir", -1, ON_AT)
HOOK(int, rmdir, (const char *path), (path), "rmdir", -1, ON_PATH)
HOOK(int, chmod, (const char *path, mode_t mode), (path, mode), "chmod", -1, ON_PATH)
HOOK(int, utimensat, (int dir, const char *path, const struct timespec times[2], int flags), (dir, path, times, flags),
     "utimens", -1, ON_AT)
HOOK(ssize_t, readlink, (const char *path, char *p, size_t n), (path, p, n), "readlink", -1, ON_PATH)
HOOK(DIR *, opendir, (const char *path), (path), "opendir", NULL, ON_PATH)
HOOK(struct dirent *, readdir, (DIR * d), (d), "readdir", NULL, path_of(dirfd(d), c.path))
HOOK(struct dirent64 *, readdir64, (DIR * d), (d), "readdir", NULL, path_of(dirfd(d), c.path))
HOOK(char *, getcwd, (char *p, size_t n), (p, n), "getcwd", NULL, (void)0)
HOOK(ssize_t, getrandom, (void *p, size_t n, unsigned flags), (p, n, flags), "getrandom", -1, (void)0,
     DETAIL("%zu", n);
     CUT(n))

// Answers with the error itself. It is nobody's file: only plans that name it are about it.
static _Atomic(void *) real_pthread_create;
__attribute__((visibility("default"))) int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                                                          void *(*start)(void *), void *argument) {
  call_t c = {.name = "pthread_create"};
  long result = 0;
  int error = errno;
  if (inside || idle() || strstr(plan.calls, ",pthread_create,") == NULL)
    return REAL(pthread_create)(thread, attributes, start, argument);
  inside++;
  if (!matching(&c)) {
    inside--;
    return REAL(pthread_create)(thread, attributes, start, argument);
  }
  if (!before(&c))
    result = REAL(pthread_create)(thread, attributes, start, argument);
  result = after(&c, result, error, plan.error);
  inside--;
  return (int)result;
}

// Two names: the new one counts, since that is what others see.
HOOK(int, rename, (const char *from, const char *path), (from, path), "rename", -1, ON_PATH, DETAIL("<- %.50s", from))
HOOK(int, renameat, (int old, const char *from, int dir, const char *path), (old, from, dir, path), "rename", -1,
     ON_AT, DETAIL("<- %.50s", from))
HOOK(int, renameat2, (int old, const char *from, int dir, const char *path, unsigned flags),
     (old, from, dir, path, flags), "rename", -1, ON_AT, DETAIL("<- %.50s", from))
HOOK(int, link, (const char *from, const char *path), (from, path), "link", -1, ON_PATH, DETAIL("<- %.50s", from))
HOOK(int, linkat, (int old, const char *from, int dir, const char *path, int flags), (old, from, dir, path, flags),
     "link", -1, ON_AT, DETAIL("<- %.50s", from))
HOOK(int, symlink, (const char *from, const char *path), (from, path), "symlink", -1, ON_PATH,
     DETAIL("<- %.50s", from))

// Anonymous memory is none of our business, and malloc's.
#define MMAP(function, offset_t)                                                                                       \
  HOOK(void *, function, (void *address, size_t n, int prot, int flags, int fd, offset_t at),                          \
       (address, n, prot, flags, fd, at), fd < 0 ? "" : "mmap", MAP_FAILED, if (fd >= 0) ON_FD,                       \
       DETAIL("%zu@%ld", n, (long)at))
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
