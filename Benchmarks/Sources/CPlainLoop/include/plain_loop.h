// What a restore is measured against: threads that fetch an object, unpack it
// and write it to its place, with nothing in between.
#ifndef PLAIN_LOOP_H
#define PLAIN_LOOP_H
#include <stddef.h>
#include <stdint.h>

typedef struct plain_object {
  const void *body;
  size_t count;
  int64_t offset;
} plain_object;

/// Writes `n` objects, zstd frames of at most 64 KiB each, into the file `fd`
/// with `threads` threads. An object takes `delay` microseconds to fetch. 0, or -1.
int plain_loop(const plain_object *objects, size_t n, int fd, int threads, unsigned delay);
#endif
