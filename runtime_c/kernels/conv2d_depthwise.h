/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d_depthwise -- conv2d and conv2d_sign with one input channel per group, in plain C: up to 32 channels of a pixel
 * at once, tap by tap, so that inputs, weights and sums lie beside each other.
 *
 * Contract: conv2d_ref.h, with groups = in_c. Every target can run it. scratch: none.
 * Layout    w is int8 [k_h][k_w][out_c]; output channel o reads input channel o / (out_c / in_c).
 * Overflow  as in conv2d_ref.h: the bound holds for every partial sum. */
#ifndef BNN_CONV2D_DEPTHWISE_H
#define BNN_CONV2D_DEPTHWISE_H

#include "window.h"

#define BNN_DEPTHWISE_BLOCK 32

/* acc[i] = sum of output channel first + i of output pixel `pixel`; count is a constant of the caller, at most 32. */
BNN_INLINE void bnn_depthwise_sums(const bnn_conv_shape *s, const void *in, const int8_t *w, int32_t pixel,
                                   int32_t first, int32_t count, int32_t *acc)
{
    const int32_t y = pixel / s->out_w, x = pixel % s->out_w;
    const int32_t multiple = s->out_c / s->in_c;
    const bnn_box box = bnn_window_box(s, y, x);

    for (int32_t i = 0; i < count; i++) {
        acc[i] = 0;
    }
    for (int32_t ky = box.ky0; ky < box.ky1; ky++) {
        for (int32_t kx = box.kx0; kx < box.kx1; kx++) {
            const int32_t from = bnn_window_pixel(s, y, x, ky, kx) * s->in_c;
            const int8_t *tap = w + (ky * s->k_w + kx) * s->out_c + first;
            for (int32_t i = 0; i < count; i++) {
                acc[i] += bnn_load(in, s->in_type, from + (first + i) / multiple) * tap[i];
            }
        }
    }
}

BNN_INLINE void bnn_depthwise_affine(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *a,
                                     void *out, int32_t pixel, int32_t first, int32_t count)
{
    int32_t acc[BNN_DEPTHWISE_BLOCK];

    bnn_depthwise_sums(s, in, w, pixel, first, count, acc);
    for (int32_t i = 0; i < count; i++) {
        bnn_store(out, s->out_type, pixel * s->out_c + first + i,
                  bnn_affine_apply(a, s->arithmetic, first + i, acc[i]));
    }
}

BNN_INLINE void bnn_depthwise_sign(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                   uint32_t *out, int32_t pixel, int32_t first, int32_t count)
{
    int32_t acc[BNN_DEPTHWISE_BLOCK];
    uint32_t bits = 0;

    bnn_depthwise_sums(s, in, w, pixel, first, count, acc);
    for (int32_t i = 0; i < count; i++) {
        bits |= (uint32_t)(acc[i] < level[first + i]) << i;
    }
    out[pixel * bnn_words(s->out_c) + first / BNN_DEPTHWISE_BLOCK] = bits;
}

BNN_INLINE void bnn_conv2d_depthwise(const bnn_conv_shape *s, const void *in, const int8_t *w,
                                     const bnn_affine *affine, void *out, void *scratch, int32_t row_begin,
                                     int32_t row_end)
{
    const bnn_affine a = *affine;
    const int32_t rest = s->out_c % BNN_DEPTHWISE_BLOCK;

    (void)scratch;
    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        for (int32_t first = 0; first < s->out_c - rest; first += BNN_DEPTHWISE_BLOCK) {
            bnn_depthwise_affine(s, in, w, &a, out, pixel, first, BNN_DEPTHWISE_BLOCK);
        }
        if (rest > 0) {
            bnn_depthwise_affine(s, in, w, &a, out, pixel, s->out_c - rest, rest);
        }
    }
}

BNN_INLINE void bnn_conv2d_sign_depthwise(const bnn_conv_shape *s, const void *in, const int8_t *w,
                                          const int32_t *level, uint32_t *out, void *scratch, int32_t row_begin,
                                          int32_t row_end)
{
    const int32_t rest = s->out_c % BNN_DEPTHWISE_BLOCK;

    (void)scratch;
    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        for (int32_t first = 0; first < s->out_c - rest; first += BNN_DEPTHWISE_BLOCK) {
            bnn_depthwise_sign(s, in, w, level, out, pixel, first, BNN_DEPTHWISE_BLOCK);
        }
        if (rest > 0) {
            bnn_depthwise_sign(s, in, w, level, out, pixel, s->out_c - rest, rest);
        }
    }
}

#endif
