// Umbrella of the C that can't be Swift: variadic and errno-setting system
// calls, SQLite's extension table (macros), carry-less multiplication.
#ifndef CVERNEUIL_H
#define CVERNEUIL_H
#include "vrn_fork.h"
#include "vrn_system.h"
#include "vrn_log.h"
#include "vrn_process.h"
#include "vrn_sqlite.h"
#include "vrn_file.h"
#include "vrn_held.h"
#include "vrn_umash.h"
#include "vrn_replica.h"
#include "vrn_snapshot.h"
#endif
