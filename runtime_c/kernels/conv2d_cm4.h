/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d on cores with the DSP extension (Cortex-M4, M7, M33): two products per SMLAD. Contract: conv2d_ref.h.
 *
 * SXTB16 turns bytes 0 and 2 of a word into two half words, and bytes 1 and 3 after a rotation. So the window is
 * gathered in the order 0 2 1 3 in every four inputs, and weights stay int8 in flash.
 *
 * Needs     groups = 1
 * w         [(out_c + 1) / 2][size / 4][2 channels][4] int8, size = k_h * k_w * in_c filled up to a multiple of 4; zeros
 * scratch   size int16
 * Overflow  sums are int32 in another order than _ref; the generator's bound holds for every order */
#ifndef BNN_CONV2D_CM4_H
#define BNN_CONV2D_CM4_H

#if !defined(__ARM_FEATURE_DSP)
#error "conv2d_cm4.h needs the DSP extension: only targets with the feature dsp may use it"
#endif

#include "window.h"

/* acc + low(a) * low(b) + high(a) * high(b) */
BNN_INLINE int32_t bnn_smlad(uint32_t a, uint32_t b, int32_t acc)
{
    int32_t sum;

    __asm__("smlad %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(b), "r"(acc));
    return sum;
}

/* Bytes 0 and 2 as signed half words. */
BNN_INLINE uint32_t bnn_sxtb16(uint32_t v)
{
    uint32_t halves;

    __asm__("sxtb16 %0, %1" : "=r"(halves) : "r"(v));
    return halves;
}

/* Bytes 1 and 3 as signed half words. */
BNN_INLINE uint32_t bnn_sxtb16_odd(uint32_t v)
{
    uint32_t halves;

    __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(v));
    return halves;
}

BNN_INLINE int32_t bnn_conv2d_cm4_size(const bnn_conv_shape *s)
{
    return (s->k_h * s->k_w * s->in_c + 3) / 4 * 4;
}

/* Gathers the window of a pixel and swaps the middle two of every four inputs. */
BNN_INLINE void bnn_conv2d_cm4_gather(const bnn_conv_shape *s, const void *in, int32_t y, int32_t x, int16_t *window)
{
    const int32_t size = bnn_conv2d_cm4_size(s);

    bnn_gather_stream(s, in, y, x, window, size);
    for (int32_t i = 0; i < size; i += 4) {
        const int16_t second = window[i + 1];
        window[i + 1] = window[i + 2];
        window[i + 2] = second;
    }
}

/* Sums of two channels, whose weights stand at w. */
BNN_INLINE void bnn_conv2d_cm4_pair(const int16_t *window, const int8_t *w, int32_t size, int32_t acc[2])
{
    int32_t acc0 = 0, acc1 = 0;

    for (int32_t i = 0; i < size; i += 4) {
        uint32_t x[2], v[2];
        __builtin_memcpy(x, window + i, sizeof x);
        __builtin_memcpy(v, w + 2 * i, sizeof v);
        acc0 = bnn_smlad(x[0], bnn_sxtb16(v[0]), acc0);
        acc1 = bnn_smlad(x[0], bnn_sxtb16(v[1]), acc1);
        acc0 = bnn_smlad(x[1], bnn_sxtb16_odd(v[0]), acc0);
        acc1 = bnn_smlad(x[1], bnn_sxtb16_odd(v[1]), acc1);
    }
    acc[0] = acc0;
    acc[1] = acc1;
}

BNN_INLINE void bnn_conv2d_cm4(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *affine,
                               void *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;
    const int32_t size = bnn_conv2d_cm4_size(s);

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_conv2d_cm4_gather(s, in, pixel / s->out_w, pixel % s->out_w, (int16_t *)scratch);
        for (int32_t o = 0; o < s->out_c; o += 2) {
            int32_t acc[2];
            bnn_conv2d_cm4_pair((const int16_t *)scratch, w + o * size, size, acc);
            for (int32_t i = 0; i < bnn_min(2, s->out_c - o); i++) {
                bnn_store(out, s->out_type, pixel * s->out_c + o + i, bnn_affine_apply(&a, s->narrow, o + i, acc[i]));
            }
        }
    }
}

BNN_INLINE void bnn_conv2d_sign_cm4(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                    uint32_t *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const int32_t size = bnn_conv2d_cm4_size(s);

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        uint32_t bits = 0;
        bnn_conv2d_cm4_gather(s, in, pixel / s->out_w, pixel % s->out_w, (int16_t *)scratch);
        for (int32_t o = 0; o < s->out_c; o += 2) {
            int32_t acc[2];
            bnn_conv2d_cm4_pair((const int16_t *)scratch, w + o * size, size, acc);
            for (int32_t i = 0; i < bnn_min(2, s->out_c - o); i++) {
                bits |= (uint32_t)(acc[i] < level[o + i]) << (o % 32 + i);
            }
            if (o % 32 == 30 || o + 2 >= s->out_c) {
                out[pixel * bnn_words(s->out_c) + o / 32] = bits;
                bits = 0;
            }
        }
    }
}

#endif
