/* SPDX-License-Identifier: Apache-2.0 */
/* operands.c -- from feature vector to the operands of a head (docs/numerics.md, 5.1). */
#include "fixed.h"
#include "internal.h"

static int32_t stream_value(const bnn_learn_config *config, const void *stream, uint32_t d)
{
    return config->stream_type == BNN_S8 ? ((const int8_t *)stream)[d] : ((const int16_t *)stream)[d];
}

int32_t bnn_head_value(const bnn_learn_config *config, const void *stream, uint32_t d)
{
    const int32_t q = stream_value(config, stream, d);
    int32_t root;
    if (config->x_root == 0) {
        return q;
    }
    root = (int32_t)bnn_isqrt32((uint32_t)(q < 0 ? -q : q) << 16); /* |q| <= 2^15: at most 46340, 8 fraction bits */
    return q < 0 ? -root : root;
}

/* The rounding half enters as the start of the product's sum. */
static void plain(const bnn_learn_config *config, const void *stream, int16_t *x)
{
    const int32_t shift = config->x_shift;
    const int32_t mult = config->x_mult;
    const int64_t half = ((int64_t)1 << shift) >> 1;
    for (uint32_t d = 0; d < config->features; d++) {
        const int64_t product = (int64_t)stream_value(config, stream, d) * mult;
        x[d] = (int16_t)bnn_learn_clamp((half + product) >> shift, config->x_lo, config->x_hi);
    }
}

void bnn_operands(const bnn_learner *self, const void *stream, int16_t *x)
{
    const bnn_learn_config *const config = self->config;
    const int32_t *const centre = self->parts.centre;
    if (centre == NULL) {
        plain(config, stream, x);
        return;
    }
    for (uint32_t d = 0; d < config->features; d++) {
        /* below 2^16 * 2^31, and 16 fraction bits are left: x_shift >= 16 */
        const int64_t product = (int64_t)bnn_head_value(config, stream, d) * config->x_mult;
        const int64_t away = bnn_round_shift(product, config->x_shift - 16) - centre[d];
        x[d] = (int16_t)bnn_learn_clamp(bnn_round_shift(away, 16), config->x_lo, config->x_hi);
    }
}
