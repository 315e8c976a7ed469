/* SPDX-License-Identifier: Apache-2.0 */
/* float.h -- what the kernels of float32 builds share: elements of a real or of a binary map as float, one step of
 * loops, and the exponential function.
 *
 * float32 is the reference that integers are held against, so these kernels are plain, in one variant, and equal the
 * float graph up to rounding: sums are added in the order of memory, products and sums are rounded one by one (the
 * build sets -ffp-contract=off). No libm: it is not there on a microcontroller. */
#ifndef BNN_FLOAT_H
#define BNN_FLOAT_H

#include "bnn/kernel.h"

/* Channel c of pixel `pixel`: the float itself (BNN_F32), or what the bit stands for (BNN_BITS). */
BNN_INLINE float bnn_float_load(const void *array, int32_t type, int32_t pixel, int32_t channels, int32_t c)
{
    if (type == BNN_BITS) {
        const uint32_t word = ((const uint32_t *)array)[pixel * bnn_words(channels) + c / 32];
        return (word >> (c % 32)) & 1u ? -1.0f : 1.0f;
    }
    return ((const float *)array)[pixel * channels + c];
}

typedef float (*bnn_float_fn)(float x);

/* out = f(in), element by element; inlining makes the call direct. */
BNN_INLINE void bnn_float_each(const bnn_map_shape *s, const void *in, float *out, bnn_float_fn f, int32_t row_begin,
                               int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            out[pixel * s->channels + c] = f(bnn_float_load(in, s->in_type, pixel, s->channels, c));
        }
    }
}

/* 2^n, -126 <= n <= 127: the exponent field of an IEEE 754 single. */
BNN_INLINE float bnn_float_power2(int32_t n)
{
    union {
        uint32_t bits;
        float value;
    } u;

    u.bits = (uint32_t)(n + 127) << 23;
    return u.value;
}

/* e^x with a relative error below 2^-22 for -87 <= x <= 88; beyond, the value at the nearer end (1.6e-38, 1.7e38).
 *
 * x = n * ln 2 + r with |r| <= ln 2 / 2 + rounding, so e^x = 2^n * e^r. ln 2 is a number of 9 bits, whose products with
 * n are exact, plus a small rest. Of the series of e^r eight terms are added: the next is r^8 / 8! < 2^-27. */
BNN_INLINE float bnn_float_exp(float x)
{
    const float limited = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const int32_t n = (int32_t)(limited * 1.44269504f + (limited < 0.0f ? -0.5f : 0.5f));
    const float r = (limited - (float)n * 0.693359375f) + (float)n * 2.12194440e-4f;
    float sum = 1.0f + r / 7.0f;

    for (int32_t k = 6; k > 0; k--) {
        sum = 1.0f + r / (float)k * sum;
    }
    return sum * bnn_float_power2(n);
}

/* e^x - 1 with a relative error below 2^-20, near 0 too, where the difference would cancel and the series does not. */
BNN_INLINE float bnn_float_expm1(float x)
{
    float sum = 1.0f + x / 9.0f;

    if (x < -0.35f || x > 0.35f) {
        return bnn_float_exp(x) - 1.0f;
    }
    for (int32_t k = 8; k > 1; k--) {
        sum = 1.0f + x / (float)k * sum;
    }
    return x * sum;
}

#endif
