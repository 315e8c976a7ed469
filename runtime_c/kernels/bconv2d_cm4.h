/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d on Cortex-M4 and M7: carry-save counting (Harley-Seal) over a gathered window. Contract: bconv2d_ref.h.
 *
 * These cores have no instruction that counts bits, and counting a word by shifts and adds costs about twelve.
 * A carry-save adder turns three words of weight 1 into one of weight 1 and one of weight 2 with five logical
 * operations; eight words leave one word of weight 8 to count, and what is left over is counted once at the end.
 *
 * Needs     groups = 1; plain C, so it runs anywhere
 * w         as _ref
 * scratch   (out_c + k_h * k_w * words) * 4 bytes */
#ifndef BNN_BCONV2D_CM4_H
#define BNN_BCONV2D_CM4_H

#include "bconv2d_window.h"

/* Bits of each byte, in that byte: 0..8. */
BNN_INLINE uint32_t bnn_cm4_bytes(uint32_t v)
{
    v -= (v >> 1) & 0x55555555u;
    v = (v & 0x33333333u) + ((v >> 2) & 0x33333333u);
    return (v + (v >> 4)) & 0x0F0F0F0Fu;
}

/* Adds three words bit by bit: *sum of weight 1, returns the carry of weight 2. */
BNN_INLINE uint32_t bnn_cm4_carry(uint32_t *sum, uint32_t a, uint32_t b)
{
    const uint32_t u = *sum ^ a;
    const uint32_t carry = (*sum & a) | (u & b);

    *sum = u ^ b;
    return carry;
}

/* Bits in which n words differ.
 *
 * The n % 8 words in front are added one at a time: fewer than 8 of them, so ones, twos and fours hold the count.
 * Then eight words at a time leave one word of weight 8 each; its byte counts are at most 8, summed over at most 31
 * blocks before they are flushed, 248 < 256. The planes are counted last, in bytes: 8 * (1 + 2 + 4) = 56. */
BNN_INLINE int32_t bnn_cm4_differ(const uint32_t *a, const uint32_t *b, int32_t n)
{
    uint32_t ones = 0, twos = 0, fours = 0, planes;
    int32_t eights = 0, i = 0;

    for (; i < n % 8; i++) {
        const uint32_t v = a[i] ^ b[i];
        const uint32_t c = ones & v;
        ones ^= v;
        fours ^= twos & c;
        twos ^= c;
    }
    while (i < n) {
        const int32_t end = bnn_min(n, i + 31 * 8);
        uint32_t bytes = 0;
        for (; i < end; i += 8) {
            const uint32_t c0 = bnn_cm4_carry(&ones, a[i] ^ b[i], a[i + 1] ^ b[i + 1]);
            const uint32_t c1 = bnn_cm4_carry(&ones, a[i + 2] ^ b[i + 2], a[i + 3] ^ b[i + 3]);
            const uint32_t d0 = bnn_cm4_carry(&twos, c0, c1);
            const uint32_t c2 = bnn_cm4_carry(&ones, a[i + 4] ^ b[i + 4], a[i + 5] ^ b[i + 5]);
            const uint32_t c3 = bnn_cm4_carry(&ones, a[i + 6] ^ b[i + 6], a[i + 7] ^ b[i + 7]);
            const uint32_t d1 = bnn_cm4_carry(&twos, c2, c3);
            bytes += bnn_cm4_bytes(bnn_cm4_carry(&fours, d0, d1));
        }
        bytes = (bytes & 0x00FF00FFu) + ((bytes >> 8) & 0x00FF00FFu);
        eights += (int32_t)((bytes & 0xFFFFu) + (bytes >> 16));
    }
    planes = bnn_cm4_bytes(ones) + 2 * bnn_cm4_bytes(twos) + 4 * bnn_cm4_bytes(fours);
    return 8 * eights + (int32_t)((planes * 0x01010101u) >> 24);
}

BNN_INLINE void bnn_cm4_count(const uint32_t *window, const uint32_t *filters, int32_t n, int32_t stride,
                              int32_t count, int32_t *dots)
{
    for (int32_t o = 0; o < count; o++) {
        dots[o] -= 2 * bnn_cm4_differ(window, filters + o * stride, n);
    }
}

BNN_INLINE void bnn_bconv2d_cm4(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                const bnn_affine *affine, void *out, void *scratch, int32_t row_begin,
                                int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_affine(s, bnn_window_dots(s, in, w, pixel, scratch, bnn_cm4_count), &a, out, pixel);
    }
}

BNN_INLINE void bnn_bconv2d_sign_cm4(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                     const int32_t *level, uint32_t *out, void *scratch, int32_t row_begin,
                                     int32_t row_end)
{
    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_sign(s, bnn_window_dots(s, in, w, pixel, scratch, bnn_cm4_count), level, out, pixel);
    }
}

#endif
