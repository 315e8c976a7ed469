/* SPDX-License-Identifier: Apache-2.0 */
/* trained.c -- between head and tail: the gradient of a sample's loss at the features (docs/numerics.md, 6.11). */
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
    bnn_tail_clear(&blocks_of(self)->tail);
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
    bnn_tail_update(&blocks_of(self)->tail, &self->state.rng);
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    const uint32_t n = bnn_tail_items(&blocks_of(self)->tail, list);
    for (uint32_t i = 0; i < n; i++) {
        list[i].fresh = NULL;
    }
    return n;
}

const bnn_tail_ops bnn_trained_tail = {init, prepare, commit, restore, clear, backward, update, items};
