// Block functions of the UMASH fingerprint that need the carry-less multiply
// instruction, which Swift can't emit.
#ifndef VRN_UMASH_H
#define VRN_UMASH_H
#include <stddef.h>
#include <stdint.h>
#endif
