/* SPDX-License-Identifier: Apache-2.0 */
/* analytic.h -- what the analytic heads share: sums of mapped features by class, and rows made of them (docs/numerics.md,
 * 5.11). "New" sums are those of the open experience; with config.undo = 0 they are the kept ones. */
#ifndef BNN_LEARN_ANALYTIC_H
#define BNN_LEARN_ANALYTIC_H

#include "fixed.h"
#include "internal.h"

enum { BNN_MEAN_BITS = 16, BNN_SUM_MAX = 0x7FFFFFFF };

/* floor(v / divisor), divisor > 0. */
static inline int64_t bnn_floor_div(int64_t v, int64_t divisor)
{
    return v >= 0 ? v / divisor : -((divisor - 1 - v) / divisor);
}

/* ---- mapping.c ------------------------------------------------------------------------------------ */

/* The mapped features [config.mapped] of a feature vector, in memory.x. */
const int16_t *bnn_map(const bnn_learner *self, const void *stream);

/* ---- rows.c --------------------------------------------------------------------------------------- */

/* Samples of class c, those of the open experience included. */
int64_t bnn_class_count(const bnn_learner *self, uint32_t c);

/* Their sum at place i. */
int64_t bnn_class_sum(const bnn_learner *self, uint32_t c, uint32_t i);

/* Their mean at place i with BNN_MEAN_BITS fraction bits, |mean| <= 2^24; the class has samples. */
int64_t bnn_class_mean(const bnn_learner *self, uint32_t c, uint32_t i);

/* Add a sample's mapped features to the new sums; BNN_E_RANGE, and nothing is added, where one would leave 31 bits. */
bnn_status bnn_sums_fit(const bnn_learner *self, const int16_t *phi, uint32_t label);
void bnn_sums_add(bnn_learner *self, const int16_t *phi, uint32_t label);

/* new_bias[c] = -(row c of tw) * mean / 2, for all classes with samples. */
void bnn_rows_bias(bnn_learner *self);

/* to += from, from = 0. */
void bnn_sums_commit(int32_t *to, int32_t *from, size_t count);

/* Functions of bnn_head_ops. */
void bnn_rows_load(bnn_learner *self, int rows);
void bnn_rows_score(const bnn_learner *self, const void *stream, int32_t *scores);
void bnn_rows_commit(bnn_learner *self);
bnn_status bnn_rows_abandon(bnn_learner *self);
void bnn_rows_forget(bnn_learner *self, uint32_t label);
uint32_t bnn_rows_items(const bnn_learner *self, bnn_learn_item *items);

#endif
