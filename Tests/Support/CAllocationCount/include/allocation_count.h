// How often this thread has asked for memory. In C, since it takes the place
// of malloc(3) and its kin: a program that is linked with this has its own,
// which every library that it loads gets, and which count and pass on to libc's.
#ifndef ALLOCATION_COUNT_H
#define ALLOCATION_COUNT_H
#include <stdint.h>

/// Calls of malloc, calloc, realloc and the aligned ones by the calling thread
/// since it began. Always 0 under the address and thread sanitizers, which have a malloc of their own.
uint64_t allocation_count(void);

#endif
