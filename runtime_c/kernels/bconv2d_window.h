/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d_window.h -- bconv2d as an inner product over gathered windows: all but the counting.
 *
 * Contract: bconv2d_ref.h, with groups = 1. A variant passes its own function that counts; inlining makes the call
 * direct. w is in the order of _ref. scratch holds out_c int32, then k_h * k_w * words words. */
#ifndef BNN_BCONV2D_WINDOW_H
#define BNN_BCONV2D_WINDOW_H

#include "window.h"

/* For each of `count` filters of n words, `stride` words apart: dot -= 2 * (bits in which it differs from window). */
typedef void (*bnn_count_fn)(const uint32_t *window, const uint32_t *filters, int32_t n, int32_t stride,
                             int32_t count, int32_t *dots);

/* Dot products of output pixel `pixel` with all filters, at the start of scratch.
 *
 * Where padding does not count, the rows of the window inside the image are counted one by one: each is contiguous. */
BNN_INLINE const int32_t *bnn_window_dots(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                          int32_t pixel, void *scratch, bnn_count_fn count)
{
    const int32_t y = pixel / s->out_w, x = pixel % s->out_w;
    const int32_t words = bnn_words(s->in_c), size = s->k_h * s->k_w * words;
    const bnn_box box = bnn_window_box(s, y, x);
    const int32_t inside = bnn_box_taps(&box);
    const int32_t taps = s->pad_value == 1 ? s->k_h * s->k_w : inside;
    int32_t *dots = (int32_t *)scratch;
    uint32_t *window = (uint32_t *)scratch + s->out_c;

    bnn_gather_bits(s, in, y, x, &box, window, size);
    for (int32_t o = 0; o < s->out_c; o++) {
        dots[o] = taps * s->in_c;
    }
    if (taps == s->k_h * s->k_w) {
        count(window, w, size, size, s->out_c, dots);
    } else {
        for (int32_t ky = box.ky0; ky < box.ky1; ky++) {
            const int32_t first = (ky * s->k_w + box.kx0) * words;
            count(window + first, w + first, (box.kx1 - box.kx0) * words, size, s->out_c, dots);
        }
    }
    return dots;
}

#endif
