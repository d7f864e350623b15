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

#endif
