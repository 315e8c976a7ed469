/* SPDX-License-Identifier: Apache-2.0 */
/* tail_lanes.h -- the inner loops of the tail's backward pass, over rows of int16_t: a sum and a dot product.
 *
 * gcc vectorises the plain loops for NEON, SSE and AVX at -O3. For the DSP extension of Cortex-M4, M7 and M33, which
 * it does not, two halves of a word go at once. Sums are the same in every order. */
#ifndef BNN_TAIL_LANES_H
#define BNN_TAIL_LANES_H

#include "bnn/kernel.h"

/* Full vectorisation for one function, where the size of code is not what is asked for. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__) && \
    !defined(__ARM_FEATURE_DSP)
#define BNN_TAIL_HOT __attribute__((optimize("O3")))
#else
#define BNN_TAIL_HOT
#endif

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)

static inline uint32_t tail_load2(const int16_t *from)
{
    uint32_t v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}

static inline void tail_add2(int16_t *to, const int16_t *from)
{
    uint32_t sum;
    __asm__("sadd16 %0, %1, %2" : "=r"(sum) : "r"(tail_load2(to)), "r"(tail_load2(from)));
    __builtin_memcpy(to, &sum, sizeof sum);
}

/* to + row - 2 * lane, each half modulo 2^16 on the way: only the result has to fit. */
static inline void tail_share2(int16_t *to, const int16_t *row, const int16_t *lane)
{
    uint32_t sum = tail_load2(to);
    const uint32_t twice = tail_load2(lane);
    __asm__("sadd16 %0, %0, %1" : "+r"(sum) : "r"(tail_load2(row)));
    __asm__("ssub16 %0, %0, %1" : "+r"(sum) : "r"(twice));
    __asm__("ssub16 %0, %0, %1" : "+r"(sum) : "r"(twice));
    __builtin_memcpy(to, &sum, sizeof sum);
}

static inline int32_t tail_dot2(const int16_t *a, const int16_t *b, int32_t sum)
{
    __asm__("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(tail_load2(a)), "r"(tail_load2(b)));
    return sum;
}

#endif

/* to[i] += from[i]; the caller knows that no sum leaves int16_t. */
BNN_TAIL_HOT static inline void tail_add_row(int16_t *to, const int16_t *from, uint32_t n)
{
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
    for (; i + 8u <= n; i += 8u) {
        tail_add2(to + i, from + i);
        tail_add2(to + i + 2, from + i + 2);
        tail_add2(to + i + 4, from + i + 4);
        tail_add2(to + i + 6, from + i + 6);
    }
#endif
    for (; i < n; i++) {
        to[i] = (int16_t)(to[i] + from[i]);
    }
}

/* to[i] += row[i] - 2 * lane[i]; the caller knows that no result leaves int16_t. */
BNN_TAIL_HOT static inline void tail_add_share(int16_t *to, const int16_t *row, const int16_t *lane, uint32_t n)
{
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
    for (; i + 4u <= n; i += 4u) {
        tail_share2(to + i, row + i, lane + i);
        tail_share2(to + i + 2, row + i + 2, lane + i + 2);
    }
#endif
    for (; i < n; i++) {
        to[i] = (int16_t)(to[i] + row[i] - 2 * lane[i]);
    }
}

/* Sum of a[i] * b[i]; the caller knows that it fits. */
BNN_TAIL_HOT static inline int32_t tail_dot_row(const int16_t *a, const int16_t *b, uint32_t n)
{
    int32_t sum = 0;
    uint32_t i = 0;
#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
    for (; i + 8u <= n; i += 8u) {
        sum = tail_dot2(a + i, b + i, sum);
        sum = tail_dot2(a + i + 2, b + i + 2, sum);
        sum = tail_dot2(a + i + 4, b + i + 4, sum);
        sum = tail_dot2(a + i + 6, b + i + 6, sum);
    }
#endif
    for (; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

#endif
