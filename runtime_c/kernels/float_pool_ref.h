/* SPDX-License-Identifier: Apache-2.0 */
/* float_pool -- windows of real maps reduced channel by channel: float_maxpool, float_avgpool.
 *
 *     float_maxpool   out = the largest value in the window
 *     float_avgpool   out = sum over the window / number of positions inside the image; of a float or a packed map
 *
 * Layout    maps [h][w][channels] float; float_avgpool: in may be packed (in_type).
 * Padding   positions outside the image do not count; a window wholly outside does not occur (the generator).
 * Rounding  values are added one by one, rows of the window first; then one division.
 * Rows      writes output rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing.
 * Variants  _ref alone. */
#ifndef BNN_FLOAT_POOL_REF_H
#define BNN_FLOAT_POOL_REF_H

#include "float.h"
#include "pool_ref.h"

BNN_INLINE void bnn_float_maxpool_ref(const bnn_pool_shape *s, const float *in, float *out, int32_t row_begin,
                                      int32_t row_end)
{
    for (int32_t i = row_begin * s->out_w * s->channels; i < row_end * s->out_w * s->channels; i++) {
        const int32_t y = i / s->channels / s->out_w, x = i / s->channels % s->out_w;
        int found = 0;
        for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
            const int32_t pixel = bnn_pool_pixel(s, y, x, tap / s->k_w, tap % s->k_w);
            if (pixel >= 0) {
                const float value = in[pixel * s->channels + i % s->channels];
                out[i] = found && out[i] >= value ? out[i] : value;
                found = 1;
            }
        }
    }
}

BNN_INLINE void bnn_float_avgpool_ref(const bnn_pool_shape *s, const void *in, float *out, int32_t row_begin,
                                      int32_t row_end)
{
    for (int32_t i = row_begin * s->out_w * s->channels; i < row_end * s->out_w * s->channels; i++) {
        const int32_t y = i / s->channels / s->out_w, x = i / s->channels % s->out_w;
        int32_t inside = 0;
        float sum = 0.0f;
        for (int32_t tap = 0; tap < s->k_h * s->k_w; tap++) {
            const int32_t pixel = bnn_pool_pixel(s, y, x, tap / s->k_w, tap % s->k_w);
            if (pixel >= 0) {
                sum += bnn_float_load(in, s->in_type, pixel, s->channels, i % s->channels);
                inside++;
            }
        }
        out[i] = sum / (float)inside;
    }
}

#endif
