/* SPDX-License-Identifier: Apache-2.0 */
/* restore.c -- a learner's state from outside: written piece by piece, then looked at as a whole. What is checked is what
 * memory, loops and divisions rely on; that the bytes are those of another learner is for checksums to tell. */
#include "fixed.h"
#include "internal.h"
#include "store.h"

enum { COUNT_LIMIT = 0x7FFFFFFF };

bnn_status bnn_learner_write(bnn_learner *self, uint32_t item, uint32_t offset, const void *data, uint32_t bytes)
{
    bnn_learn_item items[BNN_LEARN_ITEMS];
    const uint8_t *const from = (const uint8_t *)data;
    uint8_t *to;
    if (item >= bnn_learner_items(self, items) || offset > items[item].bytes || bytes > items[item].bytes - offset) {
        return BNN_E_RANGE;
    }
    to = (uint8_t *)(uintptr_t)items[item].data + offset;
    for (uint32_t i = 0; i < bytes; i++) {
        to[i] = from[i];
    }
    return BNN_OK;
}

static int counts_fit(const uint32_t *counts, uint32_t capacity)
{
    int fit = 1;
    for (uint32_t c = 0; counts != NULL && c < capacity; c++) {
        fit &= counts[c] <= COUNT_LIMIT;
    }
    return fit;
}

static int labels_fit(const uint16_t *labels, uint32_t count, uint32_t capacity)
{
    int fit = 1;
    for (uint32_t i = 0; i < count; i++) {
        fit &= labels[i] < capacity;
    }
    return fit;
}

/* Members within the slots, of classes that were seen; class-balanced, within their quotas, on which free slots rest. */
static int store_fits(const bnn_latent_store *store, int balanced)
{
    if (*store->filled > store->slots || !labels_fit(store->labels, *store->filled, store->capacity)) {
        return 0;
    }
    for (uint32_t c = 0; c < store->capacity; c++) {
        const uint32_t count = bnn_store_members(store, c);
        const uint32_t limit = store->seen[c] == 0 ? 0u : balanced ? bnn_store_quota(store, c) : store->slots;
        if (count > limit) {
            return 0;
        }
    }
    return 1;
}

static int replay_fits(bnn_learner *self)
{
    bnn_latent_store store;
    if (self->parts.replay != NULL && self->parts.replay->fits != NULL) {
        return self->parts.replay->fits(self);
    }
    if (self->memory.replay_labels == NULL) {
        return self->state.replayed <= self->config->replay_slots;
    }
    store.labels = self->memory.replay_labels;
    store.latents = self->memory.replay_latents;
    store.seen = self->memory.seen;
    store.filled = &self->state.replayed;
    store.rng = &self->state.rng;
    store.slots = self->config->replay_slots;
    store.words = self->config->latent_words;
    store.capacity = self->config->capacity;
    return store_fits(&store, self->config->policy == BNN_LEARN_BALANCED);
}

static int held_fit(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    bnn_learn_state *const s = &self->state;
    bnn_latent_store store;
    if (s->held_new > config->hold_new_slots || s->held > config->hold_slots ||
        !labels_fit(self->memory.hold_new_labels, s->held_new, config->capacity)) {
        return 0;
    }
    if (self->memory.hold_labels == NULL) {
        return 1;
    }
    store.labels = self->memory.hold_labels;
    store.latents = self->memory.hold_latents;
    store.seen = self->memory.hold_seen;
    store.filled = &s->held;
    store.rng = &s->rng;
    store.slots = config->hold_slots;
    store.words = config->latent_words;
    store.capacity = config->capacity;
    return store_fits(&store, 1);
}

/* A buffer that is not there has no samples; one that is holds them from an experience that has ended. */
static int buffer_fits(const bnn_learner *self)
{
    const bnn_learn_state *const s = &self->state;
    if (self->memory.buffer_labels == NULL) {
        return s->buffered == 0;
    }
    return s->buffered <= self->config->buffer_slots &&
           labels_fit(self->memory.buffer_labels, s->buffered, self->config->capacity);
}

static int exponent_fits(const bnn_learn_config *config, int32_t e)
{
    return config->e_min == config->e_max || (e >= config->e_min && e <= config->e_max); /* equal: a head without */
}

static int state_fits(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const bnn_learn_memory *const m = &self->memory;
    const bnn_learn_state *const s = &self->state;
    return s->phase == BNN_LEARN_IDLE && s->experiences <= COUNT_LIMIT && s->added <= COUNT_LIMIT &&
           exponent_fits(config, s->tw_exp) && exponent_fits(config, s->cw_exp) && s->verdict <= BNN_REFUSED_NEW &&
           counts_fit(m->past, config->capacity) && counts_fit(m->cur, config->capacity) &&
           counts_fit(m->seen, config->capacity) && counts_fit(m->hold_seen, config->capacity) &&
           counts_fit(m->hold_counts, config->capacity) && buffer_fits(self) && replay_fits(self) && held_fit(self);
}

bnn_status bnn_learner_restore(bnn_learner *self)
{
    const bnn_tail_ops *const tail = self->parts.tail;
    if (state_fits(self) && (tail == NULL || tail->restore(self) == BNN_OK)) {
        return BNN_OK;
    } else {
        const bnn_learn_parts parts = self->parts;
        const bnn_learn_memory memory = self->memory;
        bnn_learner_init(self, self->config, &parts, &memory, 0);
        return BNN_E_FORMAT;
    }
}
