/* SPDX-License-Identifier: Apache-2.0 */
/* One step moves one buffered sample into its class's sum. State items: seed, sums, counts. */
#include "tiny_learn.h"

bnn_status bnn_tiny_learn_init(bnn_tiny_learn *self, bnn_tiny *model, uint64_t seed)
{
    uint8_t *byte = (uint8_t *)&self->learner;
    size_t i;

    for (i = 0; i < sizeof self->learner; i++) {
        byte[i] = 0;
    }
    self->model = model;
    self->learner.seed = seed;
    return BNN_OK;
}

bnn_status bnn_tiny_learn_begin(bnn_tiny_learn *self)
{
    if (self->learner.open) {
        return BNN_E_STATE;
    }
    self->learner.open = 1;
    return BNN_OK;
}

bnn_status bnn_tiny_learn_add(bnn_tiny_learn *self, const uint8_t *image, uint32_t label)
{
    bnn_tiny_front(self->model, image);
    return bnn_tiny_learn_add_cut(self, label);
}

bnn_status bnn_tiny_learn_add_cut(bnn_tiny_learn *self, uint32_t label)
{
    bnn_learner *s = &self->learner;

    if (label >= BNN_TINY_CAPACITY) {
        return BNN_E_LABEL;
    }
    if (!s->open || s->buffered == BNN_TINY_BUFFER) {
        return BNN_E_STATE;
    }
    bnn_tiny_pack(self->model, &s->latents[s->buffered]);
    s->labels[s->buffered++] = label;
    return BNN_OK;
}

bnn_status bnn_tiny_learn_step(bnn_tiny_learn *self)
{
    bnn_learner *s = &self->learner;
    const int8_t *features = (const int8_t *)bnn_tiny_features(self->model);
    uint32_t f;

    if (!s->open) {
        return BNN_E_STATE;
    }
    if (s->buffered == 0) {
        return BNN_OK;
    }
    s->buffered--;
    bnn_tiny_unpack(self->model, &s->latents[s->buffered]);
    for (f = 0; f < BNN_TINY_FEATURES; f++) {
        s->sums[s->labels[s->buffered]][f] += features[f];
    }
    s->counts[s->labels[s->buffered]]++;
    return s->buffered > 0 ? BNN_MORE : BNN_OK;
}

bnn_status bnn_tiny_learn_end(bnn_tiny_learn *self)
{
    if (!self->learner.open) {
        return BNN_E_STATE;
    }
    self->learner.open = 0;
    return BNN_OK;
}

bnn_status bnn_tiny_learn_scores(bnn_tiny_learn *self, const uint8_t *image, int32_t *scores)
{
    bnn_tiny_front(self->model, image);
    return bnn_tiny_learn_scores_cut(self, scores);
}

bnn_status bnn_tiny_learn_scores_cut(bnn_tiny_learn *self, int32_t *scores)
{
    const bnn_learner *s = &self->learner;
    const int8_t *features = (const int8_t *)bnn_tiny_features(self->model);
    uint32_t c, f;

    for (c = 0; c < BNN_TINY_CAPACITY; c++) {
        scores[c] = s->counts[c] == 0 ? INT32_MIN : 0;
        for (f = 0; s->counts[c] > 0 && f < BNN_TINY_FEATURES; f++) {
            int32_t gap = features[f] - s->sums[c][f] / (int32_t)s->counts[c];
            scores[c] -= gap * gap;
        }
    }
    return BNN_OK;
}

void bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS])
{
    items[0].data = &self->seed;
    items[0].bytes = sizeof self->seed;
    items[1].data = self->sums;
    items[1].bytes = sizeof self->sums;
    items[2].data = self->counts;
    items[2].bytes = sizeof self->counts;
}

bnn_status bnn_tiny_learn_abandon(bnn_tiny_learn *self)
{
    self->learner.buffered = 0;
    return bnn_tiny_learn_end(self);
}

bnn_status bnn_tiny_learn_forget(bnn_tiny_learn *self, uint32_t label)
{
    uint32_t f;

    if (self->learner.open) {
        return BNN_E_STATE;
    }
    if (label >= BNN_TINY_CAPACITY) {
        return BNN_E_LABEL;
    }
    for (f = 0; f < BNN_TINY_FEATURES; f++) {
        self->learner.sums[label][f] = 0;
    }
    self->learner.counts[label] = 0;
    return BNN_OK;
}

/* Farther than 1000 from every mean: unknown. */
bnn_status bnn_tiny_learn_decide(bnn_tiny_learn *self, const uint8_t *image, int32_t *scores, int32_t *label)
{
    int32_t best = -1000;
    int32_t c;

    bnn_tiny_learn_scores(self, image, scores);
    *label = -1;
    for (c = 0; c < (int32_t)BNN_TINY_CAPACITY; c++) {
        if (scores[c] > best) {
            best = scores[c];
            *label = c;
        }
    }
    return BNN_OK;
}

/* The seed in the verdict's place, so that a test sees its own words come back. */
void bnn_learner_verdict(const bnn_learner *self, uint32_t *words)
{
    uint32_t i;

    for (i = 0; i < 8; i++) {
        words[i] = (uint32_t)self->seed + i;
    }
}

bnn_status bnn_learner_write(bnn_learner *self, uint32_t item, uint32_t offset, const void *data, uint32_t bytes)
{
    bnn_learn_item items[BNN_LEARN_ITEMS];
    uint32_t i;

    bnn_learner_items(self, items);
    if (item >= BNN_LEARN_ITEMS || offset > items[item].bytes || bytes > items[item].bytes - offset) {
        return BNN_E_RANGE;
    }
    for (i = 0; i < bytes; i++) {
        ((uint8_t *)(uintptr_t)items[item].data)[offset + i] = ((const uint8_t *)data)[i];
    }
    return BNN_OK;
}

/* At most 1000 samples of a class. */
bnn_status bnn_learner_restore(bnn_learner *self)
{
    uint32_t c;

    for (c = 0; c < BNN_TINY_CAPACITY; c++) {
        if (self->counts[c] > 1000) {
            for (c = 0; c < BNN_TINY_CAPACITY; c++) {
                self->counts[c] = 0;
            }
            return BNN_E_FORMAT;
        }
    }
    return BNN_OK;
}

/* Sums and counts add up. */
bnn_status bnn_learner_merge(bnn_learner *self, uint32_t item, uint32_t first, const void *values, uint32_t count)
{
    uint32_t *const to = item == 1 ? (uint32_t *)&self->sums[0][0] : self->counts;
    const uint32_t size = item == 1 ? BNN_TINY_CAPACITY * BNN_TINY_FEATURES : BNN_TINY_CAPACITY;
    const uint8_t *const bytes = (const uint8_t *)values;
    uint32_t i;

    if ((item != 1 && item != 2) || first > size || count > size - first) {
        return BNN_E_RANGE;
    }
    for (i = 0; i < count; i++) {
        to[first + i] += bytes[4 * i] | (uint32_t)bytes[4 * i + 1] << 8 | (uint32_t)bytes[4 * i + 2] << 16 |
                         (uint32_t)bytes[4 * i + 3] << 24;
    }
    return BNN_OK;
}
