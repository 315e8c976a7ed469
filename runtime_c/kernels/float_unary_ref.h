/* SPDX-License-Identifier: Apache-2.0 */
/* float_unary -- smooth functions of each element of a real map, in the order of operations of the float graph.
 *
 *     float_sigmoid        1 / (1 + e^-x)
 *     float_tanh           (e^2x - 1) / (e^2x + 1)
 *     float_hard_sigmoid   min(max(0.2 x + 0.5, 0), 1)
 *     float_swish          x / (1 + e^-x)
 *     float_hard_swish     x * min(max(x + 3, 0), 6) / 6
 *     float_elu            x, and e^x - 1 where x < 0
 *
 * Layout    maps [rows][width][channels] float; in may be packed (in_type).
 * Rounding  relative errors below 2^-19 (tests/float32), from those of float.h.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes.
 * Memory    out may be an input of type float: each element is read before it is written, by position.
 * Variants  _ref alone. */
#ifndef BNN_FLOAT_UNARY_REF_H
#define BNN_FLOAT_UNARY_REF_H

#include "float.h"

BNN_INLINE float bnn_float_limit(float x, float lo, float hi)
{
    const float raised = x < lo ? lo : x;
    return raised > hi ? hi : raised;
}

BNN_INLINE float bnn_float_sigmoid(float x)
{
    return 1.0f / (1.0f + bnn_float_exp(-x));
}

/* Of |x|, since e^2x - 1 is accurate there; beyond 9 the result rounds to 1. */
BNN_INLINE float bnn_float_tanh(float x)
{
    const float a = x < 0.0f ? -x : x;
    const float t = bnn_float_expm1(2.0f * (a > 9.0f ? 9.0f : a));
    const float y = a > 9.0f ? 1.0f : t / (t + 2.0f);

    return x < 0.0f ? -y : y;
}

BNN_INLINE float bnn_float_hard_sigmoid(float x)
{
    return bnn_float_limit(0.2f * x + 0.5f, 0.0f, 1.0f);
}

BNN_INLINE float bnn_float_swish(float x)
{
    return x / (1.0f + bnn_float_exp(-x));
}

BNN_INLINE float bnn_float_hard_swish(float x)
{
    return x * bnn_float_limit(x + 3.0f, 0.0f, 6.0f) / 6.0f;
}

BNN_INLINE float bnn_float_elu(float x)
{
    return x < 0.0f ? bnn_float_expm1(x) : x;
}

BNN_INLINE void bnn_float_sigmoid_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                      int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_sigmoid, row_begin, row_end);
}

BNN_INLINE void bnn_float_tanh_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                   int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_tanh, row_begin, row_end);
}

BNN_INLINE void bnn_float_hard_sigmoid_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                           int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_hard_sigmoid, row_begin, row_end);
}

BNN_INLINE void bnn_float_swish_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                    int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_swish, row_begin, row_end);
}

BNN_INLINE void bnn_float_hard_swish_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                         int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_hard_swish, row_begin, row_end);
}

BNN_INLINE void bnn_float_elu_ref(const bnn_map_shape *s, const void *in, float *out, int32_t row_begin,
                                  int32_t row_end)
{
    bnn_float_each(s, in, out, bnn_float_elu, row_begin, row_end);
}

#endif
