/* SPDX-License-Identifier: Apache-2.0 */
/* minibatch.c -- how gradient heads are trained: minibatches of new and replayed samples (docs/numerics.md, 5.7). */
#include "fixed.h"
#include "internal.h"

/* New samples in each minibatch; the others are replayed. */
static uint32_t fresh_per_step(const bnn_learn_config *config, uint32_t new_classes, uint32_t old_classes)
{
    const uint32_t classes = new_classes + old_classes;
    uint32_t fresh;
    if (old_classes == 0) {
        return config->batch;
    }
    if (config->new_per_batch != 0) {
        return config->new_per_batch;
    }
    fresh = (2u * config->batch * new_classes + classes) / (2u * classes);
    return fresh == 0 ? 1u : fresh;
}

void bnn_minibatch_prepare(bnn_learner *self, uint32_t new_classes, uint32_t old_classes)
{
    bnn_learn_state *const s = &self->state;
    for (uint32_t i = 0; i < s->buffered; i++) {
        self->memory.order[i] = (uint16_t)i;
    }
    s->fresh = fresh_per_step(self->config, new_classes, old_classes);
    s->epoch_steps = (s->buffered + s->fresh - 1u) / s->fresh;
    s->steps_total = self->config->epochs * s->epoch_steps;
}

/* Fisher-Yates, from the last place down. */
static void shuffle(bnn_learner *self)
{
    uint16_t *const order = self->memory.order;
    for (uint32_t i = self->state.buffered - 1u; i > 0; i--) {
        const uint32_t j = bnn_random_below(&self->state.rng, i + 1u);
        const uint16_t other = order[j];
        order[j] = order[i];
        order[i] = other;
    }
    self->state.position = 0;
}

/* Latent and label of sample `i` of the minibatch: first the new ones, then the replayed ones. */
static const uint32_t *pick(bnn_learner *self, uint32_t i, uint32_t *label)
{
    const size_t words = self->config->latent_words;
    if (i < self->state.fresh) {
        const uint32_t slot = self->memory.order[self->state.position++];
        if (self->state.position == self->state.buffered) {
            self->state.position = 0;
        }
        *label = self->memory.buffer_labels[slot];
        return self->memory.buffer_latents + slot * words;
    } else {
        return self->parts.replay->draw(self, label);
    }
}

bnn_status bnn_minibatch_step(bnn_learner *self)
{
    const bnn_head_ops *const head = self->parts.head;
    const bnn_tail_ops *const tail = self->parts.tail;
    bnn_learn_state *const s = &self->state;
    if (s->steps_done % s->epoch_steps == 0) {
        shuffle(self);
    }
    bnn_learner_load(self, BNN_ROWS_TRAINED);
    if (tail != NULL) {
        tail->clear(self);
    }
    for (uint32_t i = 0; i < self->config->batch; i++) {
        uint32_t label;
        const uint32_t *latent = pick(self, i, &label);
        if (tail != NULL) {
            latent = tail->disturb(self, latent);
        }
        head->learn(self, self->parts.features(self->parts.user, latent), label);
        if (tail != NULL) {
            tail->backward(self);
        }
    }
    head->update(self);
    if (tail != NULL) {
        tail->update(self);
    }
    s->steps_done++;
    return s->steps_done == s->steps_total ? BNN_OK : BNN_MORE;
}
