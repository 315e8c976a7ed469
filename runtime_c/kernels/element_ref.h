/* SPDX-License-Identifier: Apache-2.0 */
/* element -- element-wise functions of streams beyond the affine rule: mul, piecewise, steps, lookup, scores.
 *
 *     mul         out = affine(a * b); with `broadcast`, b is one pixel, used for all
 *     piecewise   out = affine(in) with the rule of "below" where in < knot[c], of "above" elsewhere
 *     steps       out = first + number of cuts passed: in >= level[c][i], or in < level[c][i] where down[c] is 1
 *     lookup      int8 in:  out = table[in + 128]
 *                 int16 in: p = in + 32768, i = p >> 8, f = p & 255,
 *                           out = table[i] + (((table[i + 1] - table[i]) * f + 128) >> 8)
 *     scores      scores[c] = affine(in[c]), int32
 *
 * Layout    stream maps [rows][width][channels]; knot int32 [channels]; the affine of piecewise has 2 * channels
 *           entries, first all of "below"; level int32 [channels][cuts]; down int8 [channels]; table [256] or [257] of
 *           out_type.
 * Overflow  mul: |a * b| <= 2^30. steps: first + cuts fits out_type. lookup: |difference| * f < 2^24, and the result
 *           lies between two entries. The others: as bnn_affine_apply.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes; scores: a row is one class.
 * Memory    out may be an input of the same type and size: each element is read before it is written, by position.
 *           scores overlaps nothing.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_ELEMENT_REF_H
#define BNN_ELEMENT_REF_H

#include "bnn/kernel.h"

BNN_INLINE void bnn_mul_ref(const bnn_mul_shape *s, const void *a, const void *b, const bnn_affine *affine, void *out,
                            int32_t row_begin, int32_t row_end)
{
    const bnn_affine rule = *affine;

    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const int32_t i = pixel * s->channels + c;
            const int32_t product = bnn_load(a, s->a_type, i) * bnn_load(b, s->b_type, s->broadcast ? c : i);
            bnn_store(out, s->out_type, i, bnn_affine_apply(&rule, s->arithmetic, c, product));
        }
    }
}

BNN_INLINE void bnn_piecewise_ref(const bnn_map_shape *s, const void *in, const int32_t *knot,
                                  const bnn_affine *affine, void *out, int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const int32_t i = pixel * s->channels + c;
            const int32_t x = bnn_load(in, s->in_type, i);
            const int32_t rule = x < knot[c] ? c : s->channels + c;
            bnn_store(out, s->out_type, i, bnn_affine_apply(&a, s->arithmetic, rule, x));
        }
    }
}

BNN_INLINE void bnn_steps_ref(const bnn_map_shape *s, const void *in, const int32_t *level, const int8_t *down,
                              int32_t cuts, int32_t first, void *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const int32_t i = pixel * s->channels + c;
            const int32_t x = bnn_load(in, s->in_type, i);
            int32_t below = 0;
            for (int32_t cut = 0; cut < cuts; cut++) {
                below += x < level[c * cuts + cut];
            }
            bnn_store(out, s->out_type, i, first + (down[c] ? below : cuts - below));
        }
    }
}

/* An int16 x between two of the 257 entries; the shift of a negative number is arithmetic, as in bnn_affine_apply. */
BNN_INLINE int32_t bnn_lookup_between(const void *table, int32_t type, int32_t x)
{
    const int32_t place = x + 32768;
    const int32_t left = bnn_load(table, type, place >> 8);
    const int32_t right = bnn_load(table, type, (place >> 8) + 1);

    return left + (((right - left) * (place & 255) + 128) >> 8);
}

BNN_INLINE void bnn_lookup_ref(const bnn_map_shape *s, const void *in, const void *table, void *out,
                               int32_t row_begin, int32_t row_end)
{
    const int32_t row = s->width * s->channels;

    for (int32_t i = row_begin * row; i < row_end * row; i++) {
        const int32_t x = bnn_load(in, s->in_type, i);
        const int32_t y = s->in_type == BNN_S8 ? bnn_load(table, s->out_type, x + 128)
                                               : bnn_lookup_between(table, s->out_type, x);
        bnn_store(out, s->out_type, i, y);
    }
}

BNN_INLINE void bnn_scores_ref(const bnn_dense_shape *s, const void *in, const bnn_affine *affine, int32_t *scores,
                               int32_t row_begin, int32_t row_end)
{
    const bnn_affine a = *affine;

    for (int32_t c = row_begin; c < row_end; c++) {
        scores[c] = bnn_affine_apply(&a, s->arithmetic, c, bnn_load(in, s->in_type, c));
    }
}

#endif
