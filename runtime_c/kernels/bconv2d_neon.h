/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d on AArch64: a tile of 4 pixels by 4 channels, 128 bits at a time. Contract: bconv2d_ref.h.
 *
 * Each 128-bit block costs EOR, CNT and ADD per pixel and channel; the tile loads 8 vectors for 16 of those.
 *
 * Needs     groups = 1
 * w         [(out_c + 3) / 4][blocks][4 channels][4 words]: filters of _ref filled up with zeros to whole blocks of
 *           4 words and whole groups of 4 channels; blocks = (k_h * k_w * words + 3) / 4
 * scratch   5 windows of blocks * 16 bytes: four pixels, and the mask of one
 * Overflow  a byte lane gains at most 8 per block and is flushed after 31 blocks: 248 < 256 */
#ifndef BNN_BCONV2D_NEON_H
#define BNN_BCONV2D_NEON_H

#include "neon.h"
#include "window.h"

#define BNN_NEON_FLUSH 31

/* Byte counts of one pixel against four channels. */
typedef struct {
    uint8x16_t c0, c1, c2, c3;
} bnn_quad;

BNN_INLINE bnn_quad bnn_quad_zero(void)
{
    bnn_quad q;

    q.c0 = q.c1 = q.c2 = q.c3 = vdupq_n_u8(0);
    return q;
}

/* Adds a block: x against the four channels at w. */
BNN_INLINE bnn_quad bnn_quad_count(bnn_quad q, uint8x16_t x, const uint8_t *w)
{
    q.c0 = vaddq_u8(q.c0, vcntq_u8(veorq_u8(x, vld1q_u8(w))));
    q.c1 = vaddq_u8(q.c1, vcntq_u8(veorq_u8(x, vld1q_u8(w + 16))));
    q.c2 = vaddq_u8(q.c2, vcntq_u8(veorq_u8(x, vld1q_u8(w + 32))));
    q.c3 = vaddq_u8(q.c3, vcntq_u8(veorq_u8(x, vld1q_u8(w + 48))));
    return q;
}

/* The same, counting only the bits of mask. */
BNN_INLINE bnn_quad bnn_quad_count_masked(bnn_quad q, uint8x16_t x, uint8x16_t mask, const uint8_t *w)
{
    q.c0 = vaddq_u8(q.c0, vcntq_u8(vandq_u8(veorq_u8(x, vld1q_u8(w)), mask)));
    q.c1 = vaddq_u8(q.c1, vcntq_u8(vandq_u8(veorq_u8(x, vld1q_u8(w + 16)), mask)));
    q.c2 = vaddq_u8(q.c2, vcntq_u8(vandq_u8(veorq_u8(x, vld1q_u8(w + 32)), mask)));
    q.c3 = vaddq_u8(q.c3, vcntq_u8(vandq_u8(veorq_u8(x, vld1q_u8(w + 48)), mask)));
    return q;
}

/* Sums of the four channels. Pairs of bytes, then of 16-bit sums: at most 16 * 248 in 16 bits. */
BNN_INLINE int32x4_t bnn_quad_sum(bnn_quad q)
{
    const uint16x8_t s01 = vpaddq_u16(vpaddlq_u8(q.c0), vpaddlq_u8(q.c1));
    const uint16x8_t s23 = vpaddq_u16(vpaddlq_u8(q.c2), vpaddlq_u8(q.c3));

    return vreinterpretq_s32_u32(vpaddlq_u16(vpaddq_u16(s01, s23)));
}

/* differ[i] = bits in which window i differs from each of the four channels at w. */
BNN_INLINE void bnn_neon_tile(const uint8_t *windows, const uint8_t *w, int32_t blocks, int32x4_t differ[4])
{
    differ[0] = differ[1] = differ[2] = differ[3] = vdupq_n_s32(0);
    for (int32_t block = 0; block < blocks;) {
        const int32_t end = bnn_min(blocks, block + BNN_NEON_FLUSH);
        bnn_quad q0 = bnn_quad_zero(), q1 = q0, q2 = q0, q3 = q0;
        for (; block < end; block++) {
            const uint8_t *x = windows + 16 * block;
            q0 = bnn_quad_count(q0, vld1q_u8(x), w + 64 * block);
            q1 = bnn_quad_count(q1, vld1q_u8(x + 16 * blocks), w + 64 * block);
            q2 = bnn_quad_count(q2, vld1q_u8(x + 32 * blocks), w + 64 * block);
            q3 = bnn_quad_count(q3, vld1q_u8(x + 48 * blocks), w + 64 * block);
        }
        differ[0] = vaddq_s32(differ[0], bnn_quad_sum(q0));
        differ[1] = vaddq_s32(differ[1], bnn_quad_sum(q1));
        differ[2] = vaddq_s32(differ[2], bnn_quad_sum(q2));
        differ[3] = vaddq_s32(differ[3], bnn_quad_sum(q3));
    }
}

