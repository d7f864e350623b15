// Only in the static library for C programs (libverneuil.a). The core calls
// SQLite through the table that extensions get; a program that links SQLite and
// this library is never asked to load an extension, so verneuil_configure
// fetches the table here. In C since SQLite's functions must be called by name
// in this library, and must not be in the extension.
#include "CVerneuil.h"

// From the SQLite that the program links; a stranger's header would rename them (sqlite3ext.h).
extern int sqlite3_auto_extension(void (*entry)(void));
extern int sqlite3_cancel_auto_extension(void (*entry)(void));
extern int sqlite3_open(const char *name, sqlite3 **db);
extern int sqlite3_close(sqlite3 *db);

static int take_table(sqlite3 *db, char **message, const sqlite3_api_routines *api) {
  (void)db;
  (void)message;
  if (!vrn_sqlite3_has_api())
    vrn_sqlite3_set_api(api);
  return SQLITE_OK; // anything else would fail the connection
}

static int attach(void) {
  sqlite3 *db = 0;
  int code = sqlite3_auto_extension((void (*)(void))take_table);
  if (code != SQLITE_OK)
    return code;
  code = sqlite3_open(":memory:", &db);
  sqlite3_close(db);
  sqlite3_cancel_auto_extension((void (*)(void))take_table);
  return code;
}

__attribute__((constructor)) static void announce(void) { vrn_sqlite3_attach = attach; }
