// What the replica's chunk cache needs of C: slots of a table that one thread
// fills while others read it (Swift has no atomics in raw memory), and system
// calls whose errno must be read at once.
#ifndef VRN_REPLICA_H
#define VRN_REPLICA_H
#include "vrn_system.h"

/// The address in a slot of a snapshot's table; 0 until the chunk is loaded.
/// What was written to the chunk before the address was stored is seen.
static inline uintptr_t vrn_slot_load(const uintptr_t *slot) { return __atomic_load_n(slot, __ATOMIC_ACQUIRE); }
static inline void vrn_slot_store(uintptr_t *slot, uintptr_t address) {
  __atomic_store_n(slot, address, __ATOMIC_RELEASE);
}

/// Maps a range of a file for reading, shared with whoever writes to it. NULL
/// on failure, the reason in `*error`.
static inline const void *vrn_map_readonly(int fd, int64_t offset, size_t n, int *error) {
  void *p = mmap(0, n, PROT_READ, MAP_SHARED, fd, (off_t)offset);
  *error = p == MAP_FAILED ? errno : 0;
  return p == MAP_FAILED ? 0 : p;
}
/// `n` zero bytes that take no memory: every page is the kernel's zero page.
static inline const void *vrn_map_zeros(size_t n, int *error) {
  void *p = mmap(0, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *error = p == MAP_FAILED ? errno : 0;
  return p == MAP_FAILED ? 0 : p;
}
static inline void vrn_unmap(const void *p, size_t n) { munmap((void *)p, n); }

/// Whether files in this directory live in memory (tmpfs, ramfs): 1 or 0, or -errno.
static inline int vrn_in_memory(const char *directory) {
#ifdef __linux__
  struct statfs s;
  if (statfs(directory, &s) < 0)
    return -errno;
  return s.f_type == 0x01021994 || s.f_type == (__typeof__(s.f_type))0x858458f6;
#else
  (void)directory;
  return 0;
#endif
}

/// A file without a name, for this process alone. -EOPNOTSUPP, -EISDIR or
/// -ENOENT where the kernel or file system has none.
static inline int vrn_open_unnamed(const char *directory) {
#ifdef O_TMPFILE
  return vrn_open(directory, O_TMPFILE | O_RDWR | O_EXCL, 0600);
#else
  (void)directory;
  return -EOPNOTSUPP;
#endif
}

/// The largest file that this process may make; writing beyond it raises
/// SIGXFSZ, which ends a process that doesn't expect it. (Not inline:
/// <sys/resource.h> declares more under _GNU_SOURCE than in Swift's own view of
/// the C library, and the two clash where both are imported.)
int64_t vrn_file_size_limit(void);

static inline struct timespec vrn_stat_atime(const struct stat *st) {
#ifdef __APPLE__
  return st->st_atimespec;
#else
  return st->st_atim;
#endif
}
/// Sets a file's times, in nanoseconds since 1970; a negative one stays as it is.
static inline int vrn_set_times(int directory, const char *name, int64_t atime, int64_t mtime) {
  struct timespec t[2];
  t[0].tv_sec = atime / 1000000000;
  t[0].tv_nsec = atime < 0 ? UTIME_OMIT : atime % 1000000000;
  t[1].tv_sec = mtime / 1000000000;
  t[1].tv_nsec = mtime < 0 ? UTIME_OMIT : mtime % 1000000000;
  return utimensat(directory, name, t, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}
static inline int vrn_fstatat(int directory, const char *name, struct stat *st) {
  return fstatat(directory, name, st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}
static inline int vrn_unlinkat(int directory, const char *name) {
  return unlinkat(directory, name, 0) < 0 ? -errno : 0;
}
/// Where data begins at or after `offset`; the file's end where there is none.
static inline int64_t vrn_next_data(int fd, int64_t offset, int64_t end) {
#ifdef SEEK_DATA
  off_t r = lseek(fd, (off_t)offset, SEEK_DATA);
  if (r >= 0)
    return (int64_t)r;
  return errno == ENXIO ? end : offset;
#else
  (void)fd; (void)end;
  return offset;
#endif
}

#endif
