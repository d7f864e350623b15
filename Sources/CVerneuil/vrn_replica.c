#include "vrn_replica.h"
#include <sys/resource.h>

int64_t vrn_file_size_limit(void) {
  struct rlimit r;
  if (getrlimit(RLIMIT_FSIZE, &r) < 0 || r.rlim_cur == RLIM_INFINITY || r.rlim_cur > INT64_MAX)
    return INT64_MAX;
  return (int64_t)r.rlim_cur;
}
