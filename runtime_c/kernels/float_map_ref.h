/* SPDX-License-Identifier: Apache-2.0 */
/* float_map -- what float32 builds compute element by element: image, norms, slopes, quantizers, joins, scores.
 *
 *     float_image    out = real[pixel value]: the image as the model was trained on it, each value rounded once
 *     float_norm     out = (in - mean[c]) * inverse[c] + beta[c]
 *     float_clip     out = min(max(in, limits[0]), limits[1])
 *     float_prelu    out = in * negative[c] where in < 0, in * positive[c] elsewhere
 *     float_levels   out = levels[number of cuts with in >= cut]
 *     float_sign     bit = 0 (+1) where in >= 0, else 1 (-1)
 *     float_add      out = a + b
 *     float_mul      out = a * b; with `broadcast`, b is one pixel, used for all
 *     float_scores   scores[c] = in[c] * 2^16, rounded to nearest, ties to even, at most what int32 holds
 *
 * Layout    maps [rows][width][channels], float or packed (in_type, a_type, b_type), out float or packed (float_sign);
 *           real [256]; mean, inverse, beta, negative, positive [channels], positive NULL: 1; cuts ascending, `count`
 *           of them, levels one more.
 * Rows      writes rows row_begin .. row_end - 1, all of their bytes; float_scores: a row is one class.
 * Memory    out may be an input of type float: each element is read before it is written, by position. float_image,
 *           float_sign and float_scores overlap nothing.
 * Variants  _ref alone. */
#ifndef BNN_FLOAT_MAP_REF_H
#define BNN_FLOAT_MAP_REF_H

#include "float.h"

BNN_INLINE void bnn_float_image_ref(const bnn_map_shape *s, const uint8_t *in, const float *real, float *out,
                                    int32_t row_begin, int32_t row_end)
{
    const int32_t row = s->width * s->channels;

    for (int32_t i = row_begin * row; i < row_end * row; i++) {
        out[i] = real[in[i]];
    }
}

BNN_INLINE void bnn_float_norm_ref(const bnn_map_shape *s, const void *in, const float *mean, const float *inverse,
                                   const float *beta, float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const float x = bnn_float_load(in, s->in_type, pixel, s->channels, c);
            out[pixel * s->channels + c] = (x - mean[c]) * inverse[c] + beta[c];
        }
    }
}

BNN_INLINE void bnn_float_clip_ref(const bnn_map_shape *s, const void *in, const float *limits, float *out,
                                   int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const float x = bnn_float_load(in, s->in_type, pixel, s->channels, c);
            const float raised = x < limits[0] ? limits[0] : x;
            out[pixel * s->channels + c] = raised > limits[1] ? limits[1] : raised;
        }
    }
}

BNN_INLINE void bnn_float_prelu_ref(const bnn_map_shape *s, const void *in, const float *negative,
                                    const float *positive, float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const float x = bnn_float_load(in, s->in_type, pixel, s->channels, c);
            const float above = positive != NULL ? x * positive[c] : x;
            out[pixel * s->channels + c] = x < 0.0f ? x * negative[c] : above;
        }
    }
}

BNN_INLINE void bnn_float_levels_ref(const bnn_map_shape *s, const void *in, const float *cuts, const float *levels,
                                     int32_t count, float *out, int32_t row_begin, int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            const float x = bnn_float_load(in, s->in_type, pixel, s->channels, c);
            int32_t passed = 0;
            for (int32_t i = 0; i < count; i++) {
                passed += x >= cuts[i];
            }
            out[pixel * s->channels + c] = levels[passed];
        }
    }
}

BNN_INLINE void bnn_float_sign_ref(const bnn_map_shape *s, const float *in, uint32_t *out, int32_t row_begin,
                                   int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c += 32) {
            uint32_t bits = 0;
            for (int32_t i = 0; i < bnn_min(32, s->channels - c); i++) {
                bits |= (in[pixel * s->channels + c + i] >= 0.0f ? 0u : 1u) << i;
            }
            out[pixel * bnn_words(s->channels) + c / 32] = bits;
        }
    }
}

BNN_INLINE void bnn_float_add_ref(const bnn_mul_shape *s, const void *a, const void *b, float *out, int32_t row_begin,
                                  int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            out[pixel * s->channels + c] = bnn_float_load(a, s->a_type, pixel, s->channels, c) +
                                           bnn_float_load(b, s->b_type, pixel, s->channels, c);
        }
    }
}

BNN_INLINE void bnn_float_mul_ref(const bnn_mul_shape *s, const void *a, const void *b, float *out, int32_t row_begin,
                                  int32_t row_end)
{
    for (int32_t pixel = row_begin * s->width; pixel < row_end * s->width; pixel++) {
        for (int32_t c = 0; c < s->channels; c++) {
            out[pixel * s->channels + c] = bnn_float_load(a, s->a_type, pixel, s->channels, c) *
                                           bnn_float_load(b, s->b_type, s->broadcast ? 0 : pixel, s->channels, c);
        }
    }
}

/* x * 2^16 is exact. The difference to its integer part is exact too, and 0 from 2^23 on, where floats are integers. */
BNN_INLINE int32_t bnn_float_score(float x)
{
    const float v = x * 65536.0f;
    int32_t whole;
    float rest;

    if (!(v > -2147483648.0f)) {
        return INT32_MIN;
    }
    if (v >= 2147483648.0f) {
        return INT32_MAX;
    }
    whole = (int32_t)v;
    rest = v - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0)) {
        whole++;
    } else if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0)) {
        whole--;
    }
    return whole;
}

BNN_INLINE void bnn_float_scores_ref(const bnn_dense_shape *s, const float *in, int32_t *scores, int32_t row_begin,
                                     int32_t row_end)
{
    (void)s;
    for (int32_t c = row_begin; c < row_end; c++) {
        scores[c] = bnn_float_score(in[c]);
    }
}

#endif
