// The one copy of SQLite's table, and the look-up of a variable of SQLite's
// that the table doesn't have (dlsym's RTLD_DEFAULT is a macro with a cast,
// which Swift can't import).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include "vrn_sqlite.h"
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

const sqlite3_api_routines *vrn_sqlite3_api = 0;
int (*vrn_sqlite3_attach)(void) = 0;

static pthread_once_t temp_directory_once = PTHREAD_ONCE_INIT;
static char **temp_directory;

/// In the order in which the dynamic linker resolves SQLite's own reference:
/// first what is visible to the whole process (a program that assigns the
/// variable of a shared libsqlite3 owns the copy in use), then the object that
/// the functions of the table are in (a SQLite that was loaded privately, as
/// Python's module does). NULL where SQLite was built to hide it.
static void find_temp_directory(void) {
  Dl_info sqlite;
  void *object;
  temp_directory = (char **)dlsym(RTLD_DEFAULT, "sqlite3_temp_directory");
  if (temp_directory != 0 || dladdr((void *)vrn_sqlite3_api->libversion, &sqlite) == 0 || sqlite.dli_fname == 0)
    return;
  object = dlopen(sqlite.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (object == 0)
    return;
  temp_directory = (char **)dlsym(object, "sqlite3_temp_directory");
  dlclose(object); // the count only: SQLite is running, so it stays
}

int vrn_sqlite3_temp_directory(char *out, int n) {
  sqlite3_mutex *mutex = 0;
  const char *value;
  int length = 0;
  pthread_once(&temp_directory_once, find_temp_directory);
  if (temp_directory == 0)
    return 0;
  // NULL in a SQLite without threads.
  if (vrn_sqlite3_api->mutex_alloc != 0)
    mutex = vrn_sqlite3_api->mutex_alloc(SQLITE_MUTEX_STATIC_VFS1);
  if (mutex != 0)
    vrn_sqlite3_api->mutex_enter(mutex);
  value = *temp_directory;
  if (value != 0) {
    size_t size = strlen(value) + 1;
    if (size <= (size_t)n) {
      memcpy(out, value, size);
      length = (int)size - 1;
    }
  }
  if (mutex != 0)
    vrn_sqlite3_api->mutex_leave(mutex);
  return length;
}
