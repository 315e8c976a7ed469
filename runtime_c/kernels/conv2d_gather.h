/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d_gather -- conv2d and conv2d_sign without groups in plain C: the window is gathered once per pixel, then every
 * output channel is one inner product over it, whose constant length compilers turn into vector code.
 *
 * Contract: conv2d_ref.h. Every target can run it.
 * Layout    w is int8 [out_c][size], size being k_h * k_w * in_c filled up with zeros to a multiple of 16.
 * Scratch   the window: size int16, zeros where w has been filled up and outside the image.
 * Overflow  as in conv2d_ref.h: the bound holds for every partial sum in every order, and the filling adds 0. */
#ifndef BNN_CONV2D_GATHER_H
#define BNN_CONV2D_GATHER_H

#include "window.h"

BNN_INLINE int32_t bnn_gather_size(const bnn_conv_shape *s)
{
    return (s->k_h * s->k_w * s->in_c + 15) / 16 * 16;
}

BNN_INLINE int32_t bnn_gather_dot(const int16_t *window, const int8_t *filter, int32_t size)
{
    int32_t acc = 0;

    for (int32_t i = 0; i < size; i++) {
        acc += window[i] * filter[i];
    }
    return acc;
}

BNN_INLINE void bnn_conv2d_gather(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *affine,
                                  void *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;
    const int32_t size = bnn_gather_size(s);
    int16_t *window = (int16_t *)scratch;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_gather_stream(s, in, pixel / s->out_w, pixel % s->out_w, window, size);
        for (int32_t o = 0; o < s->out_c; o++) {
            const int32_t acc = bnn_gather_dot(window, w + o * size, size);
            bnn_store(out, s->out_type, pixel * s->out_c + o, bnn_affine_apply(&a, s->arithmetic, o, acc));
        }
    }
}

BNN_INLINE void bnn_conv2d_sign_gather(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                       uint32_t *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const int32_t size = bnn_gather_size(s);
    int16_t *window = (int16_t *)scratch;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_gather_stream(s, in, pixel / s->out_w, pixel % s->out_w, window, size);
        for (int32_t o = 0; o < s->out_c; o += 32) {
            uint32_t bits = 0;
            for (int32_t i = 0; i < bnn_min(32, s->out_c - o); i++) {
                bits |= (uint32_t)(bnn_gather_dot(window, w + (o + i) * size, size) < level[o + i]) << i;
            }
            out[pixel * bnn_words(s->out_c) + o / 32] = bits;
        }
    }
}

#endif
