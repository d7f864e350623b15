// What the `linux` VFS keeps of an open file, behind SQLite's own sqlite3_file.
// In C because SQLite allocates it and knows only its size, and because the
// list of open databases is walked in a forked child (vrn_file.c).
#ifndef VRN_FILE_H
#define VRN_FILE_H
#include "vrn_sqlite.h"
#include <stdint.h>

enum {
  /// A database that can be locked, as opposed to journals and temporary files.
  VRN_FILE_DATABASE = 1 << 0,
  VRN_FILE_READONLY = 1 << 1,
  /// A write leaves the bytes around it alone even when the power fails (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
  VRN_FILE_POWERSAFE_OVERWRITE = 1 << 2,
  /// A journal that may have been created: the first xSync makes its name durable too.
  VRN_FILE_SYNC_DIRECTORY = 1 << 3,
  /// Unlinked already; gone with the descriptor.
  VRN_FILE_DELETE_ON_CLOSE = 1 << 4,
};

typedef struct vrn_file {
  sqlite3_file base;
  /// -1 in a forked child that could not have a description of its own.
  int fd;
  /// SQLITE_LOCK_NONE to SQLITE_LOCK_EXCLUSIVE: what this connection was granted.
  int lock;
  uint32_t flags;
  /// errno of the last call that failed, 0 where a later one succeeded short (SQLITE_FCNTL_LAST_ERRNO).
  int last_errno;
  /// Sizes are rounded up to a multiple of this many bytes (SQLITE_FCNTL_CHUNK_SIZE); 0: not.
  int chunk_size;
  /// How long xLock waits for others, in milliseconds (SQLITE_FCNTL_LOCK_TIMEOUT); 0: not at all.
  int lock_timeout;
  /// As SQLite passed it to xOpen, which keeps it unchanged until xClose; NULL for a temporary file without a name.
  const char *path;
  /// Through which it was opened; its name is the answer to SQLITE_FCNTL_VFSNAME.
  const sqlite3_vfs *vfs;
  /// Of a database, when it was opened.
  uint64_t device;
  uint64_t inode;
  /// Neighbours in the list of this process's open databases.
  struct vrn_file *next;
  struct vrn_file *previous;

  // For the layers above; the linux VFS zeroes them in xOpen and looks at them no more.
  void *tracker;
  /// That it belongs to, as SQLITE_FCNTL_PDB told. Set by vrn_file_set_connection.
  void *connection;
} vrn_file;

/// Enters an open database into the list of those that a forked child must
/// part from its parent's. After this, until vrn_file_unlist, `file` must not move.
/// 0, or an errno.
int vrn_file_list(vrn_file *file);
void vrn_file_unlist(vrn_file *file);

void vrn_file_set_connection(vrn_file *file, void *connection);
/// Calls `visit` with each open database of a connection. It may open and close none.
void vrn_file_visit(const void *connection, void (*visit)(vrn_file *file, void *context), void *context);

#endif
