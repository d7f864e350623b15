// The system SQLite, for what links it: the Verneuil library, verneuilctl and tests. The core must not import this (docs/DESIGN.md).
#include <sqlite3.h>
