/* SPDX-License-Identifier: Apache-2.0 */
/* mapping.c -- what an analytic head sums: the operands, and behind them random projections of them, cut off below 0
 * (docs/numerics.md, 5.11). */
#include "analytic.h"

/* +-x, by one random bit each; the matrix is drawn again for every sample, and stored nowhere. |sum| <= D * 255. */
static int32_t projected(uint64_t *rng, const int16_t *x, uint32_t count)
{
    int32_t sum = 0;
    uint32_t bits = 0;
    for (uint32_t d = 0; d < count; d++) {
        bits = d % 32u == 0 ? bnn_random(rng) : bits >> 1;
        sum += (bits & 1u) != 0 ? -x[d] : x[d];
    }
    return sum;
}

const int16_t *bnn_map(const bnn_learner *self, const void *stream)
{
    const bnn_learn_config *const config = self->config;
    int16_t *const x = self->memory.x;
    uint64_t rng;
    bnn_operands(self, stream, x);
    bnn_random_seed(&rng, config->projection_seed);
    for (uint32_t i = config->features; i < config->mapped; i++) {
        const int64_t sum = projected(&rng, x, config->features);
        x[i] = (int16_t)bnn_learn_clamp(bnn_round_shift(sum, config->phi_shift), 0, config->phi_max);
    }
    return x;
}
