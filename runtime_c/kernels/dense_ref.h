/* SPDX-License-Identifier: Apache-2.0 */
/* dense -- the fully connected layer that gives the scores.
 *
 *     scores[o] = bias[o] + sum over c of in[c] * w[o][c]
 *
 * Layout    in [in_c] int8 or int16 (in_type); w [out_c][in_c] int8; bias int32 [out_c]; scores int32 [out_c]
 * Overflow  every partial sum stays in int32: the generator bounds |bias| + sum |w| * max |in| per class.
 * Rows      writes scores row_begin .. row_end - 1: a row is one class.
 * Memory    scores overlaps nothing.
 * Variants  _ref defines the result; every other variant returns the same bits (tests/kernels). */
#ifndef BNN_DENSE_REF_H
#define BNN_DENSE_REF_H

#include "bnn/kernel.h"

BNN_INLINE void bnn_dense_ref(const bnn_dense_shape *s, const void *in, const int8_t *w, const int32_t *bias,
                              int32_t *scores, int32_t row_begin, int32_t row_end)
{
    for (int32_t o = row_begin; o < row_end; o++) {
        int32_t acc = bias[o];
        for (int32_t c = 0; c < s->in_c; c++) {
            acc += bnn_load(in, s->in_type, c) * w[o * s->in_c + c];
        }
        scores[o] = acc;
    }
}

#endif
