#include "vrn_sqlite.h"

const sqlite3_api_routines *vrn_sqlite3_api = 0;
