// What fork(2) does to the locks by which builders and copiers exclude one another.
// In C for the same reason as vrn_file.c: the child may make async-signal-safe calls alone.
//
// Such a lock belongs to the open file description, of which a child has a
// descriptor as well. The parent gives its locks back in so many words; but
// where it is killed, they would last as long as the child lives, and nobody
// would upload anything until then. So in the child each of these descriptors
// is made to lead to /dev/null. Its number stays taken: what owns it there
// closes it some day, and shall close nobody else's file.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "vrn_held.h"
#include "vrn_fork.h"
#include "vrn_system.h"

struct vrn_held {
  int fd;
  vrn_held *next;
  vrn_held *previous;
};

// A leaf, as vrn_file.c's.
static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static vrn_held *list_head;

void vrn_held_before_fork(void) { pthread_mutex_lock(&list_mutex); }
void vrn_held_after_fork_in_parent(void) { pthread_mutex_unlock(&list_mutex); }

void vrn_held_after_fork_in_child(void) {
  int e = errno;
  int nowhere = -1;
  for (vrn_held *held = list_head; held != 0; held = held->next) {
    if (nowhere < 0)
      nowhere = vrn_open("/dev/null", O_RDONLY, 0);
    // Without /dev/null, as in a bare chroot, it stays what it was.
    if (nowhere >= 0)
      dup3(nowhere, held->fd, O_CLOEXEC);
  }
  if (nowhere >= 0)
    close(nowhere);
  pthread_mutex_unlock(&list_mutex);
  errno = e;
}

vrn_held *vrn_held_list(int fd) {
  vrn_held *held;
  if (vrn_fork_prepare() != 0)
    return 0;
  held = malloc(sizeof *held);
  if (held == 0)
    return 0;
  held->fd = fd;
  held->previous = 0;
  pthread_mutex_lock(&list_mutex);
  held->next = list_head;
  if (list_head != 0)
    list_head->previous = held;
  list_head = held;
  pthread_mutex_unlock(&list_mutex);
  return held;
}

void vrn_held_unlist(vrn_held *held) {
  pthread_mutex_lock(&list_mutex);
  if (held->previous != 0)
    held->previous->next = held->next;
  else
    list_head = held->next;
  if (held->next != 0)
    held->next->previous = held->previous;
  pthread_mutex_unlock(&list_mutex);
  free(held);
}
