/* SPDX-License-Identifier: Apache-2.0 */
/* learner.c -- the course of an experience: collect, train in bounded steps, take over. */
#include "fixed.h"
#include "internal.h"
#include "store.h"

void bnn_learner_init(bnn_learner *self, const bnn_learn_config *config, const bnn_learn_parts *parts,
                      const bnn_learn_memory *memory, uint64_t seed)
{
    bnn_learn_item items[BNN_LEARN_ITEMS];
    uint32_t count;
    self->config = config;
    self->parts = *parts;
    self->memory = *memory;
    self->loaded = 0;
    self->loaded_exp = 0;
    self->rows = BNN_ROWS_KEPT;
    count = bnn_learner_items(self, items);
    for (uint32_t i = 0; i < count; i++) {
        bnn_learn_clear((void *)(uintptr_t)items[i].data, items[i].bytes);
    }
    bnn_random_seed(&self->state.rng, seed);
    parts->head->init(self);
    if (parts->tail != NULL) {
        parts->tail->init(self);
    }
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
    bnn_learn_clear(self->memory.cur, self->config->capacity * sizeof(uint32_t));
    if (self->parts.govern != NULL) {
        self->parts.govern->begin(self);
    }
    if (self->parts.head->begin != NULL) {
        self->parts.head->begin(self);
    }
    return BNN_OK;
}

/* Reservoir sampling (Vitter 1985, algorithm R): each sample offered is kept with the same probability. */
static void buffer(bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    bnn_learn_state *const s = &self->state;
    const uint32_t words = self->config->latent_words;
    uint32_t slot;
    if (s->buffered < self->config->buffer_slots) {
        slot = s->buffered++;
    } else {
        slot = bnn_random_below(&s->rng, s->added - s->held_offered); /* this sample was not held back: at least 1 */
    }
    if (slot < self->config->buffer_slots) {
        bnn_latent_copy(self->memory.buffer_latents + (size_t)slot * words, latent, words);
        self->memory.buffer_labels[slot] = (uint16_t)label;
    }
}

bnn_status bnn_learner_add(bnn_learner *self, const uint32_t *latent, const void *features, uint32_t label)
{
    bnn_learn_state *const s = &self->state;
    if (s->phase != BNN_LEARN_COLLECT) {
        return BNN_E_STATE;
    }
    if (label >= self->config->capacity) {
        return BNN_E_LABEL;
    }
    s->added += s->added < 0x7FFFFFFFu;
    if (self->parts.govern != NULL && self->parts.govern->hold(self, latent, label) != 0) {
        return BNN_OK;
    }
    if (self->parts.head->observe != NULL) {
        return self->parts.head->observe(self, features, label);
    }
    buffer(self, latent, label);
    return BNN_OK;
}

static uint32_t classes(const bnn_learner *self, const int32_t *samples)
{
    uint32_t count = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        self->memory.cur[c] += (uint32_t)samples[c];
        count += samples[c] != 0;
    }
    return count;
}

/* The first step knows which classes are present: those of the buffer and of the replay memory. */
static void prepare(bnn_learner *self)
{
    int32_t *const samples = self->memory.acc;
    const size_t bytes = self->config->capacity * sizeof(int32_t);
    uint32_t new_classes;
    bnn_learn_clear(samples, bytes);
    for (uint32_t i = 0; i < self->state.buffered; i++) {
        samples[self->memory.buffer_labels[i]]++;
    }
    new_classes = classes(self, samples);
    bnn_learn_clear(samples, bytes);
    if (self->parts.replay != NULL) {
        self->parts.replay->count(self, samples);
    }
    bnn_minibatch_prepare(self, new_classes, classes(self, samples));
}

bnn_status bnn_learner_step(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    if (s->phase == BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    if (s->phase == BNN_LEARN_DONE || s->added == 0) {
        return BNN_OK;
    }
    if (s->phase == BNN_LEARN_COLLECT) {
        if (self->parts.head->observe == NULL) {
            prepare(self);
        }
        self->parts.head->prepare(self);
        if (self->parts.tail != NULL) {
            self->parts.tail->prepare(self);
        }
        s->phase = BNN_LEARN_TRAIN;
    }
    if (self->parts.head->step(self) == BNN_OK) {
        s->phase = BNN_LEARN_DONE;
        return BNN_OK;
    }
    return BNN_MORE;
}

void bnn_learner_count_past(bnn_learner *self)
{
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        const uint32_t room = 0x7FFFFFFFu - self->memory.past[c];
        self->memory.past[c] += self->memory.cur[c] < room ? self->memory.cur[c] : room;
    }
}

