#define _GNU_SOURCE
#include "plain_loop.h"
#include <pthread.h>
#include <unistd.h>
#include <zstd.h>

typedef struct work {
  const plain_object *objects;
  size_t n;
  size_t next;
  int fd;
  unsigned delay;
  int failed;
} work;

static void *run(void *argument) {
  work *w = argument;
  char chunk[65536];
  for (;;) {
    size_t i = __atomic_fetch_add(&w->next, 1, __ATOMIC_RELAXED);
    if (i >= w->n)
      return 0;
    if (w->delay)
      usleep(w->delay);
    size_t count = ZSTD_decompress(chunk, sizeof chunk, w->objects[i].body, w->objects[i].count);
    if (ZSTD_isError(count) || pwrite(w->fd, chunk, count, w->objects[i].offset) != (ssize_t)count)
      w->failed = 1;
  }
}

int plain_loop(const plain_object *objects, size_t n, int fd, int threads, unsigned delay) {
  work w = {objects, n, 0, fd, delay, 0};
  pthread_t all[256];
  if (threads > 256)
    return -1;
  for (int i = 0; i < threads; i++)
    if (pthread_create(&all[i], 0, run, &w))
      return -1;
  for (int i = 0; i < threads; i++)
    pthread_join(all[i], 0);
  return w.failed || fsync(fd) ? -1 : 0;
}
