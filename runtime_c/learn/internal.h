/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h -- what the files of the learner call in each other. Not for users. */
#ifndef BNN_LEARN_INTERNAL_H
#define BNN_LEARN_INTERNAL_H

#include "bnn/learn.h"

static inline void bnn_learn_clear(void *memory, size_t bytes)
{
    uint8_t *const byte = (uint8_t *)memory;
    for (size_t i = 0; i < bytes; i++) {
        byte[i] = 0;
    }
}

/* Make rows ready for `score`. */
static inline void bnn_learner_load(bnn_learner *self, int rows)
{
    self->rows = rows;
    self->parts.head->load(self, rows);
}

/* past += cur, up to 2^31 - 1. */
void bnn_learner_count_past(bnn_learner *self);

/* How far the best score is above the mean of all that are not INT32_MIN, floor, and the class with the best, lowest first;
 * *best = capacity: there is none. */
uint32_t bnn_learner_lead(const bnn_learner *self, const int32_t *scores, uint32_t *best);

/* ---- minibatch.c ---------------------------------------------------------------------------------- */

/* Order of the buffer and length of the experience; `old_classes`: how many the replay memory stands for. */
void bnn_minibatch_prepare(bnn_learner *self, uint32_t new_classes, uint32_t old_classes);

/* `step` of a gradient head: one minibatch of new and replayed samples through load, learn, update. */
bnn_status bnn_minibatch_step(bnn_learner *self);

/* ---- operands.c ----------------------------------------------------------------------------------- */

/* x[d] = operand of the feature vector's value d (docs/numerics.md, 5.1). */
void bnn_operands(const bnn_learner *self, const void *stream, int16_t *x);

/* g of value d of the feature vector: itself, or its square root with 8 fraction bits and its sign. */
int32_t bnn_head_value(const bnn_learn_config *config, const void *stream, uint32_t d);

/* ---- softmax.c ------------------------------------------------------------------------------------ */

/* acc[c] -> softmax over 0 .. p_max, in place. A logit difference u is t = u * scale >> shift units of 2^-16 octaves;
 * scale < 2^31, 0 <= shift <= 63. */
void bnn_softmax(const bnn_learn_config *config, uint64_t scale, int32_t shift, int32_t *acc);

#endif
