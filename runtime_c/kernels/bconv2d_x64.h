/* SPDX-License-Identifier: Apache-2.0 */
/* bconv2d on x86-64: 64 bits per POPCNT over a gathered window. Contract: bconv2d_ref.h.
 *
 * Needs     groups = 1; a compiler that may emit POPCNT (x86-64-v2)
 * w         as _ref
 * scratch   (out_c + k_h * k_w * words) * 4 bytes */
#ifndef BNN_BCONV2D_X64_H
#define BNN_BCONV2D_X64_H

#if !defined(__x86_64__) || !defined(__POPCNT__)
#error "bconv2d_x64.h needs x86-64 with POPCNT: only targets with the feature x64 may use it"
#endif

#include "bconv2d_window.h"

/* Words two by two; the last of an odd number alone. */
BNN_INLINE int32_t bnn_x64_differ(const uint32_t *a, const uint32_t *b, int32_t n)
{
    int32_t differ = n % 2 != 0 ? (int32_t)__builtin_popcountll(a[n - 1] ^ b[n - 1]) : 0;

    for (int32_t i = 0; i + 1 < n; i += 2) {
        uint64_t x, y;
        __builtin_memcpy(&x, a + i, sizeof x);
        __builtin_memcpy(&y, b + i, sizeof y);
        differ += (int32_t)__builtin_popcountll(x ^ y);
    }
    return differ;
}

BNN_INLINE void bnn_x64_count(const uint32_t *window, const uint32_t *filters, int32_t n, int32_t stride,
                              int32_t count, int32_t *dots)
{
    for (int32_t o = 0; o < count; o++) {
        dots[o] -= 2 * bnn_x64_differ(window, filters + o * stride, n);
    }
}

BNN_INLINE void bnn_bconv2d_x64(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                const bnn_affine *affine, void *out, void *scratch, int32_t row_begin,
                                int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_affine(s, bnn_window_dots(s, in, w, pixel, scratch, bnn_x64_count), &a, out, pixel);
    }
}

BNN_INLINE void bnn_bconv2d_sign_x64(const bnn_conv_shape *s, const uint32_t *in, const uint32_t *w,
                                     const int32_t *level, uint32_t *out, void *scratch, int32_t row_begin,
                                     int32_t row_end)
{
    for (int32_t pixel = row_begin * s->out_w; pixel < row_end * s->out_w; pixel++) {
        bnn_window_sign(s, bnn_window_dots(s, in, w, pixel, scratch, bnn_x64_count), level, out, pixel);
    }
}

#endif
