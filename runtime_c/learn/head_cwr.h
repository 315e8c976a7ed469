/* SPDX-License-Identifier: Apache-2.0 */
/* head_cwr.h -- CWR* and its kin: quantised forward pass, gradient step and consolidation (docs/numerics.md, 5), for
 * any width of gradients and stored weights. A file that includes it has defined CWR_WIDTH, without which the header is
 * empty, and declared, for |weight| <= L:
 *
 *     cwr_weight   signed; holds L
 *     cwr_sum      signed; holds P * L * B, the sum of a minibatch, 2 * F * 2 L + L, the dividend of an operand, and
 *                  L * 2^GUARD, a mean weight
 *     cwr_dividend the same without a sign; divisions are done in it
 *     SCALE_BITS   by how much the product of t_mult and the largest weight is cut: 15, and 16 more for 32-bit weights
 *     SHARE_BITS   fraction bits of the share of the old row: L * 2^(GUARD + 1) * 2^SHARE_BITS < 2^63
 */
#ifndef BNN_LEARN_HEAD_CWR_H
#define BNN_LEARN_HEAD_CWR_H

#ifdef CWR_WIDTH

#include "fixed.h"
#include "internal.h"

enum { GUARD = 8 }; /* guard bits of a weight */

static uint32_t weight_count(const bnn_learner *self)
{
    return self->config->capacity * self->config->features;
}

/* What was written from outside may hold the one number that has no opposite. */
static int32_t largest(const cwr_weight *weights, uint32_t count)
{
    int32_t max = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t v = bnn_learn_clamp(weights[i], -INT32_MAX, INT32_MAX);
        const int32_t w = v < 0 ? -v : v;
        max = w > max ? w : max;
    }
    return max;
}

static cwr_weight *rows_of(const bnn_learner *self, int rows)
{
    return (cwr_weight *)(rows == BNN_ROWS_KEPT ? self->memory.cw : self->memory.tw);
}

/* memory.wq = forward operand of the rows; a minibatch begins with the trained ones. */
static void load(bnn_learner *self, int rows)
{
    const cwr_weight *const weights = rows_of(self, rows);
    int8_t *const wq = (int8_t *)self->memory.wq;
    const uint32_t count = weight_count(self);
    const cwr_sum r = largest(weights, count);
    const int32_t w_max = self->config->w_max;
    for (uint32_t i = 0; i < count; i++) {
        /* weights[i] >= -r, so the dividend is positive and the division a floor */
        const cwr_dividend dividend = (cwr_dividend)(2 * w_max * (weights[i] + r) + r);
        wq[i] = (int8_t)(r == 0 ? 0 : (int32_t)(dividend / (2u * (cwr_dividend)r)) - w_max);
    }
    if (rows == BNN_ROWS_TRAINED) {
        bnn_learn_clear(self->memory.dw, (size_t)count * sizeof(cwr_sum));
    }
    self->loaded = (int32_t)r;
    self->loaded_exp = rows == BNN_ROWS_KEPT ? self->state.cw_exp : self->state.tw_exp;
}

/* memory.x = operand of a feature vector, then out[c] = sum of memory.x * wq[c]. */
static void score(const bnn_learner *self, const void *stream, int32_t *out)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features;
    const int16_t *const x = self->memory.x;
    const int8_t *row = (const int8_t *)self->memory.wq;
    bnn_operands(self, stream, self->memory.x);
    for (uint32_t c = 0; c < config->capacity; c++, row += features) {
        int32_t sum = 0;
        for (uint32_t d = 0; d < features; d++) {
            sum += x[d] * row[d];
        }
        out[c] = sum;
    }
}

/* acc[c] -> (softmax - onehot) at the width of a weight, in place. */
static void logit_gradient(const bnn_learner *self, uint32_t label, int32_t *acc)
{
    const bnn_learn_config *const config = self->config;
    const cwr_dividend p_max = (cwr_dividend)config->p_max;
    const cwr_dividend g_max = (cwr_dividend)config->g_max;
    bnn_softmax(config, ((uint64_t)config->t_mult * (uint32_t)self->loaded) >> SCALE_BITS,
                config->t_shift + self->loaded_exp, acc);
    for (uint32_t c = 0; c < config->capacity; c++) {
        const cwr_dividend above = (uint32_t)acc[c] + (c == label ? 0u : p_max); /* raised above 0 by p_max */
        acc[c] = (int32_t)((2u * above * g_max + p_max) / (2u * p_max) - g_max);
    }
}

