/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d_window.h -- bconv2d as an inner product over gathered windows: all but the counting.
 *
 * A variant passes its own function that counts the bits in which n words differ; inlining makes the call direct.
 * Contract: bconv2d_ref.h, with groups = 1. w is in the order of _ref; scratch holds k_h * k_w * words words. */
#ifndef BNN_BCONV2D_WINDOW_H
#define BNN_BCONV2D_WINDOW_H

#include "window.h"

typedef int32_t (*bnn_differ_fn)(const uint32_t *a, const uint32_t *b, int32_t n);

/* A gathered pixel: `taps` of it count, `whole` says whether all of them do. */
typedef struct {
    const uint32_t *window;
    bnn_box box;
    int32_t taps;
    int whole;
} bnn_pixel;

BNN_INLINE bnn_pixel bnn_pixel_gather(const bnn_conv_shape *s, const uint32_t *in, int32_t y, int32_t x,
                                      void *scratch)
{
    const int32_t taps = s->k_h * s->k_w;
    bnn_pixel p;

    p.window = (const uint32_t *)scratch;
    p.box = bnn_window_box(s, y, x);
    p.taps = s->pad_value == 1 ? taps : bnn_box_taps(&p.box);
    p.whole = p.taps == taps;
    bnn_gather_bits(s, in, y, x, &p.box, (uint32_t *)scratch, taps * bnn_words(s->in_c));
    return p;
}

/* Where padding does not count, only the rows of the window inside the image, each contiguous. */
BNN_INLINE int32_t bnn_pixel_dot(const bnn_conv_shape *s, const bnn_pixel *p, const uint32_t *w, int32_t o,
                                 bnn_differ_fn count)
{
    const int32_t words = bnn_words(s->in_c);
    const uint32_t *filter = w + o * s->k_h * s->k_w * words;
    int32_t differ = 0;

    if (p->whole) {
        differ = count(p->window, filter, s->k_h * s->k_w * words);
    } else {
        for (int32_t ky = p->box.ky0; ky < p->box.ky1; ky++) {
            const int32_t first = (ky * s->k_w + p->box.kx0) * words;
            differ += count(p->window + first, filter + first, (p->box.kx1 - p->box.kx0) * words);
        }
    }
    return p->taps * s->in_c - 2 * differ;
}

/* Output pixel `pixel`: all channels as stream values. */
BNN_INLINE void bnn_pixel_affine(const bnn_conv_shape *s, const bnn_pixel *p, const uint32_t *w,
                                 const bnn_affine *a, void *out, int32_t pixel, bnn_differ_fn count)
{
    for (int32_t o = 0; o < s->out_c; o++) {
        const int32_t q = bnn_affine_apply(a, s->narrow, o, bnn_pixel_dot(s, p, w, o, count));
        bnn_store(out, s->out_type, pixel * s->out_c + o, q);
    }
}

/* Output pixel `pixel`: all channels as bits. */
BNN_INLINE void bnn_pixel_sign(const bnn_conv_shape *s, const bnn_pixel *p, const uint32_t *w, const int32_t *level,
                               uint32_t *out, int32_t pixel, bnn_differ_fn count)
{
    for (int32_t o = 0; o < s->out_c; o += 32) {
        uint32_t bits = 0;
        for (int32_t i = 0; i < bnn_min(32, s->out_c - o); i++) {
            bits |= (uint32_t)(bnn_pixel_dot(s, p, w, o + i, count) < level[o + i]) << i;
        }
        out[pixel * bnn_words(s->out_c) + o / 32] = bits;
    }
}

#endif
