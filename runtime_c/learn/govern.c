/* SPDX-License-Identifier: Apache-2.0 */
/* govern.c -- samples that are held back, the judgement on an experience by them, and the threshold on the unknown
 * (docs/numerics.md, 5.12). */
#include "fixed.h"
#include "internal.h"
#include "store.h"

enum { COUNT_LIMIT = 0x7FFFFFFF };

/* Labelled latents, wherever they lie. */
typedef struct {
    const uint16_t *labels;
    const uint32_t *latents;
    uint32_t count;
} samples;

static samples kept_samples(const bnn_learner *self)
{
    samples set;
    set.labels = self->memory.hold_labels;
    set.latents = self->memory.hold_latents;
    set.count = self->state.held;
    return set;
}

static samples new_samples(const bnn_learner *self)
{
    samples set;
    set.labels = self->memory.hold_new_labels;
    set.latents = self->memory.hold_new_latents;
    set.count = self->state.held_new;
    return set;
}

static bnn_latent_store view(bnn_learner *self)
{
    bnn_latent_store store;
    store.labels = self->memory.hold_labels;
    store.latents = self->memory.hold_latents;
    store.seen = self->memory.hold_seen;
    store.filled = &self->state.held;
    store.rng = &self->state.rng;
    store.slots = self->config->hold_slots;
    store.words = self->config->latent_words;
    store.capacity = self->config->capacity;
    return store;
}

static void begin(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    s->held_new = 0;
    s->held_offered = 0;
    s->verdict = BNN_VERDICT_NONE;
    s->known = 0;
    s->known_before = 0;
    s->known_after = 0;
    s->judged = 0;
    s->new_right = 0;
    if (self->memory.hold_counts != NULL) {
        bnn_learn_clear(self->memory.hold_counts, self->config->capacity * sizeof(uint32_t));
    }
}

/* Counted by class, so that no order of the labels can keep a class out, and the first sample of a class is trained on.
 * The bounded store is a reservoir (Vitter 1985, algorithm R). */
static int hold(bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    bnn_learn_state *const s = &self->state;
    const bnn_learn_config *const config = self->config;
    uint32_t *const counts = self->memory.hold_counts;
    uint32_t slot;
    if (config->hold_every == 0 || s->added == COUNT_LIMIT) {
        return 0;
    }
    counts[label]++; /* at most `added` */
    if (counts[label] % config->hold_every != 0) {
        return 0;
    }
    s->held_offered++;
    slot = s->held_new < config->hold_new_slots ? s->held_new++ : bnn_random_below(&s->rng, s->held_offered);
    if (slot < config->hold_new_slots) {
        const size_t words = config->latent_words;
        bnn_latent_copy(self->memory.hold_new_latents + slot * words, latent, config->latent_words);
        self->memory.hold_new_labels[slot] = (uint16_t)label;
    }
    return 1;
}

/* memory.acc = scores of a latent with the rows that are loaded; classes that would never have been seen cannot win. */
static void score(bnn_learner *self, const uint32_t *latent, int rows)
{
    int32_t *const scores = self->memory.acc;
    self->parts.head->score(self, self->parts.features(self->parts.user, latent), scores);
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        const int open = rows == BNN_ROWS_TRAINED && self->memory.cur[c] != 0;
        scores[c] = self->memory.past[c] == 0 && !open ? INT32_MIN : scores[c];
    }
}

/* How many samples the rows that are loaded get right; of kept samples, those of known classes are looked at. */
static uint32_t count_right(bnn_learner *self, samples set, int rows, int known_alone)
{
    const uint32_t *latent = set.latents;
    uint32_t right = 0;
    for (uint32_t i = 0; i < set.count; i++, latent += self->config->latent_words) {
        uint32_t best;
        if (known_alone && self->memory.past[set.labels[i]] == 0) {
            continue;
        }
        score(self, latent, rows);
        (void)bnn_learner_lead(self, self->memory.acc, &best);
        right += best == set.labels[i];
    }
    return right;
}

static uint32_t count_known(const bnn_learner *self)
{
    uint32_t known = 0;
    for (uint32_t i = 0; i < self->state.held; i++) {
        known += self->memory.past[self->memory.hold_labels[i]] != 0;
    }
    return known;
}

/* Counts are at most 2 * 65535: products of one with 100 are below 2^24, of two below 2^40. */
static uint32_t verdict(const bnn_learner *self)
{
    const bnn_learn_state *const s = &self->state;
    const uint32_t right = s->known_after + s->new_right;
    const uint64_t before = (uint64_t)self->config->accept_new * s->known_before;
    if (100u * s->known_before > 100u * s->known_after + self->config->accept_drop * s->known) {
        return BNN_REFUSED_DROP;
    }
    if (100u * right < self->config->accept_least * s->judged) {
        return BNN_REFUSED_LEAST;
    }
    return (uint64_t)100u * s->new_right * s->known < before * s->held_new ? BNN_REFUSED_NEW : BNN_ACCEPTED;
}

