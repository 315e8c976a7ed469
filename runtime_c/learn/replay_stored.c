/* SPDX-License-Identifier: Apache-2.0 */
/* replay_stored.c -- the replay memory that keeps latents, class-balanced or at random (docs/numerics.md, 5.8). */
#include "fixed.h"
#include "internal.h"
#include "store.h"

static bnn_latent_store view(bnn_learner *self)
{
    bnn_latent_store store;
    store.labels = self->memory.replay_labels;
    store.latents = self->memory.replay_latents;
    store.seen = self->memory.seen;
    store.filled = &self->state.replayed;
    store.rng = &self->state.rng;
    store.slots = self->config->replay_slots;
    store.words = self->config->latent_words;
    store.capacity = self->config->capacity;
    return store;
}

static void count(const bnn_learner *self, int32_t *samples)
{
    for (uint32_t slot = 0; slot < self->state.replayed; slot++) {
        samples[self->memory.replay_labels[slot]]++;
    }
}

/* A member drawn with replacement. */
static const uint32_t *draw(bnn_learner *self, uint32_t *label)
{
    const uint32_t slot = bnn_random_below(&self->state.rng, self->state.replayed);
    *label = self->memory.replay_labels[slot];
    return self->memory.replay_latents + (size_t)slot * self->config->latent_words;
}

/* The random rule takes replay_slots / (i + 1) of the new samples after experience i, so that every experience keeps
 * the same expected share. */
static void refill(bnn_learner *self)
{
    const bnn_latent_store store = view(self);
    const uint32_t offered = self->state.buffered;
    const uint32_t share = store.slots / (self->state.experiences + 1u);
    const uint32_t *latent = self->memory.buffer_latents;
    bnn_store_refill refill;
    refill.left = offered;
    refill.take = share < offered ? share : offered;
    refill.old = self->state.replayed;
    for (uint32_t i = 0; i < offered; i++, latent += store.words) {
        if (self->config->policy == BNN_LEARN_BALANCED) {
            bnn_store_put_balanced(&store, latent, self->memory.buffer_labels[i]);
        } else {
            bnn_store_put_random(&store, &refill, latent, self->memory.buffer_labels[i]);
        }
    }
}

static void forget(bnn_learner *self, uint32_t label)
{
    const bnn_latent_store store = view(self);
    bnn_store_forget(&store, label);
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *items_out)
{
    const size_t slots = self->config->replay_slots;
    items_out[0].data = self->memory.replay_labels;
    items_out[0].bytes = slots * sizeof(uint16_t);
    items_out[1].data = self->memory.replay_latents;
    items_out[1].bytes = slots * self->config->latent_words * sizeof(uint32_t);
    return 2;
}

const bnn_replay_ops bnn_replay_stored = {count, draw, refill, forget, items, NULL};