/* One sample's part of the step: memory.acc becomes the logit gradient and memory.dw gains x * gradient. */
static void learn(bnn_learner *self, const void *stream, uint32_t label)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features; /* a copy, because the stores below could alias config */
    const int16_t *const x = self->memory.x;
    int32_t *const gradient = self->memory.acc;
    cwr_sum *row = (cwr_sum *)self->memory.dw;
    score(self, stream, gradient);
    logit_gradient(self, label, gradient);
    for (uint32_t c = 0; c < config->capacity; c++, row += features) {
        const int32_t g = gradient[c];
        if (g == 0) {
            continue; /* most classes, most of the time: their probability rounds to 0 */
        }
        for (uint32_t d = 0; d < features; d++) {
            row[d] += x[d] * (cwr_sum)g;
        }
    }
}

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Smallest shift >= `least` that brings values up to `max` at exponent `e` to stored width, so that the
 * exponent is the largest possible; kept inside e_min..e_max. */
static int32_t storing_shift(const bnn_learn_config *config, int64_t max, int32_t e, int32_t least)
{
    int32_t shift = e - config->e_max > least ? e - config->e_max : least;
    while (shift < e - config->e_min && bnn_round_shift(max, shift) > config->g_max) {
        shift++;
    }
    return shift;
}

static int64_t updated_weight(const bnn_learner *self, uint32_t i, int32_t shift)
{
    const int64_t gradient = ((const cwr_sum *)self->memory.dw)[i];
    const int64_t step = bnn_round_shift(gradient * self->config->u_mult, shift);
    return (int64_t)rows_of(self, BNN_ROWS_TRAINED)[i] * (1 << GUARD) - step;
}

/* Apply memory.dw to tw and choose its new exponent. */
static void update(bnn_learner *self)
{
    cwr_weight *const tw = rows_of(self, BNN_ROWS_TRAINED);
    const bnn_learn_config *const config = self->config;
    const uint32_t count = weight_count(self);
    const int32_t e = self->state.tw_exp;
    const int32_t shift = config->u_shift - e;
    int64_t max = 0;
    int32_t store;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t v = magnitude(updated_weight(self, i, shift));
        max = v > max ? v : max;
    }
    store = storing_shift(config, max, e + GUARD, 0);
    for (uint32_t i = 0; i < count; i++) {
        const int64_t v = bnn_round_shift(updated_weight(self, i, shift), store);
        tw[i] = (cwr_weight)bnn_learn_clamp(v, -config->g_max, config->g_max);
    }
    self->state.tw_exp = max == 0 ? config->e_max : e + GUARD - store;
}

/* tw = rows of cw for the classes with cur > 0, 0 elsewhere; where nothing is consolidated, all rows go on. */
static void prepare(bnn_learner *self)
{
    const uint32_t features = self->config->features;
    const cwr_weight *const cw = rows_of(self, BNN_ROWS_KEPT);
    cwr_weight *const tw = rows_of(self, BNN_ROWS_TRAINED);
    const int all = self->config->consolidation == BNN_LEARN_LAST;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        for (uint32_t i = c * features; i < (c + 1) * features; i++) {
            tw[i] = (cwr_weight)(all || self->memory.cur[c] != 0 ? cw[i] : 0);
        }
    }
    self->state.tw_exp = largest(tw, weight_count(self)) == 0 ? self->config->e_max : self->state.cw_exp;
}

/* What consolidation needs beside the weights. */
typedef struct {
    cwr_sum mean;     /* of the present rows of tw, at exponent tw_exp + GUARD */
    int32_t exponent; /* common to both heads */
    int32_t tw_shift, cw_shift;
} consolidation;

