/* SPDX-License-Identifier: Apache-2.0 */
/* tail_update.c -- one step of the trainable tail's parameters (docs/numerics.md, 6.7). */
#include "tail_internal.h"

/* What turns a sum into a step: a product and a shift, held in 0..62. */
typedef struct {
    int64_t mult;
    int32_t shift;
} factor;

static factor make_factor(int64_t mult, int32_t shift)
{
    factor f;
    f.mult = mult;
    f.shift = shift < 0 ? 0 : shift > 62 ? 62 : shift;
    return f;
}

/* A configured mantissa at the rate of now. */
static int64_t at_rate(const bnn_tail *self, int32_t mult)
{
    return ((int64_t)mult * self->rate) >> 16;
}

static int32_t sum_at(const bnn_tail *self, uint32_t i)
{
    return self->config->sum_bits == 16u ? ((const int16_t *)self->memory.sums)[i]
                                         : ((const int32_t *)self->memory.sums)[i];
}

/* "scaled": mult * 2^31 / sum of |sums|, so that |sum * factor| <= mult * 2^31 < 2^62. */
static factor kernel_factor(const bnn_tail *self, uint32_t b)
{
    const bnn_tail_config *const config = self->config;
    const uint32_t kernel = tail_sizes_of(config).kernel;
    int64_t whole = 0; /* at most 9 * 2^20 * 2^31 */
    if (config->rule == BNN_TAIL_SGD) {
        return make_factor(at_rate(self, config->w_mult), config->w_shift + self->sum_exponent[b]);
    }
    for (uint32_t i = b * kernel; i < (b + 1u) * kernel; i++) {
        const int64_t v = sum_at(self, i);
        whole += v < 0 ? -v : v;
    }
    return make_factor((at_rate(self, config->w_mult) << 31) / (whole < 1 ? 1 : whole), config->w_shift + 31);
}

/* Latents move by a step in units of 2^-16, rounded down after 16 random bits are added: the mean is the step. */
static void move_latents(bnn_tail *self, uint32_t b, uint64_t *rng)
{
    const uint32_t kernel = tail_sizes_of(self->config).kernel;
    const factor f = kernel_factor(self, b);
    int8_t *const narrow = (int8_t *)self->memory.training.latents;
    int16_t *const wide = (int16_t *)self->memory.training.latents;
    for (uint32_t i = b * kernel; i < (b + 1u) * kernel; i++) {
        const int64_t step = tail_shift(sum_at(self, i) * f.mult, f.shift);
        const int64_t old = self->config->latent_bits == 8u ? narrow[i] : wide[i];
        const int64_t moved = old * (1 << STEP_BITS) - step + (bnn_random(rng) >> 16); /* below 2^62 + 2^32 */
        if (self->config->latent_bits == 8u) {
            narrow[i] = (int8_t)bnn_learn_clamp(moved >> STEP_BITS, -127, 127);
        } else {
            wide[i] = (int16_t)bnn_learn_clamp(moved >> STEP_BITS, -32767, 32767);
        }
    }
}

/* Vectors keep 15 or 24 fraction bits: nearest rounding loses nothing that counts. */
static void move_vector(bnn_tail *self, uint32_t b, uint32_t place)
{
    const bnn_tail_config *const config = self->config;
    const uint32_t channels = config->channels;
    const uint32_t at = (tail_vectors_before(config, b) + place) * channels;
    const int64_t *const sums = self->memory.vector_sums + at;
    int32_t *const vector = self->memory.training.vectors + at;
    const int slope = config->blocks[b].curved != 0 && place == tail_curve_place(&config->blocks[b], SLOPE);
    const int32_t limit = tail_vector_limit(&config->blocks[b], place);
    int64_t max = 0;
    int32_t shift = 0;
    factor f;
    for (uint32_t c = 0; c < channels; c++) {
        const int64_t v = sums[c] < 0 ? -sums[c] : sums[c];
        max = v > max ? v : max;
    }
    while (bnn_round_shift(max, shift) > 0x7FFFFFFF) {
        shift++;
    }
    f = make_factor(at_rate(self, slope ? config->s_mult : config->v_mult),
                    (slope ? config->s_shift : config->v_shift) + self->vector_exponent[b][place] - shift);
    for (uint32_t c = 0; c < channels; c++) {
        const int64_t step = tail_shift(tail_shift(sums[c], shift) * f.mult, f.shift); /* product below 2^62 */
        vector[c] = bnn_learn_clamp(vector[c] - step, -limit, limit);
    }
}

void bnn_tail_update(bnn_tail *self, uint64_t *rng)
{
    for (uint32_t b = 0; b < self->config->count; b++) {
        if (self->sum_bound[b] > 0) {
            move_latents(self, b, rng);
        }
        for (uint32_t place = 0; place < tail_vector_count(&self->config->blocks[b]); place++) {
            if (self->vector_used[b][place] != 0) {
                move_vector(self, b, place);
            }
        }
    }
    bnn_tail_pack(self->config, &self->memory.training);
}
