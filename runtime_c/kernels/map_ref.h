/* SPDX-License-Identifier: Apache-2.0 */
/* map -- operations that keep every element at its place: quantize_input, requantize, binarize, unpack, add.
 *
 *     quantize_input   u8 pixels -> stream     out = affine(in)
 *     requantize       stream -> stream        out = affine(in)
 *     binarize         stream -> packed        bit = (in < level[c]) != flip[c]
 *     unpack           packed -> stream        out = high[c] where the bit is 0 (+1), low[c] where it is 1 (-1)
 *     add              stream, stream          out = clamp(a + b, lo, hi), equal scales
 *
 * Layout    stream maps [rows][width][channels], packed maps [rows][width][words]; in_type and out_type are the types
 *           of the stream sides; level int32 [channels]; flip packed [words]; low, high int16 [channels].
 * Overflow  add: the sum of two int16 fits int32. The others: as bnn_affine_apply.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes.
 * Memory    add: out may be a or b. requantize: out may be in when the types are equal. Otherwise no overlap.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_MAP_REF_H
#define BNN_MAP_REF_H

#include "bnn/kernel.h"

BNN_INLINE void bnn_quantize_input_ref(const bnn_map_shape *s, const uint8_t *in, const bnn_affine *affine,
                                       void *out, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const int32_t i = pixel * s->channels + c;
            bnn_store(out, s->out_type, i, bnn_affine_apply(&a, s->arithmetic, c, in[i]));
        }
    }
}

BNN_INLINE void bnn_requantize_ref(const bnn_map_shape *s, const void *in, const bnn_affine *affine, void *out,
                                   int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const int32_t i = pixel * s->channels + c;
            bnn_store(out, s->out_type, i, bnn_affine_apply(&a, s->arithmetic, c, bnn_load(in, s->in_type, i)));
        }
    }
}

BNN_INLINE void bnn_binarize_ref(const bnn_map_shape *s, const void *in, const int32_t *level, const uint32_t *flip,
                                 uint32_t *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c += 32) {
            uint32_t bits = 0;
            for (int32_t i = 0; i < bnn_min(32, s->channels - c); i++) {
                const int32_t q = bnn_load(in, s->in_type, pixel * s->channels + c + i);
                bits |= (uint32_t)(q < level[c + i]) << i;
            }
            out[pixel * bnn_words(s->channels) + c / 32] = bits ^ flip[c / 32];
        }
    }
}

BNN_INLINE void bnn_unpack_ref(const bnn_map_shape *s, const uint32_t *in, const int16_t *low, const int16_t *high,
                               void *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const uint32_t bit = (in[pixel * bnn_words(s->channels) + c / 32] >> (c % 32)) & 1u;
            bnn_store(out, s->out_type, pixel * s->channels + c, bit ? low[c] : high[c]);
        }
    }
}

BNN_INLINE void bnn_add_ref(const bnn_map_shape *s, const void *a, const void *b, int32_t lo, int32_t hi, void *out,
                            int32_t row_begin, int32_t row_end)
{
    const int32_t row = s->width * s->channels;

    for (int32_t i = row_begin * row; i < row_end * row; i++) {
        const int32_t sum = bnn_load(a, s->in_type, i) + bnn_load(b, s->in_type, i);
        bnn_store(out, s->out_type, i, bnn_clamp(sum, lo, hi));
    }
}

#endif
