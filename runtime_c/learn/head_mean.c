/* SPDX-License-Identifier: Apache-2.0 */
/* head_mean.c -- nearest class mean (docs/numerics.md, 5.11): |x - mean|^2 is least where x . mean - |mean|^2 / 2 is
 * largest. */
#include "analytic.h"

static bnn_status observe(bnn_learner *self, const void *features, uint32_t label)
{
    const int16_t *const phi = bnn_map(self, features);
    if (bnn_sums_fit(self, phi, label) != BNN_OK) {
        return BNN_E_RANGE;
    }
    bnn_sums_add(self, phi, label);
    return BNN_OK;
}

static void prepare(bnn_learner *self)
{
    self->state.steps_total = self->config->capacity;
}

/* Row c of tw = mean of class c with row_shift fraction bits; a class a step. */
static bnn_status step(bnn_learner *self)
{
    const uint32_t c = self->state.steps_done++;
    int16_t *const row = (int16_t *)self->memory.tw + (size_t)c * self->config->mapped;
    const int present = bnn_class_count(self, c) != 0;
    for (uint32_t i = 0; i < self->config->mapped; i++) {
        const int64_t mean = present ? bnn_class_mean(self, c, i) : 0;
        const int64_t rounded = bnn_round_shift(mean, BNN_MEAN_BITS - self->config->row_shift);
        row[i] = (int16_t)bnn_learn_clamp(rounded, -self->config->row_max, self->config->row_max);
    }
    return self->state.steps_done < self->state.steps_total ? BNN_MORE : BNN_OK;
}

static void propose(bnn_learner *self)
{
    while (self->state.steps_done < self->state.steps_total) {
        (void)step(self);
    }
    self->state.tw_exp = self->config->row_shift;
    bnn_rows_bias(self);
}

static void init(bnn_learner *self)
{
    self->state.tw_exp = self->config->row_shift;
    self->state.cw_exp = self->config->row_shift;
}

const bnn_head_ops bnn_head_mean = {init,           NULL, observe, prepare, step,            bnn_rows_load,    bnn_rows_score,
                                    NULL,           NULL, propose, bnn_rows_commit, bnn_rows_abandon, bnn_rows_forget,
                                    bnn_rows_items};
