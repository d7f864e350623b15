// Preloaded by the tests of fork(2): in every thread but a process's first, each allocation takes up to 0.1 ms longer at first.
// That stretches what Swift's runtime does once, on first use, from microseconds to milliseconds: forks that would hit
// it once in thousands of times do so nearly every time.
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

enum { ALLOCATIONS = 400, MICROSECONDS = 100 };

// initial-exec: others are allocated, here of all places.
static __thread unsigned count __attribute__((tls_model("initial-exec")));
static __thread unsigned seed __attribute__((tls_model("initial-exec")));

static void dawdle(void) {
  int e = errno;
  if (count >= ALLOCATIONS || syscall(SYS_gettid) == getpid())
    return;
  count++;
  if (seed == 0) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    seed = (unsigned)t.tv_nsec ^ (unsigned)syscall(SYS_gettid);
  }
  usleep((unsigned)rand_r(&seed) % MICROSECONDS);
  errno = e;
}

void *malloc(size_t n) {
  dawdle();
  return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
  dawdle();
  return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
  dawdle();
  return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
  dawdle();
  return __libc_memalign(alignment, n);
}
int posix_memalign(void **out, size_t alignment, size_t n) {
  dawdle();
  *out = __libc_memalign(alignment, n);
  return *out == 0 ? ENOMEM : 0;
}