static consolidation plan_consolidation(const bnn_learner *self)
{
    const bnn_learn_state *const s = &self->state;
    const uint32_t features = self->config->features;
    const cwr_weight *const tw = rows_of(self, BNN_ROWS_TRAINED);
    consolidation plan;
    int64_t sum = 0;
    int64_t count = 0;
    int64_t dividend;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        for (uint32_t i = c * features; self->memory.cur[c] != 0 && i < (c + 1) * features; i++) {
            sum += tw[i];
            count++;
        }
    }
    dividend = 2 * sum * (1 << GUARD) + count;
    plan.mean = (cwr_sum)((dividend >= 0 ? dividend : dividend - 2 * count + 1) / (2 * count)); /* floor */
    plan.exponent = (s->cw_exp < s->tw_exp ? s->cw_exp : s->tw_exp) + GUARD;
    plan.tw_shift = s->tw_exp + GUARD - plan.exponent;
    plan.cw_shift = s->cw_exp + GUARD - plan.exponent;
    return plan;
}

/* 2^SHARE_BITS * w / (w + 1), floors; CWR*: w = sqrt(past / cur) with 16 fraction bits; CWR+: w = 0. An absent class keeps its
 * row. */
static int64_t share_of_past(const bnn_learner *self, uint32_t c)
{
    uint64_t w;
    if (self->memory.cur[c] == 0) {
        return (int64_t)1 << SHARE_BITS;
    }
    if (self->config->consolidation == BNN_LEARN_PLUS) {
        return 0;
    }
    w = bnn_isqrt(((uint64_t)self->memory.past[c] << 32) / self->memory.cur[c]);
    return (int64_t)((w << SHARE_BITS) / (w + 65536u));
}

/* The consolidated weight at exponent plan->exponent + SHARE_BITS. */
static int64_t consolidated(const bnn_learner *self, const consolidation *plan, uint32_t i, int64_t share)
{
    const int64_t whole = (int64_t)1 << SHARE_BITS;
    const int64_t kept = rows_of(self, BNN_ROWS_KEPT)[i];
    const int64_t now = rows_of(self, BNN_ROWS_TRAINED)[i];
    const int64_t old = bnn_round_shift(kept * (1 << GUARD), plan->cw_shift);
    const int64_t trained = bnn_round_shift(now * (1 << GUARD) - plan->mean, plan->tw_shift);
    return old * share + trained * (whole - share);
}

/* tw = weighted mean of cw and tw for the classes with cur > 0, and cw's rows for the others. */
static void consolidate(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features;
    const consolidation plan = plan_consolidation(self);
    cwr_weight *const tw = rows_of(self, BNN_ROWS_TRAINED);
    int64_t max = 0;
    int32_t store = 0;
    for (int pass = 0; pass < 2; pass++) { /* first the largest weight, then all of them at its exponent */
        for (uint32_t c = 0; c < config->capacity; c++) {
            const int64_t share = share_of_past(self, c);
            for (uint32_t i = c * features; i < (c + 1) * features; i++) {
                const int64_t v = consolidated(self, &plan, i, share);
                if (pass == 0) {
                    max = magnitude(v) > max ? magnitude(v) : max;
                } else {
                    tw[i] = (cwr_weight)bnn_learn_clamp(bnn_round_shift(v, store), -config->g_max, config->g_max);
                }
            }
        }
        store = storing_shift(config, max, plan.exponent + SHARE_BITS, SHARE_BITS);
    }
    self->state.tw_exp = max == 0 ? config->e_max : plan.exponent + SHARE_BITS - store;
}

static void propose(bnn_learner *self)
{
    if (self->config->consolidation != BNN_LEARN_LAST) {
        consolidate(self);
    }
}

static void commit(bnn_learner *self)
{
    const cwr_weight *const tw = rows_of(self, BNN_ROWS_TRAINED);
    cwr_weight *const cw = rows_of(self, BNN_ROWS_KEPT);
    for (uint32_t i = 0; i < weight_count(self); i++) {
        cw[i] = tw[i];
    }
    self->state.cw_exp = self->state.tw_exp;
}

static void init(bnn_learner *self)
{
    self->state.tw_exp = self->config->e_max;
    self->state.cw_exp = self->config->e_max;
}

static void forget(bnn_learner *self, uint32_t label)
{
    const size_t row = (size_t)self->config->features;
    bnn_learn_clear(rows_of(self, BNN_ROWS_KEPT) + label * row, row * sizeof(cwr_weight));
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    list[0].data = self->memory.cw;
    list[1].data = self->memory.tw;
    list[0].bytes = list[1].bytes = (size_t)weight_count(self) * sizeof(cwr_weight);
    return 2;
}

#endif

#endif
