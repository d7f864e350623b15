/*
 * What a C program does with libverneuil.a: configures, writes, flushes, asks
 * what is replicated, and frees everything. Run under AddressSanitizer.
 * Arguments: the database, the spooling directory, JSON. Prints what the test compares.
 */
#include "verneuil.h"
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                    \
      exit(1);                                                                   \
    }                                                                            \
  } while (0)

static int is_zero(const struct verneuil_replication_info *info) {
  static const struct verneuil_replication_info zero;
  return memcmp(info, &zero, sizeof zero) == 0;
}

/* Any thread may ask. */
static void *name_on_a_thread(void *expected) {
  char *name = verneuil_manifest_name_for_hostname_path("example.com", "/var/lib/app/db.sqlite");
  CHECK(name != 0 && strcmp(name, expected) == 0);
  verneuil_manifest_name_destroy(name);
  return 0;
}

static int flushed(void *out, int count, char **values, char **names) {
  (void)names;
  *(int *)out = count == 1 && values[0] != 0 ? atoi(values[0]) : -1;
  return 0;
}

int main(int argc, char **argv) {
  struct verneuil_replication_info info, again;
  struct verneuil_options options;
  sqlite3 *db = 0, *plain = 0;
  pthread_t threads[4];
  char *uri, *name;
  int done = -1;

  CHECK(argc == 4);
  memset(&info, 0x55, sizeof info);

  /* Nothing is configured: wrong settings change nothing. */
  memset(&options, 0, sizeof options);
  options.json_options = "{\"replication_targets\": 7}";
  CHECK(verneuil_configure(&options) == -1);
  CHECK(sqlite3_vfs_find("verneuil") == 0);

  options.json_options = argv[3];
  options.replication_spooling_dir = argv[2];
  options.replication_spooling_dir_permissions = 0700;
  CHECK(verneuil_configure(&options) == 0);
  CHECK(verneuil_configure(&options) == 0);
  CHECK(sqlite3_vfs_find("verneuil") != 0 && sqlite3_vfs_find("verneuil_snapshot") != 0);
  CHECK(sqlite3_vfs_find(0) != sqlite3_vfs_find("verneuil"));
  options.tempdir = "/var/tmp";
  CHECK(verneuil_configure(&options) == SQLITE_MISUSE);

  /* Connections that name no VFS are as they were. */
  CHECK(sqlite3_open(":memory:", &plain) == SQLITE_OK);
  CHECK(verneuil_replication_info_for_db(&info, plain, "main") == SQLITE_NOTFOUND && is_zero(&info));
  sqlite3_close(plain);

  uri = sqlite3_mprintf("file:%s?vfs=verneuil", argv[1]);
  CHECK(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0) == SQLITE_OK);
  sqlite3_free(uri);
  CHECK(verneuil_replication_info_for_db(&info, db, "main") == SQLITE_NOTFOUND && is_zero(&info));
  CHECK(sqlite3_exec(db, "CREATE TABLE t(x); INSERT INTO t SELECT zeroblob(200000)", 0, 0, 0) == SQLITE_OK);
  CHECK(sqlite3_exec(db, "PRAGMA verneuil_flush_replication_data", flushed, &done, 0) == SQLITE_OK && done == 1);

  CHECK(verneuil_replication_info_for_db(&info, db, 0) == 0);
  CHECK(info.num_bytes > 0 && info.bytes != 0 && info.ctime > 1700000000u);
  name = verneuil_manifest_name_for_hostname_path(0, argv[1]);
  CHECK(name != 0 && strcmp(name, info.blob_name) == 0);
  verneuil_manifest_name_destroy(name);

  /* What the bytes say by themselves is the same, but for the name. */
  CHECK(verneuil_replication_info_for_manifest(&again, info.bytes, info.num_bytes) == 0);
  CHECK(again.blob_name == 0 && again.num_bytes == info.num_bytes);
  CHECK(memcmp(again.bytes, info.bytes, info.num_bytes) == 0);
  CHECK(memcmp(again.header_fprint, info.header_fprint, sizeof info.header_fprint) == 0);
  CHECK(memcmp(again.contents_fprint, info.contents_fprint, sizeof info.contents_fprint) == 0);
  CHECK(again.ctime == info.ctime && again.ctime_ns == info.ctime_ns);
  printf("%s %zu %016llx%016llx\n", info.blob_name, info.num_bytes, (unsigned long long)info.contents_fprint[0],
         (unsigned long long)info.contents_fprint[1]);
  verneuil_replication_info_deinit(&again);

  /* Bytes that are no manifest, cut at every length. */
  for (size_t i = 0; i < info.num_bytes; i++) {
    int code = verneuil_replication_info_for_manifest(&again, info.bytes, i);
    CHECK(code == SQLITE_CORRUPT && is_zero(&again));
  }
  verneuil_replication_info_deinit(&info);
  CHECK(is_zero(&info));
  verneuil_replication_info_deinit(&info);
  verneuil_replication_info_deinit(0);
  verneuil_manifest_name_destroy(0);
  CHECK(verneuil_replication_info_for_db(&info, db, "nothing") == SQLITE_NOTFOUND);
  CHECK(verneuil_replication_info_for_manifest(&info, 0, 0) == SQLITE_CORRUPT);
  CHECK(verneuil_replication_info_for_db(0, db, 0) == SQLITE_MISUSE);

  name = "7010-verneuil%3Aexample.com%3A10af%2F%2Fvar%2Flib%2Fapp%2Fdb.sqlite";
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], 0, name_on_a_thread, name) == 0);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
  CHECK(sqlite3_close(db) == SQLITE_OK);
  return 0;
}
