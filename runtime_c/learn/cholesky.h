/* SPDX-License-Identifier: Apache-2.0 */
/* cholesky.h -- A = L L^T of a positive definite matrix in 16 bits an element, and solutions by it (docs/numerics.md,
 * 5.11). A has diagonal elements in [1/4, 1), stored with 30 fraction bits, L with 15. */
#ifndef BNN_LEARN_CHOLESKY_H
#define BNN_LEARN_CHOLESKY_H

#include "bnn/bnn.h"

enum { BNN_CHOLESKY_BITS = 30, BNN_CHOLESKY_RHS_BITS = 22, BNN_CHOLESKY_MAX = 2048 };

/* Place of row i of a lower triangle that is stored row by row. */
static inline size_t bnn_triangle(uint32_t i)
{
    return (size_t)i * (i + 1u) / 2u;
}

/* Row i of L from a[0..i], row i of A, |a| <= 2^30, and the rows above it. The product L L^T differs from A by at most
 * 2^-16 off the diagonal and less than 2^-14 on it, as long as no pivot is below 2^-16. */
void bnn_cholesky_row(int16_t *factor, uint32_t i, const int64_t *a);

/* v = the solution of L L^T x = v, at the same exponent; |v| <= 2^22 before, results saturate at 2^36. size <= 2048. */
void bnn_cholesky_solve(const int16_t *factor, uint32_t size, int64_t *v);

#endif
