/* SPDX-License-Identifier: Apache-2.0 */
/* softmax.c -- integer softmax (docs/numerics.md, 5.4). */
#include "internal.h"

/* round(2^16 * 2^(-i/64)), i = 0..64 */
static const uint32_t exp2_table[65] = {
    65536, 64830, 64132, 63441, 62757, 62081, 61413, 60751, 60097, 59449, 58809, 58176, 57549,
    56929, 56316, 55709, 55109, 54515, 53928, 53347, 52773, 52204, 51642, 51085, 50535, 49991,
    49452, 48920, 48393, 47871, 47356, 46846, 46341, 45842, 45348, 44859, 44376, 43898, 43425,
    42958, 42495, 42037, 41584, 41136, 40693, 40255, 39821, 39392, 38968, 38548, 38133, 37722,
    37316, 36914, 36516, 36123, 35734, 35349, 34968, 34591, 34219, 33850, 33486, 33125, 32768};

/* 2^16 * 2^(-t / 2^16), at most 2 units off; 0 from t = 18 * 2^16 on. */
static uint32_t exp2_negative(uint32_t t)
{
    const uint32_t halvings = t >> 16;
    const uint32_t i = (t >> 10) & 63u;
    const uint32_t slope = exp2_table[i] - exp2_table[i + 1u];
    const uint32_t value = exp2_table[i] - ((slope * (t & 1023u) + 512u) >> 10);
    if (halvings >= 18u) {
        return 0;
    }
    return (value + ((1u << halvings) >> 1)) >> halvings;
}

void bnn_softmax(const bnn_learn_config *config, uint64_t scale, int32_t shift, int32_t *acc)
{
    const uint32_t p_max = (uint32_t)config->p_max;
    int32_t top = acc[0];
    uint32_t sum = 0;
    for (uint32_t c = 1; c < config->capacity; c++) {
        top = acc[c] > top ? acc[c] : top;
    }
    for (uint32_t c = 0; c < config->capacity; c++) {
        const uint64_t t = (((uint32_t)top - (uint32_t)acc[c]) * scale) >> shift;
        acc[c] = (int32_t)exp2_negative(t < (18u << 16) ? (uint32_t)t : 18u << 16);
        sum += (uint32_t)acc[c];
    }
    for (uint32_t c = 0; c < config->capacity; c++) {
        acc[c] = (int32_t)((2u * p_max * (uint32_t)acc[c] + sum) / (2u * sum));
    }
}
