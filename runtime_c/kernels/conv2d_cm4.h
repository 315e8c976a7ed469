/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d on cores with the DSP extension (Cortex-M4, M7, M33): two products per SMLAD. Contract: conv2d_ref.h.
 *
 * Weights stay int8 in flash. SXTB16 turns bytes 0 and 2 of a word into two half words, and bytes 1 and 3 after a
 * rotation; so every four weights are stored in the order 0 2 1 3, and the pairs come out as the inputs stand.
 *
 * Needs     groups = 1
 * w         [(out_c + 3) / 4][size / 4][4 channels][4] int8, size = k_h * k_w * in_c filled up with zeros to a
 *           multiple of 4
 * scratch   out_c filled up to a multiple of 4 int32, then size int16
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

/* Four bytes of an array of any type. */
BNN_INLINE uint32_t bnn_word(const void *from)
{
    uint32_t word;

    __builtin_memcpy(&word, from, sizeof word);
    return word;
}

/* Sums of 4 * quads channels, four at a time. One copy in the program, for all shapes. */
BNN_OUTLINE void bnn_conv2d_cm4_sums(const int16_t *window, const int8_t *w, int32_t size, int32_t quads,
                                     int32_t *acc)
{
    for (int32_t quad = 0; quad < quads; quad++, acc += 4) {
        int32_t acc0 = 0, acc1 = 0, acc2 = 0, acc3 = 0;
        for (int32_t i = 0; i < size; i += 4, w += 16) {
            const uint32_t x01 = bnn_word(window + i), x23 = bnn_word(window + i + 2);
            const uint32_t w0 = bnn_word(w), w1 = bnn_word(w + 4), w2 = bnn_word(w + 8), w3 = bnn_word(w + 12);
            acc0 = bnn_smlad(x01, bnn_sxtb16(w0), acc0);
            acc1 = bnn_smlad(x01, bnn_sxtb16(w1), acc1);
            acc2 = bnn_smlad(x01, bnn_sxtb16(w2), acc2);
            acc3 = bnn_smlad(x01, bnn_sxtb16(w3), acc3);
            acc0 = bnn_smlad(x23, bnn_sxtb16_odd(w0), acc0);
            acc1 = bnn_smlad(x23, bnn_sxtb16_odd(w1), acc1);
            acc2 = bnn_smlad(x23, bnn_sxtb16_odd(w2), acc2);
            acc3 = bnn_smlad(x23, bnn_sxtb16_odd(w3), acc3);
        }
        acc[0] = acc0;
        acc[1] = acc1;
        acc[2] = acc2;
        acc[3] = acc3;
    }
}

/* Accumulators of output pixel `pixel`, at the start of scratch; the window lies behind them. */
BNN_INLINE const int32_t *bnn_conv2d_cm4_acc(const bnn_conv_shape *s, const void *in, const int8_t *w, int32_t pixel,
                                             void *scratch)
{
    const int32_t size = (s->k_h * s->k_w * s->in_c + 3) / 4 * 4;
    const int32_t quads = (s->out_c + 3) / 4;
    int32_t *acc = (int32_t *)scratch;
    int16_t *window = (int16_t *)(void *)(acc + 4 * quads);

    bnn_gather_stream(s, in, pixel / s->out_w, pixel % s->out_w, window, size);
    bnn_conv2d_cm4_sums(window, w, size, quads, acc);
    return acc;
}

BNN_INLINE void bnn_conv2d_cm4(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *affine,
                               void *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_affine(s, bnn_conv2d_cm4_acc(s, in, w, pixel, scratch), &a, out, pixel);
    }
}

BNN_INLINE void bnn_conv2d_sign_cm4(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                    uint32_t *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_sign(s, bnn_conv2d_cm4_acc(s, in, w, pixel, scratch), level, out, pixel);
    }
}

#endif
