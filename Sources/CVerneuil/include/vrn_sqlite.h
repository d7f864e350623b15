// SQLite reached through the table that it hands to extensions, never by
// linking: one set of objects serves the extension and programs that link
// SQLite. (sqlite3ext.h's macros and SQLite's variadic functions can't be
// imported into Swift.)
#ifndef VRN_SQLITE_H
#define VRN_SQLITE_H
#define SQLITE_CORE 1
#include <sqlite3ext.h>
#undef SQLITE_CORE

/// Set once, before any VFS is registered.
extern const sqlite3_api_routines *vrn_sqlite3_api __attribute__((visibility("hidden")));

static inline void vrn_sqlite3_set_api(const sqlite3_api_routines *api) { vrn_sqlite3_api = api; }
static inline int vrn_sqlite3_has_api(void) { return vrn_sqlite3_api != 0; }
/// Whether that of another SQLite is set: each has one table, for as long as it is there.
static inline int vrn_sqlite3_has_other_api(const sqlite3_api_routines *api) { return vrn_sqlite3_api != 0 && vrn_sqlite3_api != api; }

/// How to get the table where nobody loads us as an extension: answers SQLite's
/// code. NULL in the extension; the static library sets it before main.
extern int (*vrn_sqlite3_attach)(void) __attribute__((visibility("hidden")));

/// Gets the table that way, if it is not there. SQLITE_MISUSE where it can't be had.
static inline int vrn_sqlite3_need_api(void) {
  if (vrn_sqlite3_has_api())
    return SQLITE_OK;
  int code = vrn_sqlite3_attach != 0 ? vrn_sqlite3_attach() : SQLITE_MISUSE;
  return code == SQLITE_OK && !vrn_sqlite3_has_api() ? SQLITE_MISUSE : code;
}

// Result codes whose macros have a structure that Swift doesn't import.
static const int VRN_OK_LOAD_PERMANENTLY = SQLITE_OK_LOAD_PERMANENTLY;
static const int VRN_OK_SYMLINK = SQLITE_OK_SYMLINK;
static const int VRN_CANTOPEN_ISDIR = SQLITE_CANTOPEN_ISDIR;
static const int VRN_CANTOPEN_SYMLINK = SQLITE_CANTOPEN_SYMLINK;
static const int VRN_IOERR_ACCESS = SQLITE_IOERR_ACCESS;
static const int VRN_IOERR_CHECKRESERVEDLOCK = SQLITE_IOERR_CHECKRESERVEDLOCK;
static const int VRN_IOERR_CLOSE = SQLITE_IOERR_CLOSE;
static const int VRN_IOERR_CORRUPTFS = SQLITE_IOERR_CORRUPTFS;
static const int VRN_IOERR_DELETE = SQLITE_IOERR_DELETE;
static const int VRN_IOERR_DELETE_NOENT = SQLITE_IOERR_DELETE_NOENT;
static const int VRN_IOERR_DIR_FSYNC = SQLITE_IOERR_DIR_FSYNC;
static const int VRN_IOERR_FSTAT = SQLITE_IOERR_FSTAT;
static const int VRN_IOERR_FSYNC = SQLITE_IOERR_FSYNC;
static const int VRN_IOERR_GETTEMPPATH = SQLITE_IOERR_GETTEMPPATH;
static const int VRN_IOERR_LOCK = SQLITE_IOERR_LOCK;
static const int VRN_IOERR_NOMEM = SQLITE_IOERR_NOMEM;
static const int VRN_IOERR_RDLOCK = SQLITE_IOERR_RDLOCK;
static const int VRN_IOERR_READ = SQLITE_IOERR_READ;
static const int VRN_IOERR_SHORT_READ = SQLITE_IOERR_SHORT_READ;
static const int VRN_IOERR_TRUNCATE = SQLITE_IOERR_TRUNCATE;
static const int VRN_IOERR_UNLOCK = SQLITE_IOERR_UNLOCK;
static const int VRN_IOERR_WRITE = SQLITE_IOERR_WRITE;
static const int VRN_READONLY_DIRECTORY = SQLITE_READONLY_DIRECTORY;

// What follows is SQLite's function of the same name, called through the table.
static inline int vrn_sqlite3_libversion_number(void) { return vrn_sqlite3_api->libversion_number(); }
static inline void *vrn_sqlite3_malloc(int n) { return vrn_sqlite3_api->malloc(n); }
static inline void vrn_sqlite3_free(void *p) { vrn_sqlite3_api->free(p); }
static inline void vrn_sqlite3_randomness(int n, void *p) { vrn_sqlite3_api->randomness(n, p); }
/// A copy of `s` which the SQLite with this table can free, by its own allocator; NULL where there is no memory.
static inline char *vrn_sqlite3_strdup_for(const sqlite3_api_routines *api, const char *s) { return api->mprintf("%s", s); }
static inline char *vrn_sqlite3_strdup(const char *s) { return vrn_sqlite3_strdup_for(vrn_sqlite3_api, s); }
/// To the application's error log (SQLITE_CONFIG_LOG); nothing happens where it has none.
static inline void vrn_sqlite3_log(int code, const char *message) {
  vrn_sqlite3_api->log(code, "%s", message);
}
static inline sqlite3_vfs *vrn_sqlite3_vfs_find(const char *name) { return vrn_sqlite3_api->vfs_find(name); }
static inline int vrn_sqlite3_vfs_register(sqlite3_vfs *vfs, int make_default) {
  return vrn_sqlite3_api->vfs_register(vfs, make_default);
}
static inline int vrn_sqlite3_vfs_unregister(sqlite3_vfs *vfs) { return vrn_sqlite3_api->vfs_unregister(vfs); }
/// The file of the database attached as `name`; NULL where there is none, "" where it has no name.
static inline const char *vrn_sqlite3_db_filename(sqlite3 *db, const char *name) {
  return vrn_sqlite3_api->db_filename(db, name);
}
/// `filename` must be the one that xOpen got: parameters stand behind its end.
static inline const char *vrn_sqlite3_uri_parameter(const char *filename, const char *name) {
  return vrn_sqlite3_api->uri_parameter(filename, name);
}
static inline int vrn_sqlite3_uri_boolean(const char *filename, const char *name, int otherwise) {
  return vrn_sqlite3_api->uri_boolean(filename, name, otherwise);
}
/// The name of parameter `n`, in the order of the file name; NULL behind the last one. From SQLite 3.31 on.
static inline const char *vrn_sqlite3_uri_key(const char *filename, int n) {
  return vrn_sqlite3_api->uri_key(filename, n);
}
static inline sqlite3_int64 vrn_sqlite3_uri_int64(const char *filename, const char *name, sqlite3_int64 otherwise) {
  return vrn_sqlite3_api->uri_int64(filename, name, otherwise);
}

/// The application's `sqlite3_temp_directory`, copied into `out` under the
/// mutex that guards it: its length, 0 where it is not set or longer than `n`
/// allows. A variable, not a function, so the table doesn't have it.
int vrn_sqlite3_temp_directory(char *out, int n);

#endif
