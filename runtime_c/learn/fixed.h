/* SPDX-License-Identifier: Apache-2.0 */
/* fixed.h -- the learner's arithmetic helpers: rounding shift, square root, random numbers.
 *
 * Right shifts of negative numbers are arithmetic; C99 leaves that to the compiler, so it is asserted.
 */
#ifndef BNN_LEARN_FIXED_H
#define BNN_LEARN_FIXED_H

#include "bnn/bnn.h"

BNN_STATIC_ASSERT(((-3) >> 1) == -2, learn_arithmetic_shift);

/* floor(v / 2^shift + 1/2): to nearest, ties towards +infinity. shift 0..62; v + 2^61 must fit. */
static inline int64_t bnn_round_shift(int64_t v, int32_t shift)
{
    return shift == 0 ? v : (v + ((int64_t)1 << (shift - 1))) >> shift;
}

static inline int32_t bnn_learn_clamp(int64_t v, int32_t lo, int32_t hi)
{
    return v < lo ? lo : v > hi ? hi : (int32_t)v;
}

/* floor(sqrt(v)), one result bit a turn. */
static inline uint32_t bnn_isqrt(uint64_t v)
{
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit != 0; bit >>= 2) {
        const uint64_t trial = root + bit;
        root >>= 1;
        if (v >= trial) {
            v -= trial;
            root += bit;
        }
    }
    return (uint32_t)root;
}

/* The same of 32 bits. */
static inline uint32_t bnn_isqrt32(uint32_t v)
{
    uint32_t root = 0;
    for (uint32_t bit = 1u << 30; bit != 0; bit >>= 2) {
        const uint32_t trial = root + bit;
        root >>= 1;
        if (v >= trial) {
            v -= trial;
            root += bit;
        }
    }
    return root;
}

/* PCG32, XSH-RR output on a 64-bit linear congruential state (O'Neill 2014). */
static inline uint32_t bnn_random(uint64_t *rng)
{
    const uint64_t old = *rng;
    const uint32_t mixed = (uint32_t)(((old >> 18) ^ old) >> 27);
    const uint32_t turn = (uint32_t)(old >> 59);
    *rng = old * 6364136223846793005u + 1442695040888963407u;
    return (mixed >> turn) | (mixed << ((32u - turn) & 31u));
}

static inline void bnn_random_seed(uint64_t *rng, uint64_t seed)
{
    *rng = 1442695040888963407u + seed; /* the state behind 0, plus the seed */
    (void)bnn_random(rng);
}

/* One draw below `limit` (at least 1). The bias is below limit / 2^32. */
static inline uint32_t bnn_random_below(uint64_t *rng, uint32_t limit)
{
    return (uint32_t)(((uint64_t)bnn_random(rng) * limit) >> 32);
}

#endif
