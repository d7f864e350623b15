// UMASH with carry-less multiplication; see vrn_umash.h. In C because Swift has
// no intrinsic for PCLMULQDQ or PMULL. One algorithm, vrn_umash_long, on a handful
// of 128-bit operations per architecture; the attribute on each function lets
// the rest of the program run on CPUs without them.
#include "vrn_umash.h"

#if defined(__x86_64__)

#include <immintrin.h>

typedef __m128i v128;
#define VRN_TARGET __attribute__((target("pclmul,sse4.1")))
#define VRN_INLINE __attribute__((target("pclmul,sse4.1"), always_inline)) static inline

VRN_INLINE v128 load(const void *p) { return _mm_loadu_si128((const __m128i *)p); }
VRN_INLINE v128 make(uint64_t lo, uint64_t hi) { return _mm_set_epi64x((long long)hi, (long long)lo); }
VRN_INLINE v128 eor(v128 a, v128 b) { return _mm_xor_si128(a, b); }
VRN_INLINE v128 twice(v128 a) { return _mm_add_epi64(a, a); }
VRN_INLINE v128 product_of_halves(v128 a) { return _mm_clmulepi64_si128(a, a, 0x10); }
VRN_INLINE uint64_t low(v128 a) { return (uint64_t)_mm_cvtsi128_si64(a); }
VRN_INLINE uint64_t high(v128 a) { return (uint64_t)_mm_extract_epi64(a, 1); }

bool vrn_umash_available(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

#define VRN_UMASH 1

#elif defined(__aarch64__) && !defined(__AARCH64EB__)

#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

typedef uint64x2_t v128;
#define VRN_TARGET __attribute__((target("aes")))
#define VRN_INLINE __attribute__((target("aes"), always_inline)) static inline

VRN_INLINE v128 load(const void *p) { return vreinterpretq_u64_u8(vld1q_u8((const uint8_t *)p)); }
VRN_INLINE v128 make(uint64_t lo, uint64_t hi) { return vcombine_u64(vcreate_u64(lo), vcreate_u64(hi)); }
VRN_INLINE v128 eor(v128 a, v128 b) { return veorq_u64(a, b); }
VRN_INLINE v128 twice(v128 a) { return vaddq_u64(a, a); }
VRN_INLINE v128 product_of_halves(v128 a) {
    return vreinterpretq_u64_p128(vmull_p64((poly64_t)vgetq_lane_u64(a, 0), (poly64_t)vgetq_lane_u64(a, 1)));
}
VRN_INLINE uint64_t low(v128 a) { return vgetq_lane_u64(a, 0); }
VRN_INLINE uint64_t high(v128 a) { return vgetq_lane_u64(a, 1); }

bool vrn_umash_available(void) {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & (1UL << 4)) != 0; // HWCAP_PMULL
#else
    return true; // every 64-bit ARM that Darwin runs on
#endif
}

#define VRN_UMASH 1

#endif

#ifdef VRN_UMASH

// A piece of 16 bytes is (a, b): a in the low half, b in the high one. What a
// block of `count` pieces has summed up before its last one:
typedef struct {
    v128 x;       // the latest product
    v128 plain;   // xor of the products before it
    v128 shifted; // xor of all products x_i << (count - 1 - i), by Horner's rule
    v128 keyed;   // xor of all pieces with their keys
} block_sums;

VRN_INLINE block_sums no_sums(void) {
    v128 zero = make(0, 0);
    block_sums sums = {zero, zero, zero, zero};
    return sums;
}

VRN_INLINE void add_piece(block_sums *sums, const vrn_umash_parameters *p, const uint8_t *bytes, unsigned i) {
    v128 piece = eor(load(bytes + 16 * i), load(&p->oh[2 * i]));
    sums->keyed = eor(sums->keyed, piece);
    sums->plain = eor(sums->plain, sums->x);
    sums->x = product_of_halves(piece);
    sums->shifted = twice(eor(sums->shifted, sums->x));
}

typedef struct {
    v128 primary, secondary;
} block_values;

