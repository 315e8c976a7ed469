/* SPDX-License-Identifier: Apache-2.0 */
/* A nearest-mean head behind the interface of generated learning, so that the server can be tested alone. */
#ifndef BNN_TINY_LEARN_H
#define BNN_TINY_LEARN_H

#include "tiny.h"

#define BNN_TINY_CAPACITY 4u
#define BNN_TINY_STATE_ITEMS 3u
#define BNN_TINY_BUFFER 8u

enum { BNN_LEARN_ITEMS = 3 };

typedef struct {
    const void *data;
    size_t bytes;
} bnn_learn_item;

typedef struct {
    uint64_t seed;
    uint32_t open, buffered, labels[BNN_TINY_BUFFER], latents[BNN_TINY_BUFFER];
    int32_t sums[BNN_TINY_CAPACITY][BNN_TINY_FEATURES];
    uint32_t counts[BNN_TINY_CAPACITY];
} bnn_learner;

typedef struct {
    bnn_tiny *model;
    bnn_learner learner;
} bnn_tiny_learn;

bnn_status bnn_tiny_learn_init(bnn_tiny_learn *self, bnn_tiny *model, uint64_t seed);
bnn_status bnn_tiny_learn_begin(bnn_tiny_learn *self);
bnn_status bnn_tiny_learn_add(bnn_tiny_learn *self, const uint8_t *image, uint32_t label);
bnn_status bnn_tiny_learn_step(bnn_tiny_learn *self);
bnn_status bnn_tiny_learn_end(bnn_tiny_learn *self);
bnn_status bnn_tiny_learn_scores(bnn_tiny_learn *self, const uint8_t *image, int32_t *scores);
bnn_status bnn_tiny_learn_add_cut(bnn_tiny_learn *self, uint32_t label);
bnn_status bnn_tiny_learn_scores_cut(bnn_tiny_learn *self, int32_t *scores);
bnn_status bnn_tiny_learn_abandon(bnn_tiny_learn *self);
bnn_status bnn_tiny_learn_forget(bnn_tiny_learn *self, uint32_t label);
bnn_status bnn_tiny_learn_decide(bnn_tiny_learn *self, const uint8_t *image, int32_t *scores, int32_t *label);
void bnn_learner_verdict(const bnn_learner *self, uint32_t *words);
bnn_status bnn_learner_write(bnn_learner *self, uint32_t item, uint32_t offset, const void *data, uint32_t bytes);
bnn_status bnn_learner_restore(bnn_learner *self);
bnn_status bnn_learner_merge(bnn_learner *self, uint32_t item, uint32_t first, const void *values, uint32_t count);
void bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS]);

#endif
