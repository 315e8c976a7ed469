/* SPDX-License-Identifier: Apache-2.0 */
/* trained.c -- between head and tail: the gradient of a sample's loss at the features, the rate's decay, noise on the latents
 * (docs/numerics.md, 6.11). */
#include "bnn/trained.h"

#include "fixed.h"
#include "internal.h"

static bnn_trained *blocks_of(const bnn_learner *self)
{
    return (bnn_trained *)self->parts.blocks;
}

static void init(bnn_learner *self)
{
    bnn_tail *const tail = &blocks_of(self)->tail;
    const bnn_tail_memory memory = tail->memory;
    bnn_tail_init(tail, tail->config, &memory);
}

static void prepare(bnn_learner *self)
{
    bnn_tail_prepare(&blocks_of(self)->tail);
}

static void commit(bnn_learner *self)
{
    bnn_tail_commit(&blocks_of(self)->tail);
}

static bnn_status restore(bnn_learner *self)
{
    return bnn_tail_restore(&blocks_of(self)->tail);
}

static void clear(bnn_learner *self)
{
    bnn_trained *const trained = blocks_of(self);
    bnn_tail_clear(&trained->tail);
    if (trained->noise != 0) {
        bnn_random_seed(&trained->flips, bnn_random(&self->state.rng));
    }
}

/* 32 bits, each set with probability noise / 32: from the lowest digit of `noise` up, a digit 1 halves the way to 1, a digit 0
 * the way to 0. */
static uint32_t flip_mask(uint64_t *rng, uint32_t noise)
{
    uint32_t mask = 0;
    for (uint32_t digit = 0; digit < 5u; digit++) {
        const uint32_t r = bnn_random(rng);
        mask = ((noise >> digit) & 1u) != 0 ? mask | r : mask & r;
    }
    return mask;
}

/* The latent itself stays as it is: memory.latent takes the copy, where a generative memory may have drawn it already. */
static const uint32_t *disturb(bnn_learner *self, const uint32_t *latent)
{
    bnn_trained *const trained = blocks_of(self);
    uint32_t *const copy = self->memory.latent;
    if (trained->noise == 0) {
        return latent;
    }
    for (uint32_t i = 0; i < self->config->latent_words; i++) {
        copy[i] = latent[i] ^ flip_mask(&trained->flips, trained->noise);
    }
    return copy;
}

/* The head's `learn` leaves the logit gradient in acc and has its operands in wq. The sum over classes of |gradient| is at
 * most 3 L + 2 P + 1: probabilities round up by half at most, and at most 2 P of them to anything. So |dx| < 2^24, its
 * product with the largest weight is below 2^39, and that with the mantissa below 2^54. */
static void backward(bnn_learner *self)
{
    bnn_trained *const trained = blocks_of(self);
    const uint32_t features = self->config->features;
    int32_t *const dx = trained->dx;
    const int64_t unit = (int64_t)self->loaded * trained->grad_mult;
    const int8_t *row = (const int8_t *)self->memory.wq;
    int64_t max = 0;
    int32_t shift = 0;
    bnn_learn_clear(dx, features * sizeof *dx);
    for (uint32_t c = 0; c < self->config->capacity; c++, row += features) {
        const int32_t g = self->memory.acc[c];
        for (uint32_t d = 0; g != 0 && d < features; d++) {
            dx[d] += g * row[d];
        }
    }
    for (uint32_t d = 0; d < features; d++) {
        const int64_t v = dx[d] < 0 ? -(int64_t)dx[d] : dx[d];
        max = v > max ? v : max;
    }
    while (bnn_round_shift(max * unit, shift) > INT32_MAX) {
        shift++;
    }
    for (uint32_t d = 0; d < features; d++) {
        dx[d] = (int32_t)bnn_round_shift(dx[d] * unit, shift);
    }
    bnn_tail_backward(&trained->tail, dx, self->loaded_exp + trained->grad_shift - shift);
}

static void update(bnn_learner *self)
{
    bnn_tail *const tail = &blocks_of(self)->tail;
    const bnn_learn_state *const s = &self->state;
    bnn_tail_set_rate(tail, (uint32_t)(((uint64_t)(s->steps_total - s->steps_done) << 16) / s->steps_total));
    bnn_tail_update(tail, &self->state.rng);
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    const uint32_t n = bnn_tail_items(&blocks_of(self)->tail, list);
    for (uint32_t i = 0; i < n; i++) {
        list[i].fresh = NULL;
    }
    return n;
}

const bnn_tail_ops bnn_trained_tail = {init, prepare, commit, restore, clear, disturb, backward, update, items};
