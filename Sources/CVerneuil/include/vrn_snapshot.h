// What the `verneuil_snapshot` VFS keeps of an open replica, behind SQLite's own
// sqlite3_file. In C because SQLite allocates it and knows only its size.
#ifndef VRN_SNAPSHOT_H
#define VRN_SNAPSHOT_H
#include "vrn_replica.h"
#include "vrn_sqlite.h"

typedef struct vrn_snapshot_file {
  sqlite3_file base;

  // What xRead and xFetch need, of the snapshot in use.

  /// Address of each chunk's bytes; 0 while it is not loaded.
  const uintptr_t *slots;
  /// Bytes of the database.
  int64_t length;
  /// Reads that begin below this offset don't get the bytes as they are stored (SnapshotHeader.swift): 0 or 100.
  int64_t patched;
  /// Touching one of the chunks from `ahead` on, `ahead_count` of them, starts the next read-ahead.
  uint64_t ahead;
  uint64_t ahead_count;
  /// xFetch less xUnfetch: pages that SQLite holds pointers to.
  int64_t fetched;
  /// What PRAGMA mmap_size was set to; xFetch answers no pages where it is 0.
  int64_t mmap_limit;

  /// SQLITE_LOCK_NONE or SQLITE_LOCK_SHARED.
  int lock;
  /// Which process opened it: a forked child must not touch it.
  int pid;
  /// Retained SnapshotConnection.
  void *connection;
} vrn_snapshot_file;

#endif
