// UMASH over inputs of more than 8 bytes with the carry-less multiply
// instruction (PCLMULQDQ, PMULL), which Swift can't emit. What it computes is
// in docs/FORMAT.md; Sources/VerneuilFormat has the same in portable Swift.
#ifndef VRN_UMASH_H
#define VRN_UMASH_H
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

// What a purpose string is expanded to, once; read-only afterwards.
typedef struct {
    uint64_t f[2];   // multipliers of the primary and the secondary hash, below 2^61 - 1
    uint64_t f2[2];  // their squares mod 2^61 - 1
    uint64_t oh[34]; // keys of the block function
    bool accelerated; // vrn_umash_available(), so that the hot path asks its own cache line
} vrn_umash_parameters;

typedef struct {
    uint64_t primary;
    uint64_t secondary;
} vrn_umash_pair;

// `oh` as Swift can index it: an imported C array is a tuple.
static inline const uint64_t *vrn_umash_keys(const vrn_umash_parameters *parameters) {
    return parameters->oh;
}

// Does this CPU have the instruction? Where not, the next function must not be called.
bool vrn_umash_available(void);

// Both hashes of bytes[0 ..< count], count > 8, seed 0.
vrn_umash_pair vrn_umash_long(const vrn_umash_parameters *parameters, const void *bytes, size_t count);
#endif
