/* SPDX-License-Identifier: Apache-2.0 */
/* window.h -- gathers the input window of an output pixel into contiguous scratch, for the fast convolutions.
 *
 * Gathering costs one copy per pixel and is used by every output channel; behind it a convolution is a plain
 * inner product of two arrays in the order [k_h][k_w][channels]. */
#ifndef BNN_WINDOW_H
#define BNN_WINDOW_H

#include "bnn/kernel.h"

/* The taps of a window that lie inside the image: ky0 <= ky < ky1 and kx0 <= kx < kx1. May be empty. */
typedef struct {
    int32_t ky0, ky1, kx0, kx1;
} bnn_box;

/* First k with start + k * dilation >= 0, at most taps. */
BNN_INLINE int32_t bnn_box_first(int32_t start, int32_t dilation, int32_t taps)
{
    return start >= 0 ? 0 : bnn_min(taps, (dilation - 1 - start) / dilation);
}

/* Number of k with start + k * dilation < size, at most taps. */
BNN_INLINE int32_t bnn_box_end(int32_t start, int32_t dilation, int32_t size, int32_t taps)
{
    return start >= size ? 0 : bnn_min(taps, (size - start + dilation - 1) / dilation);
}

BNN_INLINE bnn_box bnn_window_box(const bnn_conv_shape *s, int32_t y, int32_t x)
{
    const int32_t iy = y * s->stride_h - s->pad_top;
    const int32_t ix = x * s->stride_w - s->pad_left;
    bnn_box box;

    box.ky0 = bnn_box_first(iy, s->dilation_h, s->k_h);
    box.ky1 = bnn_max(box.ky0, bnn_box_end(iy, s->dilation_h, s->in_h, s->k_h));
    box.kx0 = bnn_box_first(ix, s->dilation_w, s->k_w);
    box.kx1 = bnn_max(box.kx0, bnn_box_end(ix, s->dilation_w, s->in_w, s->k_w));
    return box;
}

BNN_INLINE int32_t bnn_box_taps(const bnn_box *box)
{
    return (box->ky1 - box->ky0) * (box->kx1 - box->kx0);
}

/* Index of the input pixel under tap (ky, kx) of output pixel (y, x), which must lie inside the image. */
BNN_INLINE int32_t bnn_window_pixel(const bnn_conv_shape *s, int32_t y, int32_t x, int32_t ky, int32_t kx)
{
    const int32_t iy = y * s->stride_h - s->pad_top + ky * s->dilation_h;
    const int32_t ix = x * s->stride_w - s->pad_left + kx * s->dilation_w;

    return iy * s->in_w + ix;
}

/* Taps that stand beside each other in the input and in the window: a whole row, or single ones when dilated. */
BNN_INLINE int32_t bnn_window_run(const bnn_conv_shape *s, const bnn_box *box)
{
    return s->dilation_w == 1 ? box->kx1 - box->kx0 : 1;
}

/* Packed window: out[ky][kx][words], zero (+1) outside the image and from the last word up to `size`. */
BNN_INLINE void bnn_gather_bits(const bnn_conv_shape *s, const uint32_t *in, int32_t y, int32_t x,
                                const bnn_box *box, uint32_t *out, int32_t size)
{
    const int32_t words = bnn_words(s->in_c);
    const int32_t run = bnn_window_run(s, box);
    const int full = bnn_box_taps(box) == s->k_h * s->k_w;

    for (int32_t i = full ? s->k_h * s->k_w * words : 0; i < size; i++) {
        out[i] = 0;
    }
    for (int32_t ky = box->ky0; ky < box->ky1; ky++) {
        for (int32_t kx = box->kx0; kx < box->kx1; kx += run) {
            const uint32_t *from = in + bnn_window_pixel(s, y, x, ky, kx) * words;
            uint32_t *to = out + (ky * s->k_w + kx) * words;
            for (int32_t i = 0; i < run * words; i++) {
                to[i] = from[i];
            }
        }
    }
}

/* Window of a stream, widened to int16: out[ky][kx][in_c], 0 outside the image and from the last one up to `size`. */
BNN_INLINE void bnn_gather_stream(const bnn_conv_shape *s, const void *in, int32_t y, int32_t x, int16_t *out,
                                  int32_t size)
{
    const bnn_box box = bnn_window_box(s, y, x);
    const int32_t run = bnn_window_run(s, &box);
    const int full = bnn_box_taps(&box) == s->k_h * s->k_w;

    for (int32_t i = full ? s->k_h * s->k_w * s->in_c : 0; i < size; i++) {
        out[i] = 0;
    }
    for (int32_t ky = box.ky0; ky < box.ky1; ky++) {
        for (int32_t kx = box.kx0; kx < box.kx1; kx += run) {
            const int32_t from = bnn_window_pixel(s, y, x, ky, kx) * s->in_c;
            int16_t *to = out + (ky * s->k_w + kx) * s->in_c;
            for (int32_t i = 0; i < run * s->in_c; i++) {
                to[i] = (int16_t)bnn_load(in, s->in_type, from + i);
            }
        }
    }
}

/* Epilogues of output pixel `pixel` from its accumulators, one per channel. */
BNN_INLINE void bnn_window_affine(const bnn_conv_shape *s, const int32_t *acc, const bnn_affine *a, void *out,
                                  int32_t pixel)
{
    for (int32_t o = 0; o < s->out_c; o++) {
        bnn_store(out, s->out_type, pixel * s->out_c + o, bnn_affine_apply(a, s->arithmetic, o, acc[o]));
    }
}

BNN_INLINE void bnn_window_sign(const bnn_conv_shape *s, const int32_t *acc, const int32_t *level, uint32_t *out,
                                int32_t pixel)
{
    for (int32_t o = 0; o < s->out_c; o += 32) {
        uint32_t bits = 0;
        for (int32_t i = 0; i < bnn_min(32, s->out_c - o); i++) {
            bits |= (uint32_t)(acc[o + i] < level[o + i]) << i;
        }
        out[pixel * bnn_words(s->out_c) + o / 32] = bits;
    }
}

#endif