/* The same for one window, counting only the bits of its mask: padding that does not count. */
BNN_INLINE int32x4_t bnn_neon_masked(const uint8_t *window, const uint8_t *mask, const uint8_t *w, int32_t blocks)
{
    int32x4_t differ = vdupq_n_s32(0);

    for (int32_t block = 0; block < blocks;) {
        const int32_t end = bnn_min(blocks, block + BNN_NEON_FLUSH);
        bnn_quad q = bnn_quad_zero();
        for (; block < end; block++) {
            q = bnn_quad_count_masked(q, vld1q_u8(window + 16 * block), vld1q_u8(mask + 16 * block), w + 64 * block);
        }
        differ = vaddq_s32(differ, bnn_quad_sum(q));
    }
    return differ;
}

/* Gathered neighbours: up to four whole pixels, or one of which `taps` count, with its mask in the fifth place. */
typedef struct {
    const uint8_t *windows;
    int32_t blocks;
    int32_t pixels;
    int32_t taps;
    int masked;
} bnn_neon_group;

/* Ones where the window's taps lie inside the image. */
BNN_INLINE void bnn_neon_mask(const bnn_conv_shape *s, const bnn_box *box, uint32_t *mask, int32_t size)
{
    const int32_t words = bnn_words(s->in_c);

    for (int32_t i = 0; i < size; i++) {
        mask[i] = 0;
    }
    for (int32_t ky = box->ky0; ky < box->ky1; ky++) {
        for (int32_t i = (ky * s->k_w + box->kx0) * words; i < (ky * s->k_w + box->kx1) * words; i++) {
            mask[i] = 0xFFFFFFFFu;
        }
    }
}

/* Gathers output pixels from x on in row y. Places that stay empty keep old bytes; their sums are not used. */
BNN_INLINE bnn_neon_group bnn_neon_gather(const bnn_conv_shape *s, const uint32_t *in, int32_t y, int32_t x,
                                          uint32_t *scratch)
{
    bnn_neon_group g;

    g.windows = (const uint8_t *)scratch;
    g.taps = s->k_h * s->k_w;
    g.blocks = (g.taps * bnn_words(s->in_c) + 3) / 4;
    g.masked = 0;
    for (g.pixels = 0; g.pixels < bnn_min(4, s->out_w - x); g.pixels++) {
        const bnn_box box = bnn_window_box(s, y, x + g.pixels);
        const int32_t inside = bnn_box_taps(&box);
        g.masked = s->pad_value == 0 && inside < g.taps;
        if (g.masked && g.pixels > 0) {
            g.masked = 0;
            break;
        }
        bnn_gather_bits(s, in, y, x + g.pixels, &box, scratch + 4 * g.blocks * g.pixels, 4 * g.blocks);
        if (g.masked) {
            bnn_neon_mask(s, &box, scratch + 16 * g.blocks, 4 * g.blocks);
            g.taps = inside;
            g.pixels = 1;
            break;
        }
    }
    return g;
}

/* dot[i] of pixel i of the group and channels o .. o + 3. */
BNN_INLINE void bnn_neon_dots(const bnn_conv_shape *s, const bnn_neon_group *g, const uint32_t *w, int32_t o,
                              int32x4_t dot[4])
{
    const uint8_t *filters = (const uint8_t *)(w + o * 4 * g->blocks);
    const int32x4_t k = vdupq_n_s32(g->taps * s->in_c);

    if (g->masked) {
        dot[0] = bnn_neon_masked(g->windows, g->windows + 64 * g->blocks, filters, g->blocks);
        dot[1] = dot[2] = dot[3] = dot[0];
    } else {
        bnn_neon_tile(g->windows, filters, g->blocks, dot);
    }
    for (int32_t i = 0; i < 4; i++) {
        dot[i] = vsubq_s32(k, vshlq_n_s32(dot[i], 1));
    }
}

BNN_INLINE void bnn_bconv2d_neon(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                 const bnn_affine *affine, void *out, void *scratch, int32_t row_begin,
                                 int32_t row_end)
{
    const bnn_affine a = *affine;
    int32_t pixels;

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x += pixels) {
            const bnn_neon_group g = bnn_neon_gather(s, in, y, x, (uint32_t *)scratch);
            const int32_t base = (y * s->out_w + x) * s->out_c;
            pixels = g.pixels;
            for (int32_t o = 0; o < s->out_c; o += 4) {
                int32x4_t dot[4];
                bnn_neon_dots(s, &g, w, o, dot);
                for (int32_t i = 0; i < pixels; i++) {
                    bnn_neon_store(s, &a, out, base + i * s->out_c, o, dot[i]);
                }
            }
        }
    }
}

BNN_INLINE void bnn_bconv2d_sign_neon(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                      const int32_t *level, uint32_t *out, void *scratch, int32_t row_begin,
                                      int32_t row_end)
{
    const int32_t words = bnn_words(s->out_c);
    int32_t pixels;

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x += pixels) {
            const bnn_neon_group g = bnn_neon_gather(s, in, y, x, (uint32_t *)scratch);
            uint32_t *pixel = out + (y * s->out_w + x) * words;
            pixels = g.pixels;
            for (int32_t o = 0; o < s->out_c; o += 4) {
                int32x4_t dot[4];
                bnn_neon_dots(s, &g, w, o, dot);
                for (int32_t i = 0; i < pixels; i++) {
                    const uint32_t bits = bnn_neon_signs(s, level, o, dot[i]) << (o % 32);
                    pixel[i * words + o / 32] = o % 32 == 0 ? bits : pixel[i * words + o / 32] | bits;
                }
            }
        }
    }
}

#endif