/* propose, judge, and take over or drop. */
static void take_over(bnn_learner *self)
{
    const bnn_govern_ops *const govern = self->parts.govern;
    if (govern == NULL) {
        self->parts.head->propose(self);
    } else if (govern->judge(self) == 0) {
        if (self->parts.head->abandon != NULL) {
            (void)self->parts.head->abandon(self); /* a head that cannot is not governed */
        }
        return;
    }
    bnn_learner_count_past(self);
    self->parts.head->commit(self);
    if (self->parts.tail != NULL) {
        self->parts.tail->commit(self);
    }
    if (self->parts.replay != NULL) {
        self->parts.replay->refill(self);
    }
    self->state.experiences += self->state.experiences < 0x7FFFFFFFu;
    if (govern != NULL) {
        govern->commit(self);
    }
}

bnn_status bnn_learner_end(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    if (s->phase == BNN_LEARN_IDLE || (s->phase == BNN_LEARN_COLLECT && s->added != 0)) {
        return BNN_E_STATE;
    }
    if (s->added != 0) {
        take_over(self);
    }
    s->phase = BNN_LEARN_IDLE;
    return BNN_OK;
}

bnn_status bnn_learner_abandon(bnn_learner *self)
{
    if (self->state.phase == BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    if (self->parts.head->abandon != NULL && self->parts.head->abandon(self) != BNN_OK) {
        return BNN_E_STATE;
    }
    self->state.phase = BNN_LEARN_IDLE;
    return BNN_OK;
}

bnn_status bnn_learner_forget(bnn_learner *self, uint32_t label)
{
    if (self->state.phase != BNN_LEARN_IDLE) {
        return BNN_E_STATE;
    }
    if (label >= self->config->capacity) {
        return BNN_E_LABEL;
    }
    self->parts.head->forget(self, label);
    if (self->parts.replay != NULL) {
        self->parts.replay->forget(self, label);
    }
    self->memory.past[label] = 0;
    if (self->parts.govern != NULL) {
        self->parts.govern->forget(self, label);
    }
    return BNN_OK;
}

void bnn_learner_scores(bnn_learner *self, const void *features, int32_t *scores)
{
    bnn_learner_load(self, BNN_ROWS_KEPT);
    self->parts.head->score(self, features, scores);
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        scores[c] = self->memory.past[c] == 0 ? INT32_MIN : scores[c];
    }
}

uint32_t bnn_learner_lead(const bnn_learner *self, const int32_t *scores, uint32_t *best)
{
    const uint32_t capacity = self->config->capacity;
    int32_t first = INT32_MIN;
    uint64_t sum = 0; /* below capacity * 2^32 */
    uint32_t known = 0;
    *best = capacity;
    for (uint32_t c = 0; c < capacity; c++) {
        if (scores[c] > first) {
            first = scores[c];
            *best = c;
        }
    }
    for (uint32_t c = 0; c < capacity; c++) {
        if (scores[c] != INT32_MIN) {
            sum += (uint32_t)first - (uint32_t)scores[c]; /* first >= scores[c]: exact modulo 2^32 */
            known++;
        }
    }
    return known == 0 ? 0u : (uint32_t)(sum / known);
}

void bnn_learner_verdict(const bnn_learner *self, uint32_t *words)
{
    const bnn_learn_state *const s = &self->state;
    words[0] = s->verdict;
    words[1] = s->known;
    words[2] = s->known_before;
    words[3] = s->known_after;
    words[4] = s->judged;
    words[5] = s->known_after + s->new_right;
    words[6] = s->held_new;
    words[7] = s->new_right;
}

int32_t bnn_learner_decide(const bnn_learner *self, const int32_t *scores)
{
    uint32_t best;
    const uint32_t lead = bnn_learner_lead(self, scores, &best);
    return best == self->config->capacity || lead < self->state.threshold ? -1 : (int32_t)best;
}

static void append(bnn_learn_item *items, uint32_t *count, const void *data, size_t bytes)
{
    items[*count].data = data;
    items[(*count)++].bytes = bytes;
}

uint32_t bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS])
{
    const bnn_learn_config *const config = self->config;
    const bnn_learn_memory *const m = &self->memory;
    const size_t counts = config->capacity * sizeof(uint32_t);
    const size_t latents = (size_t)config->buffer_slots * config->latent_words * sizeof(uint32_t);
    uint32_t n = 0;
    bnn_learn_clear(items, BNN_LEARN_ITEMS * sizeof *items);
    append(items, &n, &self->state, sizeof self->state);
    append(items, &n, m->past, counts);
    items[1].fresh = self->parts.head->observe != NULL ? m->cur : NULL;
    append(items, &n, m->cur, counts);
    append(items, &n, m->seen, counts);
    n += self->parts.head->items(self, items + n);
    if (self->parts.replay != NULL) {
        n += self->parts.replay->items(self, items + n);
    }
    if (m->buffer_labels != NULL) {
        append(items, &n, m->buffer_labels, config->buffer_slots * sizeof(uint16_t));
        append(items, &n, m->buffer_latents, latents);
        append(items, &n, m->order, config->buffer_slots * sizeof(uint16_t));
    }
    if (self->parts.govern != NULL) {
        n += self->parts.govern->items(self, items + n);
    }
    if (self->parts.tail != NULL) {
        n += self->parts.tail->items(self, items + n);
    }
    return n;
}
