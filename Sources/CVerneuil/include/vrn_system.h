// System calls that Swift can't import (variadic: open, fcntl) or whose errno
// must be read before Swift's runtime gets a chance to change it. Every
// function returns its result, or -errno where that result is negative, and
// retries EINTR where a retry means the same call again.
#ifndef VRN_SYSTEM_H
#define VRN_SYSTEM_H
#include "vrn_fork.h"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
// A Swift file that imports Dispatch or Foundation beside this module sees two
// definitions of fd_set, which must agree: theirs is the one without X/Open names.
#ifdef __linux__
#include <features.h>
#pragma push_macro("__USE_XOPEN")
#undef __USE_XOPEN
#include <sys/select.h>
#pragma pop_macro("__USE_XOPEN")
#endif
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#endif

#define VRN_RETRY(T, call)                                                     \
  T r_;                                                                        \
  do {                                                                         \
    r_ = (call);                                                               \
  } while (r_ < 0 && errno == EINTR);                                          \
  return r_ < 0 ? -(T)errno : r_

static inline int vrn_errno(void) { return errno; }

// NULL at the end, with *error 0, and where the directory can't be read on.
static inline struct dirent *vrn_readdir(DIR *directory, int *error) {
  struct dirent *entry;
  errno = 0;
  entry = readdir(directory);
  *error = entry == NULL ? errno : 0;
  return entry;
}
static inline void vrn_set_errno(int e) { errno = e; }

