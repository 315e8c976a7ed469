/* SPDX-License-Identifier: Apache-2.0 */
/* kernel.h -- what kernels share: shapes, typed loads and stores, bits, and the affine epilogue.
 *
 * A kernel is a static inline function over a `const` shape; generated code holds one instance per distinct
 * shape, so each field below is a compile-time constant there, and choices by type or arithmetic vanish.
 *
 * Layouts   stream map   [H][W][C] of int8 (BNN_S8) or int16 (BNN_S16); of float (BNN_F32) in kernels/float_*.h
 *           packed map   [H][W][words], words = (C + 31) / 32; channel c is bit c % 32 of word c / 32,
 *                        bit 1 stands for -1, unused bits are 0 */
#ifndef BNN_KERNEL_H
#define BNN_KERNEL_H

#include "bnn/bnn.h"

/* How an instance computes an affine rule; the generator has proved that the result is exact.
 *
 *     BNN_WIDE     as it is written, in 64 bits
 *     BNN_NARROW   in 32 bits: product and sum fit, and the biases are int32
 *     BNN_HIGH     scaled so that the shift is by 32: the result is the high word of a 64-bit sum */
#define BNN_WIDE 0
#define BNN_NARROW 1
#define BNN_HIGH 2

/* Geometry of conv2d and bconv2d. `pad_value` and `groups` as in docs/numerics.md; in_type BNN_BITS for bconv2d. */
typedef struct {
    int32_t in_h, in_w, in_c;
    int32_t out_h, out_w, out_c;
    int32_t k_h, k_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;
    int32_t dilation_h, dilation_w;
    int32_t groups;
    int32_t pad_value;
    int32_t in_type, out_type;
    int32_t arithmetic;
} bnn_conv_shape;

/* Geometry of a pooling window, channel by channel. `denominator` is for avgpool with padding: a common multiple of the
 * numbers of positions inside the image; 0 without padding. */
typedef struct {
    int32_t in_h, in_w, channels;
    int32_t out_h, out_w;
    int32_t k_h, k_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left;
    int32_t dilation_h, dilation_w;
    int32_t denominator;
    int32_t in_type, out_type;
    int32_t arithmetic;
} bnn_pool_shape;

/* An operation that keeps the position of every element. Vectors have one row of one pixel. */
typedef struct {
    int32_t rows, width, channels;
    int32_t in_type, out_type;
    int32_t arithmetic;
} bnn_map_shape;

/* A product of two streams, or a sum of two real ones. `broadcast`: b is a vector, the same for every pixel. */
typedef struct {
    int32_t rows, width, channels;
    int32_t a_type, b_type;
    int32_t broadcast;
    int32_t out_type;
    int32_t arithmetic;
} bnn_mul_shape;

/* An operation that moves channels inside each pixel. `inputs`: how many tensors it reads. */
typedef struct {
    int32_t rows, width;
    int32_t in_c, out_c;
    int32_t inputs;
    int32_t in_type;
} bnn_move_shape;

/* Of what gives the scores; `arithmetic` is for the kernel scores, which has an affine. */
typedef struct {
    int32_t in_c, out_c;
    int32_t in_type;
    int32_t arithmetic;
} bnn_dense_shape;

/* q = clamp((clamp(acc, acc_lo, acc_hi) * mult[c] + bias[c]) >> shift, lo, hi): docs/numerics.md, "Affine".
 * bias32 belongs to BNN_NARROW, bias64 to the others, and the other pointer is NULL. With BNN_HIGH, shift says by how
 * much the accumulator is shifted left, and bias has been scaled with it. */
typedef struct {
    const int32_t *mult;
    const int32_t *bias32;
    const int64_t *bias64;
    int32_t shift;
    int32_t lo, hi;
    int32_t acc_lo, acc_hi;
} bnn_affine;

BNN_INLINE int32_t bnn_min(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

BNN_INLINE int32_t bnn_max(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

BNN_INLINE int32_t bnn_clamp(int32_t x, int32_t lo, int32_t hi)
{
    return bnn_min(bnn_max(x, lo), hi);
}

BNN_INLINE int32_t bnn_load(const void *array, int32_t type, int32_t i)
{
    return type == BNN_S8 ? ((const int8_t *)array)[i] : ((const int16_t *)array)[i];
}

BNN_INLINE void bnn_store(void *array, int32_t type, int32_t i, int32_t value)
{
    if (type == BNN_S8) {
        ((int8_t *)array)[i] = (int8_t)value;
    } else {
        ((int16_t *)array)[i] = (int16_t)value;
    }
}

/* The signed shifts are arithmetic: implementation-defined in C99, and so defined by every compiler we list. */
BNN_INLINE int32_t bnn_affine_apply(const bnn_affine *a, int32_t arithmetic, int32_t c, int32_t acc)
{
    const int32_t x = bnn_clamp(acc, a->acc_lo, a->acc_hi);

    if (arithmetic == BNN_NARROW) {
        return bnn_clamp((x * a->mult[c] + a->bias32[c]) >> a->shift, a->lo, a->hi);
    } else if (arithmetic == BNN_HIGH) {
        const int32_t scaled = (int32_t)((uint32_t)x << a->shift);
        return bnn_clamp((int32_t)(((int64_t)scaled * a->mult[c] + a->bias64[c]) >> 32), a->lo, a->hi);
    } else {
        const int64_t q = ((int64_t)x * a->mult[c] + a->bias64[c]) >> a->shift;
        return (int32_t)(q < a->lo ? a->lo : q > a->hi ? a->hi : q);
    }
}

BNN_INLINE int32_t bnn_words(int32_t channels)
{
    return (channels + 31) / 32;
}

/* Number of one bits, without the libgcc call that __builtin_popcount becomes on Arm: sums of 1, 2, 4 bits in
 * place, then a multiplication adds the four bytes. */
BNN_INLINE int32_t bnn_popcount32(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    v = (v + (v >> 4)) & 0x0F0F0F0Fu;
    return (int32_t)((v * 0x01010101u) >> 24);
}

/* Bits first .. first + count - 1 of a packed pixel, count in 1..32, moved to bit 0. */
BNN_INLINE uint32_t bnn_bits(const uint32_t *words, int32_t first, int32_t count)
{
    const int32_t word = first / 32;
    const int32_t bit = first % 32;
    uint32_t v = words[word] >> bit;

    if (bit + count > 32) {
        v |= words[word + 1] << (32 - bit);
    }
    return count == 32 ? v : v & ((1u << count) - 1u);
}

/* Appends `count` (1..32) bits, the others being 0, behind the first `at` bits of packed words. What lies behind the
 * appended bits in their last word becomes 0, so that words need no clearing. */
BNN_INLINE void bnn_append_bits(uint32_t *words, int32_t at, uint32_t bits, int32_t count)
{
    const int32_t word = at / 32;
    const int32_t bit = at % 32;

    words[word] = bit == 0 ? bits : words[word] | bits << bit;
    if (bit + count > 32) {
        words[word + 1] = bits >> (32 - bit);
    }
}

#endif
