/* SPDX-License-Identifier: Apache-2.0 */
/* neon.h -- the epilogues on four channels at a time, shared by the AArch64 kernels. */
#ifndef BNN_NEON_H
#define BNN_NEON_H

#if !defined(__aarch64__)
#error "kernels with _neon in their name are for AArch64: only targets with the feature neon may use them"
#endif

#include <arm_neon.h>

#include "bnn/kernel.h"

/* bnn_affine_apply for channels c .. c + 3. The wide sum is exact in 64 bits; narrowing saturates to 32 bits, and
 * lo and hi lie inside, so the clamp behind it sees what it would see in 64. */
BNN_INLINE int32x4_t bnn_neon_affine(const bnn_affine *a, int32_t arithmetic, int32_t c, int32x4_t acc)
{
    const int32x4_t x = vminq_s32(vmaxq_s32(acc, vdupq_n_s32(a->acc_lo)), vdupq_n_s32(a->acc_hi));
    const int32x4_t mult = vld1q_s32(a->mult + c);
    int32x4_t q;

    if (arithmetic == BNN_NARROW) {
        q = vshlq_s32(vmlaq_s32(vld1q_s32(a->bias32 + c), x, mult), vdupq_n_s32(-a->shift));
    } else if (arithmetic == BNN_HIGH) {
        const int32x4_t scaled = vshlq_s32(x, vdupq_n_s32(a->shift));
        const int64x2_t low = vmlal_s32(vld1q_s64(a->bias64 + c), vget_low_s32(scaled), vget_low_s32(mult));
        const int64x2_t high = vmlal_high_s32(vld1q_s64(a->bias64 + c + 2), scaled, mult);
        q = vuzp2q_s32(vreinterpretq_s32_s64(low), vreinterpretq_s32_s64(high)); /* the high words */
    } else {
        const int64x2_t right = vdupq_n_s64(-(int64_t)a->shift);
        const int64x2_t low = vmlal_s32(vld1q_s64(a->bias64 + c), vget_low_s32(x), vget_low_s32(mult));
        const int64x2_t high = vmlal_high_s32(vld1q_s64(a->bias64 + c + 2), x, mult);
        q = vcombine_s32(vqmovn_s64(vshlq_s64(low, right)), vqmovn_s64(vshlq_s64(high, right)));
    }
    return vminq_s32(vmaxq_s32(q, vdupq_n_s32(a->lo)), vdupq_n_s32(a->hi));
}

/* Stores channels o .. o + 3 of a pixel whose first element has index `base`; fewer at the end of the channels. */
BNN_INLINE void bnn_neon_store(const bnn_conv_shape *s, const bnn_affine *a, void *out, int32_t base, int32_t o,
                               int32x4_t acc)
{
    if (o + 4 <= s->out_c) {
        const int16x4_t q = vmovn_s32(bnn_neon_affine(a, s->arithmetic, o, acc));
        if (s->out_type == BNN_S16) {
            vst1_s16((int16_t *)out + base + o, q);
        } else {
            const int32x2_t four = vreinterpret_s32_s8(vmovn_s16(vcombine_s16(q, q)));
            const int32_t bytes = vget_lane_s32(four, 0);
            __builtin_memcpy((int8_t *)out + base + o, &bytes, sizeof bytes);
        }
    } else {
        int32_t lanes[4];
        vst1q_s32(lanes, acc);
        for (int32_t i = 0; o + i < s->out_c; i++) {
            bnn_store(out, s->out_type, base + o + i, bnn_affine_apply(a, s->arithmetic, o + i, lanes[i]));
        }
    }
}

/* Bits of channels o .. o + 3: 1 where acc < level. Bits of channels that do not exist are 0. */
BNN_INLINE uint32_t bnn_neon_signs(const bnn_conv_shape *s, const int32_t *level, int32_t o, int32x4_t acc)
{
    static const uint32_t weight[4] = {1, 2, 4, 8};
    int32_t lanes[4];
    uint32_t bits = 0;

    if (o + 4 <= s->out_c) {
        return vaddvq_u32(vandq_u32(vcltq_s32(acc, vld1q_s32(level + o)), vld1q_u32(weight)));
    }
    vst1q_s32(lanes, acc);
    for (int32_t i = 0; o + i < s->out_c; i++) {
        bits |= (uint32_t)(lanes[i] < level[o + i]) << i;
    }
    return bits;
}

#endif
