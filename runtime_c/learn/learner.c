/* SPDX-License-Identifier: Apache-2.0 */
/* learner.c -- the course of an experience: collect, train in bounded steps, consolidate. */
#include "fixed.h"
#include "internal.h"

static void clear(void *memory, size_t bytes)
{
    uint8_t *const byte = (uint8_t *)memory;
    for (size_t i = 0; i < bytes; i++) {
        byte[i] = 0;
    }
}

void bnn_learner_init(bnn_learner *self, const bnn_learn_config *config, const bnn_learn_memory *memory,
                      bnn_features_fn features, void *user, uint64_t seed)
{
    bnn_learn_item items[BNN_LEARN_ITEMS];
    self->config = config;
    self->memory = *memory;
    self->features = features;
    self->user = user;
    bnn_learner_items(self, items);
    for (int i = 0; i < BNN_LEARN_ITEMS; i++) {
        clear((void *)(uintptr_t)items[i].data, items[i].bytes);
    }
    bnn_random_seed(&self->state.rng, seed);
    self->state.tw_exp = config->e_max;
    self->state.cw_exp = config->e_max;
}

bnn_status bnn_learner_begin(bnn_learner *self)
{
    if (self->state.phase != BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    self->state.phase = BNN_LEARN_COLLECT;
    self->state.added = 0;
    self->state.buffered = 0;
    self->state.position = 0;
    self->state.fresh = 0;
    self->state.epoch_steps = 0;
    self->state.steps_done = 0;
    self->state.steps_total = 0;
    clear(self->memory.cur, self->config->capacity * sizeof(uint32_t));
    return BNN_OK;
}

/* Reservoir sampling (Vitter 1985, algorithm R): each sample offered is kept with the same probability. */
bnn_status bnn_learner_add(bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    bnn_learn_state *const s = &self->state;
    const uint32_t words = self->config->latent_words;
    uint32_t slot;
    if (s->phase != BNN_LEARN_COLLECT) {
        return BNN_E_STATE;
    }
    if (label >= self->config->capacity) {
        return BNN_E_LABEL;
    }
    s->added += s->added < 0x7FFFFFFFu;
    if (s->buffered < self->config->buffer_slots) {
        slot = s->buffered++;
    } else {
        slot = bnn_random_below(&s->rng, s->added);
    }
    if (slot < self->config->buffer_slots) {
        bnn_latent_copy(self->memory.buffer_latents + (size_t)slot * words, latent, words);
        self->memory.buffer_labels[slot] = (uint16_t)label;
    }
    return BNN_OK;
}

/* Add `count` labels to cur; return how many different ones there are. */
static uint32_t count_classes(bnn_learner *self, const uint16_t *labels, uint32_t count)
{
    int32_t *const samples = self->memory.acc;
    uint32_t classes = 0;
    clear(samples, self->config->capacity * sizeof(int32_t));
    for (uint32_t i = 0; i < count; i++) {
        classes += samples[labels[i]] == 0;
        samples[labels[i]]++;
        self->memory.cur[labels[i]]++;
    }
    return classes;
}

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

/* The first step knows which classes are present: those of the buffer and of the replay memory. */
static void prepare(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    const uint32_t new_classes = count_classes(self, self->memory.buffer_labels, s->buffered);
    const uint32_t old_classes = count_classes(self, self->memory.replay_labels, s->replayed);
    for (uint32_t i = 0; i < s->buffered; i++) {
        self->memory.order[i] = (uint16_t)i;
    }
    bnn_head_prepare(self);
    s->fresh = fresh_per_step(self->config, new_classes, old_classes);
    s->epoch_steps = (s->buffered + s->fresh - 1u) / s->fresh;
    s->steps_total = self->config->epochs * s->epoch_steps;
    s->phase = BNN_LEARN_TRAIN;
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
        const uint32_t slot = bnn_replay_draw(self);
        *label = self->memory.replay_labels[slot];
        return self->memory.replay_latents + slot * words;
    }
}

static void train_minibatch(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const int32_t r = bnn_head_load(self, self->memory.tw);
    clear(self->memory.dw, (size_t)config->capacity * config->features * sizeof(int32_t));
    for (uint32_t i = 0; i < config->batch; i++) {
        uint32_t label;
        const uint32_t *const latent = pick(self, i, &label);
        bnn_head_forward(self, self->features(self->user, latent), self->memory.acc);
        bnn_head_backward(self, r, label);
    }
    bnn_head_update(self);
}

bnn_status bnn_learner_step(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    if (s->phase == BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    if (s->phase == BNN_LEARN_DONE || s->buffered == 0) {
        return BNN_OK;
    }
    if (s->phase == BNN_LEARN_COLLECT) {
        prepare(self);
    }
    if (s->steps_done % s->epoch_steps == 0) {
        shuffle(self);
    }
    train_minibatch(self);
    s->steps_done++;
    if (s->steps_done == s->steps_total) {
        s->phase = BNN_LEARN_DONE;
        return BNN_OK;
    }
    return BNN_MORE;
}

bnn_status bnn_learner_end(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    if (s->phase == BNN_LEARN_IDLE || (s->phase == BNN_LEARN_COLLECT && s->buffered != 0)) {
        return BNN_E_STATE;
    }
    if (s->buffered != 0) {
        const uint32_t *latent = self->memory.buffer_latents;
        bnn_replay_refill refill = bnn_replay_begin(self, s->buffered);
        bnn_head_consolidate(self);
        for (uint32_t i = 0; i < s->buffered; i++, latent += self->config->latent_words) {
            bnn_replay_put(self, &refill, latent, self->memory.buffer_labels[i]);
        }
        s->experiences++;
    }
    s->phase = BNN_LEARN_IDLE;
    return BNN_OK;
}

bnn_status bnn_learner_abandon(bnn_learner *self)
{
    if (self->state.phase == BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    self->state.phase = BNN_LEARN_IDLE;
    return BNN_OK;
}

void bnn_learner_scores(const bnn_learner *self, const void *features, int32_t *scores)
{
    (void)bnn_head_load(self, self->memory.cw);
    bnn_head_forward(self, features, scores);
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        scores[c] = self->memory.past[c] == 0 ? INT32_MIN : scores[c];
    }
}

void bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS])
{
    const bnn_learn_config *const config = self->config;
    const bnn_learn_memory *const m = &self->memory;
    const size_t weights = (size_t)config->capacity * config->features * sizeof(int16_t);
    const size_t counts = config->capacity * sizeof(uint32_t);
    const size_t latent = config->latent_words * sizeof(uint32_t);
    const bnn_learn_item list[BNN_LEARN_ITEMS] = {
        {&self->state, sizeof self->state},
        {m->past, counts},
        {m->cur, counts},
        {m->seen, counts},
        {m->cw, weights},
        {m->tw, weights},
        {m->replay_labels, config->replay_slots * sizeof(uint16_t)},
        {m->replay_latents, config->replay_slots * latent},
        {m->buffer_labels, config->buffer_slots * sizeof(uint16_t)},
        {m->buffer_latents, config->buffer_slots * latent},
        {m->order, config->buffer_slots * sizeof(uint16_t)},
    };
    for (int i = 0; i < BNN_LEARN_ITEMS; i++) {
        items[i] = list[i];
    }
}
