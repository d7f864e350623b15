// What fork(2) does to open databases. In C because the child's part may run
// where another thread was in the middle of anything: it may only make
// async-signal-safe calls, and the Swift runtime takes locks where one can't
// see it.
//
// An open file description lock belongs to the description, which parent and
// child share after fork. Left alone, that would differ from the POSIX locks of
// SQLite's unix VFS in two ways that bite:
//
//  - A child that closes the connections it inherited (a Python program that
//    forks and ends with sys.exit does) would unlock the parent's transaction.
//  - The locks of a parent that was killed would last until the last of its
//    children is gone, though nobody is going to finish the transaction.
//
// So the child gives each inherited database a description of its own under the
// old descriptor. It holds no lock, as a child of the unix VFS holds none; and
// the parent's is the parent's alone again.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "vrn_file.h"
#include "vrn_fork.h"
#include "vrn_system.h"

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static vrn_file *list_head;

// A leaf: nothing is called while it is held but what stands here, and `visit`, which takes no lock.
void vrn_file_before_fork(void) { pthread_mutex_lock(&list_mutex); }
void vrn_file_after_fork_in_parent(void) { pthread_mutex_unlock(&list_mutex); }

/// snprintf is not async-signal-safe.
static void descriptor_path(int fd, char out[32]) {
  static const char prefix[] = "/proc/self/fd/";
  char digits[12];
  int n = 0;
  char *p = out + sizeof prefix - 1;
  memcpy(out, prefix, sizeof prefix - 1);
  do {
    digits[n++] = (char)('0' + fd % 10);
    fd /= 10;
  } while (fd > 0);
  while (n > 0)
    *p++ = digits[--n];
  *p = 0;
}

/// A new description of the same file, even where its name is gone. -1 where
/// there is no /proc and the name leads elsewhere, or the process gave up the
/// rights it opened the file with.
static int reopen(const vrn_file *file) {
  int mode = (file->flags & VRN_FILE_READONLY) ? O_RDONLY : O_RDWR;
  struct stat st;
  char path[32];
  int fd;
  descriptor_path(file->fd, path);
  fd = vrn_open(path, mode, 0);
  if (fd < 0 && file->path != 0)
    fd = vrn_open(file->path, mode | O_NOFOLLOW, 0);
  if (fd < 0)
    return -1;
  if (fstat(fd, &st) < 0 || (uint64_t)st.st_dev != file->device || (uint64_t)st.st_ino != file->inode) {
    close(fd);
    return -1;
  }
  return fd;
}

void vrn_file_after_fork_in_child(void) {
  int e = errno;
  for (vrn_file *file = list_head; file != 0; file = file->next) {
    int own;
    if (file->fd < 0)
      continue;
    own = reopen(file);
    // dup3 closes the inherited one; a lock of the parent's doesn't notice, since
    // its description is still open there.
    if (own < 0 || dup3(own, file->fd, O_CLOEXEC) < 0) {
      close(file->fd);
      file->fd = -1; // every later call on this file fails with EBADF
    }
    if (own >= 0)
      close(own);
  }
  pthread_mutex_unlock(&list_mutex);
  errno = e;
}

int vrn_file_list(vrn_file *file) {
  int error = vrn_fork_prepare();
  if (error != 0)
    return error;
  pthread_mutex_lock(&list_mutex);
  file->previous = 0;
  file->next = list_head;
  if (list_head != 0)
    list_head->previous = file;
  list_head = file;
  pthread_mutex_unlock(&list_mutex);
  return 0;
}

void vrn_file_unlist(vrn_file *file) {
  pthread_mutex_lock(&list_mutex);
  if (file->previous != 0)
    file->previous->next = file->next;
  else
    list_head = file->next;
  if (file->next != 0)
    file->next->previous = file->previous;
  pthread_mutex_unlock(&list_mutex);
  file->next = 0;
  file->previous = 0;
}

void vrn_file_set_connection(vrn_file *file, void *connection) {
  pthread_mutex_lock(&list_mutex);
  file->connection = connection;
  pthread_mutex_unlock(&list_mutex);
}

void vrn_file_visit(const void *connection, void (*visit)(vrn_file *file, void *context), void *context) {
  pthread_mutex_lock(&list_mutex);
  for (vrn_file *file = list_head; file != 0; file = file->next)
    if (file->connection == connection)
      visit(file, context);
  pthread_mutex_unlock(&list_mutex);
}
