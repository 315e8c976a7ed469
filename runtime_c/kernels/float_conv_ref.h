/* SPDX-License-Identifier: Apache-2.0 */
/* float_conv -- convolutions of float32 builds: float_conv2d with real weights, float_bconv2d with binary ones.
 *
 *     float_conv2d    out[y][x][o] = sum over ky, kx, c of in * w, + bias[o]; positions outside the image are 0
 *     float_bconv2d   out[y][x][o] = dot * scale[o], dot as in bconv2d_ref.h
 *
 * Layout    in    [in_h][in_w][in_c] float, or packed (in_type; float_bconv2d: packed)
 *           w     [out_c][k_h][k_w][in_c / groups] float, or as for bconv2d
 *           bias, scale [out_c]; NULL: none, 1
 *           out   [out_h][out_w][out_c] float
 * Rounding  products are added one by one, rows of the window first, then its columns, then channels; the bias is last.
 *           dot is exact: |dot| < 2^24 for any model that has a plan.
 * Rows      writes output rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing.
 * Variants  _ref alone. */
#ifndef BNN_FLOAT_CONV_REF_H
#define BNN_FLOAT_CONV_REF_H

#include "bconv2d_ref.h"
#include "float.h"

BNN_INLINE float bnn_float_conv2d_sum(const bnn_conv_shape *s, const void *in, const float *w, int32_t y, int32_t x,
                                      int32_t o)
{
    const int32_t group_c = s->in_c / s->groups;
    const int32_t first_c = o / (s->out_c / s->groups) * group_c;
    const float *tap = w + o * s->k_h * s->k_w * group_c;
    float sum = 0.0f;

    for (int32_t ky = 0; ky < s->k_h; ky++) {
        for (int32_t kx = 0; kx < s->k_w; kx++, tap += group_c) {
            const int32_t iy = y * s->stride_h - s->pad_top + ky * s->dilation_h;
            const int32_t ix = x * s->stride_w - s->pad_left + kx * s->dilation_w;
            if (iy >= 0 && iy < s->in_h && ix >= 0 && ix < s->in_w) {
                for (int32_t c = 0; c < group_c; c++) {
                    sum += bnn_float_load(in, s->in_type, iy * s->in_w + ix, s->in_c, first_c + c) * tap[c];
                }
            }
        }
    }
    return sum;
}

BNN_INLINE void bnn_float_conv2d_ref(const bnn_conv_shape *s, const void *in, const float *w, const float *bias,
                                     float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            for (int32_t o = 0; o < s->out_c; o++) {
                const float sum = bnn_float_conv2d_sum(s, in, w, y, x, o);
                out[(y * s->out_w + x) * s->out_c + o] = bias != NULL ? sum + bias[o] : sum;
            }
        }
    }
}

BNN_INLINE void bnn_float_bconv2d_ref(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                      const float *scale, float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            for (int32_t o = 0; o < s->out_c; o++) {
                const float dot = (float)bnn_bconv2d_dot(s, in, w, y, x, o);
                out[(y * s->out_w + x) * s->out_c + o] = scale != NULL ? dot * scale[o] : dot;
            }
        }
    }
}

#endif
