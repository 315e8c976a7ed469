/* SPDX-License-Identifier: Apache-2.0 */
/* maxpool on AArch64: 128 bits of channels at a time. Contract: pool_ref.h. */
#ifndef BNN_POOL_NEON_H
#define BNN_POOL_NEON_H

#include "neon.h"
#include "pool_ref.h"

/* Channels c .. c + 7 (int16) or c .. c + 15 (int8) of output pixel (y, x); all of them exist. */
BNN_INLINE void bnn_maxpool_neon_lanes(const bnn_pool_shape *s, const void *in, void *out, int32_t y, int32_t x,
                                       int32_t c)
{
    const int32_t to = (y * s->out_w + x) * s->channels + c;
    int16x8_t best16 = vdupq_n_s16(INT16_MIN);
    int8x16_t best8 = vdupq_n_s8(INT8_MIN);

    for (int32_t ky = 0; ky < s->k_h; ky++) {
        for (int32_t kx = 0; kx < s->k_w; kx++) {
            const int32_t pixel = bnn_pool_pixel(s, y, x, ky, kx);
            if (pixel >= 0 && s->in_type == BNN_S16) {
                best16 = vmaxq_s16(best16, vld1q_s16((const int16_t *)in + pixel * s->channels + c));
            } else if (pixel >= 0) {
                best8 = vmaxq_s8(best8, vld1q_s8((const int8_t *)in + pixel * s->channels + c));
            }
        }
    }
    if (s->in_type == BNN_S16) {
        vst1q_s16((int16_t *)out + to, best16);
    } else {
        vst1q_s8((int8_t *)out + to, best8);
    }
}

BNN_INLINE void bnn_maxpool_neon(const bnn_pool_shape *s, const void *in, void *out, int32_t row_begin,
                                 int32_t row_end)
{
    const int32_t lanes = s->in_type == BNN_S16 ? 8 : 16;

    for (int32_t y = row_begin; y < row_end; y++) {
        for (int32_t x = 0; x < s->out_w; x++) {
            for (int32_t c = 0; c < s->channels; c += lanes) {
                /* The last vector ends with the last channel; it may repeat some of the one before. */
                bnn_maxpool_neon_lanes(s, in, out, y, x, bnn_min(c, s->channels - lanes));
            }
        }
    }
}

#endif
