/* SPDX-License-Identifier: Apache-2.0 */
/* encode -- pixels to bits: thermometer, bitplanes.
 *
 *     thermometer   channel c of out is +1 (bit 0) where pixel channel source[c] >= value[c], otherwise -1 (bit 1)
 *     bitplanes     channel c of out is +1 where bit value[c] of pixel channel source[c] is 1, otherwise -1
 *
 * Layout    in u8 [rows][width][in_c]; source, value int16 [out_c]; out packed [rows][width][words of out_c]
 * Overflow  nothing is summed; value is in 0..8 for bitplanes, so the shift is defined.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_ENCODE_REF_H
#define BNN_ENCODE_REF_H

#include "bnn/kernel.h"

/* Is the element -1? `planes` is a constant of the caller. */
BNN_INLINE uint32_t bnn_encode_minus(int planes, int32_t pixel, int32_t value)
{
    return planes ? ~((uint32_t)pixel >> value) & 1u : (uint32_t)(pixel < value);
}

BNN_INLINE void bnn_encode_rows(const bnn_move_shape *s, int planes, const uint8_t *in, const int16_t *source,
                                const int16_t *value, uint32_t *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->out_c; c += 32) {
            uint32_t bits = 0;
            for (int32_t i = 0; i < bnn_min(32, s->out_c - c); i++) {
                const int32_t x = in[pixel * s->in_c + source[c + i]];
                bits |= bnn_encode_minus(planes, x, value[c + i]) << i;
            }
            out[pixel * bnn_words(s->out_c) + c / 32] = bits;
        }
    }
}

BNN_INLINE void bnn_thermometer_ref(const bnn_move_shape *s, const uint8_t *in, const int16_t *source,
                                    const int16_t *value, uint32_t *out, int32_t row_begin, int32_t row_end)
{
    bnn_encode_rows(s, 0, in, source, value, out, row_begin, row_end);
}

BNN_INLINE void bnn_bitplanes_ref(const bnn_move_shape *s, const uint8_t *in, const int16_t *source,
                                  const int16_t *value, uint32_t *out, int32_t row_begin, int32_t row_end)
{
    bnn_encode_rows(s, 1, in, source, value, out, row_begin, row_end);
}

#endif
