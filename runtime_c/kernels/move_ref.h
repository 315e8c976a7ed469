/* SPDX-License-Identifier: Apache-2.0 */
/* move -- operations that move channels and compute nothing: concat, bconcat, channels, bchannels, bflatten.
 *
 *     concat, bconcat        a pixel of out is the pixels of all inputs, one behind the other
 *     channels, bchannels    channel c of out is channel index[c] of in; in channels, index -1 gives 0
 *     bflatten               `width` pixels of in_c bits -> one of width * in_c = out_c bits; rows is 1
 *
 * Layout    concat, channels: streams [rows][width][C] of in_type; the others: packed maps. counts int32 [inputs]: the
 *           channels of each input, out_c in all. index int32 [out_c].
 * Overflow  nothing is computed.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes; bflatten: out is one row.
 * Memory    out overlaps nothing.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_MOVE_REF_H
#define BNN_MOVE_REF_H

#include "bnn/kernel.h"

/* One input to its place in every pixel of out: channels first .. first + count - 1. */
BNN_INLINE void bnn_concat_input(const bnn_move_shape *s, const void *in, int32_t count, int32_t first, void *out,
                                 int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < count; c++) {
            bnn_store(out, s->in_type, pixel * s->out_c + first + c, bnn_load(in, s->in_type, pixel * count + c));
        }
    }
}

BNN_INLINE void bnn_concat_ref(const bnn_move_shape *s, const void *const *inputs, const int32_t *counts, void *out,
                               int32_t row_begin, int32_t row_end)
{
    int32_t first = 0;

    for (int32_t i = 0; i < s->inputs; i++) {
        bnn_concat_input(s, inputs[i], counts[i], first, out, row_begin, row_end);
        first += counts[i];
    }
}

BNN_INLINE void bnn_bconcat_ref(const bnn_move_shape *s, const void *const *inputs, const int32_t *counts,
                                uint32_t *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        uint32_t *to = out + pixel * bnn_words(s->out_c);
        int32_t at = 0;
        for (int32_t i = 0; i < s->inputs; i++) {
            const uint32_t *from = (const uint32_t *)inputs[i] + pixel * bnn_words(counts[i]);
            for (int32_t c = 0; c < counts[i]; c += 32) {
                const int32_t count = bnn_min(32, counts[i] - c);
                bnn_append_bits(to, at, from[c / 32], count);
                at += count;
            }
        }
    }
}

BNN_INLINE void bnn_channels_ref(const bnn_move_shape *s, const void *in, const int32_t *index, void *out,
                                 int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->out_c; c++) {
            const int32_t from = index[c];
            const int32_t value = from < 0 ? 0 : bnn_load(in, s->in_type, pixel * s->in_c + from);
            bnn_store(out, s->in_type, pixel * s->out_c + c, value);
        }
    }
}

BNN_INLINE void bnn_bchannels_ref(const bnn_move_shape *s, const uint32_t *in, const int32_t *index, uint32_t *out,
                                  int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        const uint32_t *from = in + pixel * bnn_words(s->in_c);
        for (int32_t c = 0; c < s->out_c; c += 32) {
            uint32_t bits = 0;
            for (int32_t i = 0; i < bnn_min(32, s->out_c - c); i++) {
                bits |= ((from[index[c + i] / 32] >> (index[c + i] % 32)) & 1u) << i;
            }
            out[pixel * bnn_words(s->out_c) + c / 32] = bits;
        }
    }
}

BNN_INLINE void bnn_bflatten_ref(const bnn_move_shape *s, const uint32_t *in, uint32_t *out, int32_t row_begin,
                                 int32_t row_end)
{
    int32_t at = 0;

    if (row_begin == row_end) {
        return;
    }
    for (int32_t pixel = 0; pixel < s->width; pixel++) {
        for (int32_t c = 0; c < s->in_c; c += 32) {
            const int32_t count = bnn_min(32, s->in_c - c);
            bnn_append_bits(out, at, in[pixel * bnn_words(s->in_c) + c / 32], count);
            at += count;
        }
    }
}

#endif
