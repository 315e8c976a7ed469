/* SPDX-License-Identifier: Apache-2.0 */
/* float_move -- channels of real maps, moved inside each pixel: float_concat, float_channels.
 *
 *     float_concat     out[pixel] = the channels of every input, one input behind the other
 *     float_channels   out[pixel][c] = in[pixel][index[c]], 0 where index[c] is -1
 *
 * Layout    maps [rows][width][channels] float; counts [inputs]: channels of each input; index [out_c].
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out overlaps nothing.
 * Variants  _ref alone. */
#ifndef BNN_FLOAT_MOVE_REF_H
#define BNN_FLOAT_MOVE_REF_H

#include "float.h"

BNN_INLINE void bnn_float_concat_ref(const bnn_move_shape *s, const void *const *inputs, const int32_t *counts,
                                     float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        float *to = out + pixel * s->out_c;
        for (int32_t i = 0; i < s->inputs; i++) {
            const float *from = (const float *)inputs[i] + pixel * counts[i];
            for (int32_t c = 0; c < counts[i]; c++) {
                *to++ = from[c];
            }
        }
    }
}

BNN_INLINE void bnn_float_channels_ref(const bnn_move_shape *s, const float *in, const int32_t *index, float *out,
                                       int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->out_c; c++) {
            out[pixel * s->out_c + c] = index[c] < 0 ? 0.0f : in[pixel * s->in_c + index[c]];
        }
    }
}

#endif
