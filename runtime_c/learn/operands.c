/* SPDX-License-Identifier: Apache-2.0 */
/* operands.c -- from feature vector to the operands of a head (docs/numerics.md, 5.1). */
#include "fixed.h"
#include "internal.h"

/* The rounding half enters as the start of the product's sum. */
void bnn_operands(const bnn_learn_config *config, const void *stream, int16_t *x)
{
    const int8_t *const narrow = (const int8_t *)stream;
    const int16_t *const wide = (const int16_t *)stream;
    const int32_t shift = config->x_shift;
    const int32_t mult = config->x_mult;
    const int64_t half = ((int64_t)1 << shift) >> 1;
    for (uint32_t d = 0; d < config->features; d++) {
        const int32_t q = config->stream_type == BNN_S8 ? narrow[d] : wide[d];
        x[d] = (int16_t)bnn_learn_clamp((half + (int64_t)q * mult) >> shift, config->x_lo, config->x_hi);
    }
}
