/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h -- what the files of the learner call in each other. Not for users. */
#ifndef BNN_LEARN_INTERNAL_H
#define BNN_LEARN_INTERNAL_H

#include "bnn/learn.h"

/* ---- head.c: forward, gradient, update, consolidation -------------------------------------------- */

/* memory.wq = forward operand of `weights`; returns max|weights|, the R of the softmax constant. */
int32_t bnn_head_load(const bnn_learner *self, const int16_t *weights);

/* memory.x = operand of a feature vector, then out[c] = sum of memory.x * memory.wq[c]. */
void bnn_head_forward(const bnn_learner *self, const void *stream, int32_t *out);

/* One sample's part of the step: memory.acc becomes the logit gradient and memory.dw gains x * gradient. */
void bnn_head_backward(const bnn_learner *self, int32_t r, uint32_t label);

/* Apply memory.dw to tw and choose its new exponent. */
void bnn_head_update(bnn_learner *self);

/* tw = rows of cw for the classes with cur > 0, 0 elsewhere. */
void bnn_head_prepare(bnn_learner *self);

/* cw = weighted mean of cw and tw for the classes with cur > 0; past += cur. */
void bnn_head_consolidate(bnn_learner *self);

/* ---- softmax.c ------------------------------------------------------------------------------------ */

/* acc[c] -> (softmax - onehot) as the q_b gradient, in place. r and e: largest weight and exponent of tw. */
void bnn_softmax_gradient(const bnn_learn_config *config, int32_t r, int32_t e, uint32_t label, int32_t *acc);

/* ---- replay.c ------------------------------------------------------------------------------------- */

/* One refill of the memory: `left` samples still to be offered, `take` of them to be taken (random policy),
 * slots below `old` still hold members from before. */
typedef struct {
    uint32_t left;
    uint32_t take;
    uint32_t old;
} bnn_replay_refill;

bnn_replay_refill bnn_replay_begin(const bnn_learner *self, uint32_t offered);
void bnn_replay_put(bnn_learner *self, bnn_replay_refill *refill, const uint32_t *latent, uint32_t label);

/* Slot of a member drawn with replacement; the memory must not be empty. */
uint32_t bnn_replay_draw(bnn_learner *self);

/* Copy `words` words of a latent. */
void bnn_latent_copy(uint32_t *to, const uint32_t *from, uint32_t words);

#endif