/// open(2) with O_CLOEXEC, never answering descriptors 0 to 2: a stray printf
/// in the host must not write into a database.
static inline int vrn_open(const char *path, int flags, unsigned mode) {
  int fd;
  vrn_gate_poll();
  do {
    fd = open(path, flags | O_CLOEXEC, (mode_t)mode);
  } while (fd < 0 && errno == EINTR);
  if (fd >= 0 && fd <= 2) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int e = errno;
    close(fd);
    if (high < 0)
      return -e;
    fd = high;
  }
  return fd < 0 ? -errno : fd;
}
/// The directory in which `path` is, for reading. Without a copy on the heap: on the way of a commit.
static inline int vrn_open_directory_of(const char *path) {
  char directory[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (!slash)
    return vrn_open(".", O_RDONLY | O_DIRECTORY, 0);
  size_t n = slash == path ? 1 : (size_t)(slash - path);
  if (n >= sizeof directory)
    return -ENAMETOOLONG;
  memcpy(directory, path, n);
  directory[n] = 0;
  return vrn_open(directory, O_RDONLY | O_DIRECTORY, 0);
}
static inline int vrn_openat(int dir, const char *path, int flags, unsigned mode) {
  int fd;
  do {
    fd = openat(dir, path, flags | O_CLOEXEC, (mode_t)mode);
  } while (fd < 0 && errno == EINTR);
  if (fd >= 0 && fd <= 2) {
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int e = errno;
    close(fd);
    if (high < 0)
      return -e;
    fd = high;
  }
  return fd < 0 ? -errno : fd;
}
/// Not retried: after EINTR, Linux has closed the descriptor already.
static inline int vrn_close(int fd) { return close(fd) < 0 ? -errno : 0; }
static inline ssize_t vrn_pread(int fd, void *p, size_t n, int64_t off) {
  vrn_gate_poll();
  VRN_RETRY(ssize_t, pread(fd, p, n, (off_t)off));
}
static inline ssize_t vrn_pwrite(int fd, const void *p, size_t n, int64_t off) {
  vrn_gate_poll();
  VRN_RETRY(ssize_t, pwrite(fd, p, n, (off_t)off));
}
static inline ssize_t vrn_read(int fd, void *p, size_t n) { VRN_RETRY(ssize_t, read(fd, p, n)); }
static inline ssize_t vrn_write(int fd, const void *p, size_t n) { VRN_RETRY(ssize_t, write(fd, p, n)); }
static inline int vrn_ftruncate(int fd, int64_t n) { VRN_RETRY(int, ftruncate(fd, (off_t)n)); }
// The calls that may take seconds let others fork meanwhile.
static inline int vrn_fsync(int fd) {
  int r;
  vrn_gate_leave();
  do {
    r = fsync(fd);
  } while (r < 0 && errno == EINTR);
  vrn_gate_enter();
  return r < 0 ? -errno : r;
}
static inline int vrn_fdatasync(int fd) {
  int r;
  vrn_gate_leave();
  do {
    r = fdatasync(fd);
  } while (r < 0 && errno == EINTR);
  vrn_gate_enter();
  return r < 0 ? -errno : r;
}
static inline int vrn_fstat(int fd, struct stat *st) { return fstat(fd, st) < 0 ? -errno : 0; }
static inline int vrn_stat(const char *p, struct stat *st) { return stat(p, st) < 0 ? -errno : 0; }
/// stat(2) of the file whose path is the first `n` bytes of `p`.
static inline int vrn_stat_prefix(const char *p, size_t n, struct stat *st) {
  char path[PATH_MAX];
  if (n >= sizeof path)
    return -ENAMETOOLONG;
  memcpy(path, p, n);
  path[n] = 0;
  return vrn_stat(path, st);
}
static inline int vrn_lstat(const char *p, struct stat *st) { return lstat(p, st) < 0 ? -errno : 0; }
static inline int vrn_unlink(const char *p) { return unlink(p) < 0 ? -errno : 0; }
static inline int vrn_rmdir(const char *p) { return rmdir(p) < 0 ? -errno : 0; }
static inline int vrn_rename(const char *a, const char *b) { return rename(a, b) < 0 ? -errno : 0; }
/// rename, but -EEXIST where `b` is there. File systems and systems that can't do that rename all the same.
static inline int vrn_rename_new(const char *a, const char *b) {
#ifdef __GLIBC__
  extern int renameat2(int, const char *, int, const char *, unsigned);
  if (renameat2(AT_FDCWD, a, AT_FDCWD, b, 1 /* RENAME_NOREPLACE, Linux 3.15 */) == 0)
    return 0;
  if (errno != EINVAL && errno != ENOSYS)
    return -errno;
#endif
  return access(b, F_OK) == 0 ? -EEXIST : vrn_rename(a, b);
}
static inline int vrn_link(const char *a, const char *b) { return link(a, b) < 0 ? -errno : 0; }
static inline int vrn_symlink(const char *a, const char *b) { return symlink(a, b) < 0 ? -errno : 0; }
static inline int vrn_mkdir(const char *p, unsigned mode) { return mkdir(p, (mode_t)mode) < 0 ? -errno : 0; }
static inline int vrn_access(const char *p, int mode) { return access(p, mode) < 0 ? -errno : 0; }
static inline int vrn_fchmod(int fd, unsigned mode) { return fchmod(fd, (mode_t)mode) < 0 ? -errno : 0; }
static inline int vrn_chmod(const char *p, unsigned mode) { return chmod(p, (mode_t)mode) < 0 ? -errno : 0; }
static inline int vrn_fchown(int fd, uid_t u, gid_t g) { return fchown(fd, u, g) < 0 ? -errno : 0; }
/// Sets a file's time stamps to now.
static inline int vrn_touch(const char *p) { return utimensat(AT_FDCWD, p, NULL, 0) < 0 ? -errno : 0; }
static inline int vrn_fcntl_int(int fd, int cmd, int arg) { VRN_RETRY(int, fcntl(fd, cmd, arg)); }
static inline int vrn_flock(int fd, int op) { return flock(fd, op) < 0 ? -errno : 0; }

// struct stat's times have other names on other systems.
#ifdef __APPLE__
static inline struct timespec vrn_stat_mtime(const struct stat *st) { return st->st_mtimespec; }
static inline struct timespec vrn_stat_ctime(const struct stat *st) { return st->st_ctimespec; }
#else
static inline struct timespec vrn_stat_mtime(const struct stat *st) { return st->st_mtim; }
static inline struct timespec vrn_stat_ctime(const struct stat *st) { return st->st_ctim; }
#endif

#ifndef F_OFD_SETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#define F_OFD_SETLKW 38
#endif
/// Takes (F_RDLCK, F_WRLCK) or drops (F_UNLCK) an open file description lock
/// without waiting. 0, or -errno: -EAGAIN where another holds it.
static inline int vrn_ofd_lock(int fd, short type, int64_t start, int64_t length) {
  struct flock l;
  memset(&l, 0, sizeof l);
  l.l_type = type;
  l.l_whence = SEEK_SET;
  l.l_start = (off_t)start;
  l.l_len = (off_t)length;
  int r;
  do {
    r = fcntl(fd, F_OFD_SETLK, &l);
  } while (r < 0 && errno == EINTR);
  if (r < 0)
    return errno == EACCES ? -EAGAIN : -errno;
  return 0;
}
/// Who, if anyone, stands in the way of that lock: 0 nobody, 1 somebody, else
/// -errno. Takes nothing.
static inline int vrn_ofd_test(int fd, short type, int64_t start, int64_t length) {
  struct flock l;
  memset(&l, 0, sizeof l);
  l.l_type = type;
  l.l_whence = SEEK_SET;
  l.l_start = (off_t)start;
  l.l_len = (off_t)length;
  if (fcntl(fd, F_OFD_GETLK, &l) < 0)
    return -errno;
  return l.l_type != F_UNLCK;
}

#ifdef __linux__
static inline ssize_t vrn_fgetxattr(int fd, const char *name, void *p, size_t n) {
  ssize_t r = fgetxattr(fd, name, p, n);
  return r < 0 ? -errno : r;
}
static inline int vrn_fsetxattr(int fd, const char *name, const void *p, size_t n) {
  return fsetxattr(fd, name, p, n, 0) < 0 ? -errno : 0;
}
static inline int vrn_fremovexattr(int fd, const char *name) {
  return fremovexattr(fd, name) < 0 ? -errno : 0;
}
static inline ssize_t vrn_getrandom(void *p, size_t n) { VRN_RETRY(ssize_t, getrandom(p, n, 0)); }
/// The same, but -EAGAIN where the kernel would have to wait for entropy.
static inline ssize_t vrn_random_now(void *p, size_t n) { VRN_RETRY(ssize_t, getrandom(p, n, GRND_NONBLOCK)); }
/// Allocates blocks for a range, growing the file where it ends behind it.
static inline int vrn_fallocate(int fd, int64_t off, int64_t n) {
  VRN_RETRY(int, fallocate(fd, 0, (off_t)off, (off_t)n));
}
#endif
static inline int64_t vrn_lseek(int fd, int64_t off, int whence) {
  off_t r = lseek(fd, (off_t)off, whence);
  return r < 0 ? -(int64_t)errno : (int64_t)r;
}
/// Gives a range of a file back to the file system; its bytes read as zero.
static inline int vrn_punch_hole(int fd, int64_t off, int64_t n) {
#ifdef FALLOC_FL_PUNCH_HOLE
  VRN_RETRY(int, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n));
#else
  (void)fd; (void)off; (void)n;
  return -EOPNOTSUPP;
#endif
}

#endif
