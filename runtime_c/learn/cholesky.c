/* SPDX-License-Identifier: Apache-2.0 */
/* cholesky.c -- see cholesky.h. Every element is rounded once, from an exact sum: so the error does not grow with size. */
#include "cholesky.h"

#include "fixed.h"

enum { ELEMENT_BITS = 15, ELEMENT_MAX = 32767, PIVOT_LEAST = 128, RESULT_BITS = 36 };

/* |sum| < size * 2^30. */
static int64_t dot(const int16_t *a, const int16_t *b, uint32_t count)
{
    int64_t sum = 0;
    for (uint32_t k = 0; k < count; k++) {
        sum += (int32_t)a[k] * b[k];
    }
    return sum;
}

void bnn_cholesky_row(int16_t *factor, uint32_t i, const int64_t *a)
{
    const int32_t limit = (int32_t)1 << BNN_CHOLESKY_BITS;
    int16_t *const row = factor + bnn_triangle(i);
    const int16_t *above = factor;
    int32_t pivot;
    for (uint32_t j = 0; j < i; j++) {
        /* of a definite matrix within the limit, because row i has a norm of at most 1 */
        const int32_t rest = bnn_learn_clamp(a[j] - dot(row, above, j), -limit, limit) + above[j] / 2;
        const int32_t quotient = rest >= 0 ? rest / above[j] : -((above[j] - 1 - rest) / above[j]); /* floor */
        row[j] = (int16_t)bnn_learn_clamp(quotient, -ELEMENT_MAX, ELEMENT_MAX);
        above += j + 1u;
    }
    pivot = bnn_learn_clamp(a[i] - dot(row, row, i), 0, limit - 1);
    row[i] = (int16_t)bnn_learn_clamp(bnn_isqrt((uint64_t)pivot), PIVOT_LEAST, ELEMENT_MAX);
}

/* To nearest, ties towards +infinity; |v| <= 2^62. */
static int64_t divided(int64_t v, int32_t divisor)
{
    const int64_t limit = (int64_t)1 << RESULT_BITS;
    const int64_t shifted = v + divisor / 2;
    const int64_t quotient = shifted >= 0 ? shifted / divisor : -((divisor - 1 - shifted) / divisor);
    return quotient > limit ? limit : quotient < -limit ? -limit : quotient;
}

/* Sums stay below 2^62: 2^11 terms of 2^15 * 2^36. */
void bnn_cholesky_solve(const int16_t *factor, uint32_t size, int64_t *v)
{
    const int16_t *row = factor;
    for (uint32_t i = 0; i < size; i++) {
        int64_t sum = v[i] * (1 << ELEMENT_BITS);
        for (uint32_t k = 0; k < i; k++) {
            sum -= row[k] * v[k];
        }
        v[i] = divided(sum, row[i]);
        row += i + 1u;
    }
    for (uint32_t i = 0; i < size; i++) {
        v[i] *= 1 << ELEMENT_BITS;
    }
    for (uint32_t i = size; i-- > 0;) { /* by columns of L^T, so that memory is read in order */
        row -= i + 1u;
        v[i] = divided(v[i], row[i]);
        for (uint32_t k = 0; k < i; k++) {
            v[k] -= row[k] * v[i];
        }
    }
}
