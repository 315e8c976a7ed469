/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d -- convolution of a binary map with binary weights.
 *
 * For every output pixel (y, x) and output channel o:
 *
 *     dot = K - 2 * (number of bits in which the window and filter o differ)
 *
 *     bconv2d        out[y][x][o] = affine(dot)                   stream out
 *     bconv2d_sign   bit (y, x, o) = 1 if dot < level[o], else 0  packed out (bit 1 stands for -1)
 *
 * Layout    in    [in_h][in_w][words of in_c]
 *           w     [out_c][k_h][k_w][words of in_c / groups]; channel c of a group is bit c % 32 of word c / 32
 *           level [out_c] int32, -K <= level <= K + 2; a batch norm of negative scale has negated its filter
 *           out   [out_h][out_w][out_c] int8 or int16 (out_type), or packed
 * Padding   pad_value 1: a tap outside the image reads as +1, K = k_h * k_w * in_c / groups.
 *           pad_value 0: a tap outside the image does not count; K is the number of the others * in_c / groups.
 * Overflow  |dot| <= k_h * k_w * in_c, far below 2^31 for any model that has a plan.
 * Rows      writes output rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing. scratch: what the registry says for the variant; _ref takes none.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_BCONV2D_REF_H
#define BNN_BCONV2D_REF_H

#include "bnn/kernel.h"

/* Bits in which one tap of filter o differs from the pixel; `pixel` NULL reads as +1 everywhere. */
BNN_INLINE int32_t bnn_bconv2d_tap(const uint32_t *pixel, const uint32_t *w, int32_t first_c, int32_t group_c)
{
    int32_t differ = 0;

    for (int32_t c = 0; c < group_c; c += 32) {
        const uint32_t x = pixel != NULL ? bnn_bits(pixel, first_c + c, bnn_min(32, group_c - c)) : 0;
        differ += bnn_popcount32(x ^ w[c / 32]);
    }
    return differ;
}

BNN_INLINE int32_t bnn_bconv2d_dot(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w, int32_t y,
                                   int32_t x, int32_t o)
{
    const int32_t group_c = s->in_c / s->groups;
    const int32_t first_c = o / (s->out_c / s->groups) * group_c;
    const uint32_t *tap = w + o * s->k_h * s->k_w * bnn_words(group_c);
    int32_t dot = 0;

    for (int32_t ky = 0; ky < s->k_h; ky++) {
        for (int32_t kx = 0; kx < s->k_w; kx++, tap += bnn_words(group_c)) {
            const int32_t iy = y * s->stride_h - s->pad_top + ky * s->dilation_h;
            const int32_t ix = x * s->stride_w - s->pad_left + kx * s->dilation_w;
            const int inside = iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w;
            if (inside) {
                const uint32_t *pixel = in + (iy * s->in_w + ix) * bnn_words(s->in_c);
                dot += group_c - 2 * bnn_bconv2d_tap(pixel, tap, first_c, group_c);
            } else if (s->pad_value == 1) {
                dot += group_c - 2 * bnn_bconv2d_tap(NULL, tap, first_c, group_c);
            }
        }
    }
    return dot;
}

BNN_INLINE void bnn_bconv2d_ref(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                const bnn_affine *affine, void *out, void *scratch, int32_t row_begin,
                                int32_t row_end)
{
    const bnn_affine a = *affine;

    (void)scratch;
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            for (int32_t o = 0; o < s->out_c; o++) {
                const int32_t q = bnn_affine_apply(&a, s->arithmetic, o, bnn_bconv2d_dot(s, in, w, y, x, o));
                bnn_store(out, s->out_type, (y * s->out_w + x) * s->out_c + o, q);
            }
        }
    }
}

BNN_INLINE void bnn_bconv2d_sign_ref(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                     const int32_t *level, uint32_t *out, void *scratch, int32_t row_begin,
                                     int32_t row_end)
{
    (void)scratch;
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            uint32_t *pixel = out + (y * s->out_w + x) * bnn_words(s->out_c);
            for (int32_t o = 0; o < s->out_c; o += 32) {
                uint32_t bits = 0;
                for (int32_t i = 0; i < bnn_min(32, s->out_c - o); i++) {
                    bits |= (uint32_t)(bnn_bconv2d_dot(s, in, w, y, x, o + i) < level[o + i]) << i;
                }
                pixel[o / 32] = bits;
            }
        }
    }
}

#endif
