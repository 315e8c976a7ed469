/* SPDX-License-Identifier: Apache-2.0 */
/* conv2d on AArch64: a tile of 4 pixels by 8 channels; each step multiplies one input of a pixel with the weights
 * of eight channels. Contract: conv2d_ref.h.
 *
 * Needs     groups = 1
 * w         [(out_c + 7) / 8][size][8 channels] int8, size = k_h * k_w * in_c filled up to a multiple of 4; zeros fill
 * scratch   4 windows of size int16
 * Overflow  sums are int32 in another order than _ref; the generator's bound holds for every order */
#ifndef BNN_CONV2D_NEON_H
#define BNN_CONV2D_NEON_H

#include "neon.h"
#include "window.h"

/* Sums of one pixel for eight channels. */
typedef struct {
    int32x4_t low, high;
} bnn_octet;

BNN_INLINE int32_t bnn_conv2d_neon_size(const bnn_conv_shape *s)
{
    return (s->k_h * s->k_w * s->in_c + 3) / 4 * 4;
}

/* Adds four inputs of a pixel times four rows of eight weights. */
BNN_INLINE bnn_octet bnn_octet_step(bnn_octet acc, int16x4_t x, const int16x8_t w[4])
{
    acc.low = vmlal_lane_s16(acc.low, vget_low_s16(w[0]), x, 0);
    acc.high = vmlal_high_lane_s16(acc.high, w[0], x, 0);
    acc.low = vmlal_lane_s16(acc.low, vget_low_s16(w[1]), x, 1);
    acc.high = vmlal_high_lane_s16(acc.high, w[1], x, 1);
    acc.low = vmlal_lane_s16(acc.low, vget_low_s16(w[2]), x, 2);
    acc.high = vmlal_high_lane_s16(acc.high, w[2], x, 2);
    acc.low = vmlal_lane_s16(acc.low, vget_low_s16(w[3]), x, 3);
    acc.high = vmlal_high_lane_s16(acc.high, w[3], x, 3);
    return acc;
}

/* acc[i] = sums of window i for the eight channels at w. */
BNN_INLINE void bnn_conv2d_neon_tile(const int16_t *windows, const int8_t *w, int32_t size, bnn_octet acc[4])
{
    bnn_octet a0, a1, a2, a3;

    a0.low = a0.high = vdupq_n_s32(0);
    a1 = a2 = a3 = a0;
    for (int32_t i = 0; i < size; i += 4) {
        const int8x16_t w01 = vld1q_s8(w + 8 * i), w23 = vld1q_s8(w + 8 * i + 16);
        int16x8_t rows[4];
        rows[0] = vmovl_s8(vget_low_s8(w01));
        rows[1] = vmovl_high_s8(w01);
        rows[2] = vmovl_s8(vget_low_s8(w23));
        rows[3] = vmovl_high_s8(w23);
        a0 = bnn_octet_step(a0, vld1_s16(windows + i), rows);
        a1 = bnn_octet_step(a1, vld1_s16(windows + size + i), rows);
        a2 = bnn_octet_step(a2, vld1_s16(windows + 2 * size + i), rows);
        a3 = bnn_octet_step(a3, vld1_s16(windows + 3 * size + i), rows);
    }
    acc[0] = a0;
    acc[1] = a1;
    acc[2] = a2;
    acc[3] = a3;
}

/* Gathers up to four output pixels from x on in row y; returns how many. Places that stay empty keep old bytes:
 * their sums are not used. */
BNN_INLINE int32_t bnn_conv2d_neon_gather(const bnn_conv_shape *s, const void *in, int32_t y, int32_t x,
                                          int16_t *windows)
{
    const int32_t size = bnn_conv2d_neon_size(s);
    const int32_t pixels = bnn_min(4, s->out_w - x);

    for (int32_t i = 0; i < pixels; i++) {
        bnn_gather_stream(s, in, y, x + i, windows + i * size, size);
    }
    return pixels;
}

BNN_INLINE void bnn_conv2d_neon(const bnn_conv_shape *s, const void *in, const int8_t *w, const bnn_affine *affine,
                                void *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;
    const int32_t size = bnn_conv2d_neon_size(s);

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x += 4) {
            const int32_t pixels = bnn_conv2d_neon_gather(s, in, y, x, (int16_t *)scratch);
            for (int32_t o = 0; o < s->out_c; o += 8) {
                bnn_octet acc[4];
                bnn_conv2d_neon_tile((const int16_t *)scratch, w + o * size, size, acc);
                for (int32_t i = 0; i < pixels; i++) {
                    const int32_t base = (y * s->out_w + x + i) * s->out_c;
                    bnn_neon_store(s, &a, out, base, o, acc[i].low);
                    bnn_neon_store(s, &a, out, base, o + 4, acc[i].high);
                }
            }
        }
    }
}

BNN_INLINE void bnn_conv2d_sign_neon(const bnn_conv_shape *s, const void *in, const int8_t *w, const int32_t *level,
                                     uint32_t *out, void *scratch, int32_t row_begin, int32_t row_end)
{
    const int32_t size = bnn_conv2d_neon_size(s), words = bnn_words(s->out_c);

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x += 4) {
            const int32_t pixels = bnn_conv2d_neon_gather(s, in, y, x, (int16_t *)scratch);
            for (int32_t o = 0; o < s->out_c; o += 8) {
                bnn_octet acc[4];
                bnn_conv2d_neon_tile((const int16_t *)scratch, w + o * size, size, acc);
                for (int32_t i = 0; i < pixels; i++) {
                    uint32_t *word = out + (y * s->out_w + x + i) * words + o / 32;
                    const uint32_t low = bnn_neon_signs(s, level, o, acc[i].low);
                    const uint32_t bits = (low | bnn_neon_signs(s, level, o + 4, acc[i].high) << 4) << (o % 32);
                    *word = o % 32 == 0 ? bits : *word | bits;
                }
            }
        }
    }
}

#endif