/* A fall is looked for on samples of earlier experiences alone: those of the open one may share its fault, wrong labels of
 * known classes, and would vouch for it. Labels at random betray themselves on the open experience's samples. */
static int judge(bnn_learner *self)
{
    bnn_learn_state *const s = &self->state;
    const samples kept = kept_samples(self);
    const samples fresh = new_samples(self);
    s->known = count_known(self);
    if (s->known != 0) {
        bnn_learner_load(self, BNN_ROWS_KEPT);
        s->known_before = count_right(self, kept, BNN_ROWS_KEPT, 1);
    }
    self->parts.head->propose(self);
    s->judged = s->known + fresh.count;
    if (s->judged != 0) {
        bnn_learner_load(self, BNN_ROWS_TRAINED);
        s->known_after = count_right(self, kept, BNN_ROWS_TRAINED, 1);
        s->new_right = count_right(self, fresh, BNN_ROWS_TRAINED, 0);
    }
    s->verdict = verdict(self);
    return s->verdict == BNN_ACCEPTED;
}

/* The largest threshold below which at most a share of `count` leads lie: that one in ascending order, found bit by bit. */
static uint32_t quantile(const uint32_t *leads, uint32_t count, uint32_t percent)
{
    const uint32_t most = count * percent / 100u; /* count <= 65535 */
    uint32_t threshold = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        uint32_t below = 0;
        for (uint32_t i = 0; i < count; i++) {
            below += leads[i] < (threshold | bit);
        }
        threshold |= below <= most ? bit : 0u;
    }
    return threshold;
}

/* Samples of known classes: held back, else replayed, else, where `fresh` says that it holds the experience just
 * taken over, the buffer. */
static samples known_samples(const bnn_learner *self, int fresh)
{
    samples set = kept_samples(self);
    if (set.count == 0 && self->memory.replay_labels != NULL) {
        set.labels = self->memory.replay_labels;
        set.latents = self->memory.replay_latents;
        set.count = self->state.replayed;
    }
    if (set.count == 0 && fresh && self->memory.buffer_labels != NULL) {
        set.labels = self->memory.buffer_labels;
        set.latents = self->memory.buffer_latents;
        set.count = self->state.buffered;
    }
    return set;
}

/* Leads are in units of the rows that answer: they are measured anew whenever these change. */
static void calibrate(bnn_learner *self, samples set)
{
    const uint32_t *latent = set.latents;
    uint32_t *const leads = self->memory.leads;
    self->state.threshold = 0;
    if (self->config->reject == 0 || set.count == 0) {
        return;
    }
    bnn_learner_load(self, BNN_ROWS_KEPT);
    for (uint32_t i = 0; i < set.count; i++, latent += self->config->latent_words) {
        uint32_t best;
        score(self, latent, BNN_ROWS_KEPT);
        leads[i] = bnn_learner_lead(self, self->memory.acc, &best);
    }
    self->state.threshold = quantile(leads, set.count, self->config->reject);
}

static void commit(bnn_learner *self)
{
    const samples set = new_samples(self);
    if (self->config->hold_slots != 0) {
        const bnn_latent_store store = view(self);
        for (uint32_t i = 0; i < set.count; i++) {
            bnn_store_put_balanced(&store, set.latents + (size_t)i * store.words, set.labels[i]);
        }
    }
    calibrate(self, known_samples(self, 1));
}

static void forget(bnn_learner *self, uint32_t label)
{
    if (self->config->hold_slots != 0) {
        const bnn_latent_store store = view(self);
        bnn_store_forget(&store, label);
    }
    calibrate(self, known_samples(self, 0));
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    const bnn_learn_config *const config = self->config;
    const bnn_learn_memory *const m = &self->memory;
    const size_t counts = config->capacity * sizeof(uint32_t);
    const size_t latent = config->latent_words * sizeof(uint32_t);
    const void *const data[6] = {m->hold_counts,  m->hold_new_labels, m->hold_new_latents,
                                 m->hold_seen, m->hold_labels,     m->hold_latents};
    const size_t bytes[6] = {counts, config->hold_new_slots * sizeof(uint16_t), config->hold_new_slots * latent,
                             counts, config->hold_slots * sizeof(uint16_t),     config->hold_slots * latent};
    const uint32_t count = config->hold_every == 0 ? 0u : config->hold_slots == 0 ? 3u : 6u;
    for (uint32_t i = 0; i < count; i++) {
        list[i].data = data[i];
        list[i].bytes = bytes[i];
    }
    return count;
}

const bnn_govern_ops bnn_governed = {begin, hold, judge, commit, forget, items};
