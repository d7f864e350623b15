#include "allocation_count.h"
#include <errno.h>
#include <stddef.h>

#if !defined(__has_feature)
#define __has_feature(x) 0
#endif

static _Thread_local uint64_t count;

uint64_t allocation_count(void) { return count; }

#if defined(__GLIBC__) && !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t n) {
    count++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    count++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    count++;
    return __libc_realloc(p, n);
}
void *memalign(size_t alignment, size_t n) {
    count++;
    return __libc_memalign(alignment, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    count++;
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    count++;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}

#endif
