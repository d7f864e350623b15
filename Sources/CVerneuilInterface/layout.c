// The structs of verneuil.h are shared with programs compiled against the
// original: their layout must not move.
#include "verneuil.h"

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(struct verneuil_options) == 40, "verneuil_options");
_Static_assert(offsetof(struct verneuil_options, tempdir) == 8, "tempdir");
_Static_assert(offsetof(struct verneuil_options, replication_spooling_dir) == 16, "replication_spooling_dir");
_Static_assert(offsetof(struct verneuil_options, replication_spooling_dir_permissions) == 24, "permissions");
_Static_assert(offsetof(struct verneuil_options, json_options) == 32, "json_options");
_Static_assert(sizeof(struct verneuil_replication_info) == 72, "verneuil_replication_info");
_Static_assert(offsetof(struct verneuil_replication_info, header_fprint) == 8, "header_fprint");
_Static_assert(offsetof(struct verneuil_replication_info, contents_fprint) == 24, "contents_fprint");
_Static_assert(offsetof(struct verneuil_replication_info, ctime) == 40, "ctime");
_Static_assert(offsetof(struct verneuil_replication_info, ctime_ns) == 48, "ctime_ns");
_Static_assert(offsetof(struct verneuil_replication_info, num_bytes) == 56, "num_bytes");
_Static_assert(offsetof(struct verneuil_replication_info, bytes) == 64, "bytes");
#endif
