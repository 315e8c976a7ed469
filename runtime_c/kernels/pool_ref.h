/* SPDX-License-Identifier: Apache-2.0 */
/* pool -- windows reduced channel by channel: maxpool, bmaxpool, avgpool.
 *
 *     maxpool    out = the largest value in the window
 *     bmaxpool   bit = 1 (-1) only where every bit of the window is 1: +1 wins
 *     avgpool    out = affine(sum over the window); a global average is a window of the whole map
 *                with a denominator D: out = affine(sum * (D / n)), n being the positions inside the image
 *
 * Layout    stream maps [h][w][channels] (in_type, out_type; equal for maxpool), packed maps [h][w][words].
 * Padding   positions outside the image never win a maximum and add nothing to a sum. A window wholly outside
 *           does not occur: the generator refuses it.
 * Overflow  avgpool: the generator bounds k_h * k_w * max |in| to int32, or D * max |in|. D is a multiple of every n,
 *           so D / n is exact, and |sum| * D / n <= n * max |in| * D / n.
 * Rows      writes output rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_POOL_REF_H
#define BNN_POOL_REF_H

#include "bnn/kernel.h"

/* Index of the input pixel under tap (ky, kx) of output pixel (y, x); -1 outside the image. */
BNN_INLINE int32_t bnn_pool_pixel(const bnn_pool_shape *s, int32_t y, int32_t x, int32_t ky, int32_t kx)
{
    const int32_t iy = y * s->stride_h - s->pad_top + ky * s->dilation_h;
    const int32_t ix = x * s->stride_w - s->pad_left + kx * s->dilation_w;
    const int inside = iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w;

    return inside ? iy * s->in_w + ix : -1;
}

BNN_INLINE void bnn_maxpool_ref(const bnn_pool_shape *s, const void *in, void *out, int32_t row_begin,
                                int32_t row_end)
{
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t i = 0; i < s->out_w * s->channels; i++) {
            int32_t best = INT32_MIN;
            for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
                const int32_t pixel = bnn_pool_pixel(s, y, i / s->channels, tap / s->k_w, tap % s->k_w);
                if (pixel >= 0) {
                    best = bnn_max(best, bnn_load(in, s->in_type, pixel * s->channels + i % s->channels));
                }
            }
            bnn_store(out, s->out_type, y * s->out_w * s->channels + i, best);
        }
    }
}

BNN_INLINE void bnn_bmaxpool_ref(const bnn_pool_shape *s, const uint32_t *in, uint32_t *out, int32_t row_begin,
                                 int32_t row_end)
{
    const int32_t words = bnn_words(s->channels);

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t i = 0; i < s->out_w * words; i++) {
            uint32_t all = 0xFFFFFFFFu;
            for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
                const int32_t pixel = bnn_pool_pixel(s, y, i / words, tap / s->k_w, tap % s->k_w);
                all &= pixel >= 0 ? in[pixel * words + i % words] : 0xFFFFFFFFu;
            }
            out[y * s->out_w * words + i] = all;
        }
    }
}

/* What the sums of output pixel (y, x) are multiplied by: D / n, or 1. */
BNN_INLINE int32_t bnn_avgpool_factor(const bnn_pool_shape *s, int32_t y, int32_t x)
{
    int32_t inside = 0;

    if (s->denominator == 0) {
        return 1;
    }
    for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
        inside += bnn_pool_pixel(s, y, x, tap / s->k_w, tap % s->k_w) >= 0;
    }
    return s->denominator / inside;
}

BNN_INLINE void bnn_avgpool_ref(const bnn_pool_shape *s, const void *in, const bnn_affine *affine, void *out,
                                int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        const int32_t y = pixel / s->out_w, x = pixel % s->out_w;
        const int32_t factor = bnn_avgpool_factor(s, y, x);
        for (int32_t c = 0; c < s->channels; c++) {
            int32_t sum = 0;
            for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
                const int32_t from = bnn_pool_pixel(s, y, x, tap / s->k_w, tap % s->k_w);
                sum += from >= 0 ? bnn_load(in, s->in_type, from * s->channels + c) : 0;
            }
            bnn_store(out, s->out_type, pixel * s->channels + c,
                      bnn_affine_apply(&a, s->arithmetic, c, sum * factor));
        }
    }
}

#endif
