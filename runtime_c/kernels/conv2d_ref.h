/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d -- convolution of a real-valued map with int8 weights.
 *
 * For every output pixel (y, x) and output channel o of group g:
 *
 *     acc = sum over ky, kx, c of  in[y*stride - pad + ky*dilation][x*...][g*in_c/groups + c] * w[o][ky][kx][c]
 *
 *     conv2d        out[y][x][o] = affine(acc)                    stream out
 *     conv2d_sign   bit (y, x, o) = 1 if acc < level[o], else 0   packed out
 *
 * Layout    in    [in_h][in_w][in_c]  int8 or int16 (in_type)
 *           w     [out_c][k_h][k_w][in_c / groups]  int8
 *           level [out_c]  int32; a batch norm of negative scale has negated its filter already
 *           out   [out_h][out_w][out_c] int8 or int16 (out_type), or packed
 * Padding   positions outside the image are 0.
 * Overflow  every partial sum stays in int32: the generator bounds sum |w| * max |in| per channel.
 * Rows      writes output rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing. scratch: what the registry says for the variant; _ref takes none.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_CONV2D_REF_H
#define BNN_CONV2D_REF_H

#include "bnn/kernel.h"

BNN_INLINE int32_t bnn_conv2d_acc(const bnn_conv_shape *s, const void *in, const int8_t *w, int32_t y, int32_t x,
                                  int32_t o)
{
    const int32_t group_c = s->in_c / s->groups;
    const int32_t first_c = o / (s->out_c / s->groups) * group_c;
    const int8_t *filter = w + o * s->k_h * s->k_w * group_c;
    int32_t acc = 0;

    for (int32_t ky = 0; ky < s->k_h; ky++) {
        for (int32_t kx = 0; kx < s->k_w; kx++) {
            const int32_t iy = y * s->stride_h - s->pad_top + ky * s->dilation_h;
            const int32_t ix = x * s->stride_w - s->pad_left + kx * s->dilation_w;
            if (iy < 0 || iy >= s->in_h || ix < 0 || ix >= s->in_w) {
                continue;
            }
            for (int32_t c = 0; c < group_c; c++) {
                const int32_t q = bnn_load(in, s->in_type, (iy * s->in_w + ix) * s->in_c + first_c + c);
                acc += q * filter[(ky * s->k_w + kx) * group_c + c];
            }
        }
    }
    return acc;
}

BNN_INLINE void bnn_conv2d_ref(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *affine,
                               void *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    (void)scratch;
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            for (int32_t o = 0; o < s->out_c; o++) {
                const int32_t q = bnn_affine_apply(&a, s->arithmetic, o, bnn_conv2d_acc(s, in, w, y, x, o));
                bnn_store(out, s->out_type, (y * s->out_w + x) * s->out_c + o, q);
            }
        }
    }
}

BNN_INLINE void bnn_conv2d_sign_ref(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                    uint32_t *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    (void)scratch;
    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            uint32_t *pixel = out + (y * s->out_w + x) * bnn_words(s->out_c);
            for (int32_t o = 0; o < s->out_c; o += 32) {
                uint32_t bits = 0;
                for (int32_t i = 0; i < bnn_min(32, s->out_c - o); i++) {
                    bits |= (uint32_t)(bnn_conv2d_acc(s, in, w, y, x, o + i) < level[o + i]) << i;
                }
                pixel[o / 32] = bits;
            }
        }
    }
}

#endif
