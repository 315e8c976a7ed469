/* SPDX-License-Identifier: Apache-2.0 */
/* add on AArch64: 128 bits at a time. Contract: map_ref.h.
 *
 * The saturating sum followed by the clamp to [lo, hi], which lies inside the type, is the clamp of the exact sum. */
#ifndef BNN_MAP_NEON_H
#define BNN_MAP_NEON_H

#include "neon.h"

BNN_INLINE void bnn_add_neon(const bnn_map_shape *s, const void *a, const void *b, int32_t lo, int32_t hi, void *out,
                             int32_t row_begin, int32_t row_end)
{
    const int32_t row = s->width * s->channels;
    const int32_t end = row_end * row;
    int32_t i = row_begin * row;

    if (s->in_type == BNN_S16) {
        const int16x8_t low = vdupq_n_s16((int16_t)lo), high = vdupq_n_s16((int16_t)hi);
        for (; i + 8 <= end; i += 8) {
            const int16x8_t sum = vqaddq_s16(vld1q_s16((const int16_t *)a + i), vld1q_s16((const int16_t *)b + i));
            vst1q_s16((int16_t *)out + i, vminq_s16(vmaxq_s16(sum, low), high));
        }
    } else {
        const int8x16_t low = vdupq_n_s8((int8_t)lo), high = vdupq_n_s8((int8_t)hi);
        for (; i + 16 <= end; i += 16) {
            const int8x16_t sum = vqaddq_s8(vld1q_s8((const int8_t *)a + i), vld1q_s8((const int8_t *)b + i));
            vst1q_s8((int8_t *)out + i, vminq_s8(vmaxq_s8(sum, low), high));
        }
    }
    for (; i < end; i++) {
        const int32_t sum = bnn_load(a, s->in_type, i) + bnn_load(b, s->in_type, i);
        bnn_store(out, s->out_type, i, bnn_clamp(sum, lo, hi));
    }
}

#endif