// With the last of `count` pieces, the only one that is multiplied as integers
// are, and the number of real bytes.
VRN_INLINE block_values
finish_block(const block_sums *sums, const vrn_umash_parameters *p, v128 last, unsigned count, uint64_t size) {
    v128 key = load(&p->oh[2 * (count - 1)]);
    unsigned __int128 e = (unsigned __int128)(low(last) + low(key)) * (high(last) + high(key));
    uint64_t e_low = (uint64_t)e, e_high = (uint64_t)(e >> 64) + (size & 255);
    v128 end = make(e_low, e_high ^ e_low);
    v128 keyed = eor(sums->keyed, eor(last, key));
    v128 check = product_of_halves(eor(keyed, load(&p->oh[32])));
    block_values values = {
        .primary = eor(eor(sums->plain, sums->x), end),
        .secondary = eor(eor(check, end), eor(sums->shifted, twice(sums->plain))),
    };
    return values;
}

VRN_INLINE block_values whole_block(const vrn_umash_parameters *p, const uint8_t *bytes) {
    block_sums sums = no_sums();
    // 1.4 times as fast as the loop.
#pragma clang loop unroll(full)
    for (unsigned i = 0; i < 15; i++) add_piece(&sums, p, bytes, i);
    return finish_block(&sums, p, load(bytes + 240), 16, 256);
}

// The input's last block of `size` bytes, 1 to 255; `last` is its last piece.
VRN_INLINE block_values partial_block(const vrn_umash_parameters *p, const uint8_t *bytes, v128 last, size_t size) {
    unsigned count = (unsigned)((size + 15) / 16);
    block_sums sums = no_sums();
    for (unsigned i = 0; i + 1 < count; i++) add_piece(&sums, p, bytes, i);
    return finish_block(&sums, p, last, count, size);
}

// Arithmetic mod 2^64 - 8. A carry out of 64 bits is worth 8.
VRN_INLINE uint64_t add(uint64_t a, uint64_t b) {
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? sum + 8 : sum;
}
VRN_INLINE uint64_t multiply(uint64_t f, uint64_t a) { // f < 2^61
    unsigned __int128 product = (unsigned __int128)f * a;
    return add((uint64_t)product, 8 * (uint64_t)(product >> 64));
}
VRN_INLINE uint64_t reduce(uint64_t a) { return a >= (uint64_t)-8 ? a + 8 : a; }

VRN_INLINE uint64_t step(uint64_t acc, uint64_t f, uint64_t f2, v128 value) {
    return reduce(add(multiply(f2, add(acc, low(value))), multiply(f, high(value))));
}

VRN_INLINE uint64_t rotate(uint64_t a, int k) { return a << k | a >> (64 - k); }
VRN_INLINE uint64_t finish(uint64_t acc) { return acc ^ rotate(acc, 8) ^ rotate(acc, 33); }

VRN_TARGET
vrn_umash_pair vrn_umash_long(const vrn_umash_parameters *p, const void *data, size_t count) {
    const uint8_t *bytes = data;
    const uint8_t *end = bytes + count;
    uint64_t primary = 0, secondary = 0;
    while ((size_t)(end - bytes) >= 256) {
        block_values v = whole_block(p, bytes);
        primary = step(primary, p->f[0], p->f2[0], v.primary);
        secondary = step(secondary, p->f[1], p->f2[1], v.secondary);
        bytes += 256;
    }
    size_t rest = (size_t)(end - bytes);
    if (rest > 0) {
        v128 last;
        if (count >= 16) {
            last = load(end - 16);
        } else {
            uint64_t a, b;
            __builtin_memcpy(&a, bytes, 8);
            __builtin_memcpy(&b, end - 8, 8);
            last = make(a, b);
        }
        block_values v = partial_block(p, bytes, last, rest);
        primary = step(primary, p->f[0], p->f2[0], v.primary);
        secondary = step(secondary, p->f[1], p->f2[1], v.secondary);
    }
    vrn_umash_pair pair = {finish(primary), finish(secondary)};
    return pair;
}

#else

bool vrn_umash_available(void) { return false; }

vrn_umash_pair vrn_umash_long(const vrn_umash_parameters *parameters, const void *bytes, size_t count) {
    (void)parameters, (void)bytes, (void)count;
    vrn_umash_pair pair = {0, 0};
    return pair;
}

#endif
