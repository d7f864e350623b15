// fork(2), which Swift does not import: tests need it as hosts in C do it.
#ifndef CFORKSUPPORT_H
#define CFORKSUPPORT_H
#include <unistd.h>

static inline int vrn_test_fork(void) { return fork(); }

#endif
